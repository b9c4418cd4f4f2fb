"""Defenses that perturb chosen entries of the gradient (survey 4.3)."""
