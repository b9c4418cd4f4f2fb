"""Data sets: one file each, named by its id; `load` opens what `prepare` wrote."""

from inversionbench.data.base import Card, Dataset, DatasetSource, File, Part, load

__all__ = ["Card", "Dataset", "DatasetSource", "File", "Part", "load"]
