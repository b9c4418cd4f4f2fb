"""Defenses put together from others."""
