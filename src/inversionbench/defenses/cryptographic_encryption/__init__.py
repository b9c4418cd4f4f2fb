"""Defenses under which the server adds what it cannot read (survey 4.5)."""
