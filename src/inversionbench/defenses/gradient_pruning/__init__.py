"""Defenses that send a part of the update."""
