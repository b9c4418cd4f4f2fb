"""Defenses that change what the gradient is taken at (survey 4.1)."""
