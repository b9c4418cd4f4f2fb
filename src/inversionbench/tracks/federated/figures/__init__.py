"""Figures of the federated track: what leakage depends on, and how it is spread over images."""

from inversionbench.tracks.federated.figures.studies import draw

__all__ = ["draw"]
