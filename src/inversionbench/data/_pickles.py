"""Pickles of published data sets, read without running what they say.

A pickle may name any callable; here only the few that arrays and sparse matrices need are found, everything
else is refused before it is called. The files are checksummed before this point; this is the second lock.
"""

from __future__ import annotations

import collections
import importlib
import io
import pickle
from typing import Any

import numpy as np

from inversionbench.core.errors import UserError

# name in the pickle -> where it is found now (files were written by Python 2 and old numpy and scipy)
ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
    ("_codecs", "encode"): ("_codecs", "encode"),
}
SPARSE = {
    ("scipy.sparse.csr", "csr_matrix"): ("scipy.sparse", "csr_matrix"),
    ("scipy.sparse._csr", "csr_matrix"): ("scipy.sparse", "csr_matrix"),
    ("copy_reg", "_reconstructor"): ("copyreg", "_reconstructor"),
    ("copyreg", "_reconstructor"): ("copyreg", "_reconstructor"),
    ("__builtin__", "object"): ("builtins", "object"),
    ("builtins", "object"): ("builtins", "object"),
}
LISTS = {
    ("collections", "defaultdict"): ("collections", "defaultdict"),
    ("__builtin__", "list"): ("builtins", "list"),
    ("builtins", "list"): ("builtins", "list"),
}


class _Restricted(pickle._Unpickler):  # type: ignore[name-defined]  # the one in Python, whose steps can be refused
    def __init__(self, data: bytes, where: str, allowed: dict[tuple[str, str], tuple[str, str]], encoding: str):
        super().__init__(io.BytesIO(data), encoding=encoding)
        self.where, self.allowed = where, allowed

    def load_build(self) -> None:
        """Set the state of an object, never of a class or function: it would change what this process has imported."""
        if callable(held := self.stack[-2]):  # type: ignore[attr-defined]
            raise UserError(f"{self.where}: the pickle changes '{held.__name__}'; it is not the official file")
        pickle._Unpickler.load_build(self)  # type: ignore[attr-defined,dict-item]

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: load_build}  # type: ignore[attr-defined,dict-item]

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise UserError(
                f"{self.where}: the pickle asks for '{module}.{name}', which this data set does not need; "
                "it is not the official file, and nothing of it was run"
            )
        place, attribute = self.allowed[(module, name)]
        return getattr(importlib.import_module(place), attribute)


def loads(
    data: bytes, where: str, allowed: dict[tuple[str, str], tuple[str, str]], encoding: str = "latin1"
) -> Any:
    """The object of a pickle that uses nothing but plain values and `allowed`."""
    try:
        return _Restricted(data, where, allowed, encoding).load()
    except UserError:
        raise
    except Exception as error:  # a damaged pickle raises nearly anything
        raise UserError(f"{where}: damaged pickle ({type(error).__name__}: {error}); get it again") from error


def array(value: Any, where: str, kinds: str = "biuf") -> np.ndarray:
    """A value that must be a numeric array."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kinds:
        raise UserError(f"{where}: expected a numeric array, got {type(value).__name__}")
    return value


def adjacency(value: Any, where: str) -> dict[int, list[int]]:
    """A value that must be a graph: node -> list of nodes."""
    good = isinstance(value, (dict, collections.defaultdict)) and all(
        isinstance(k, int) and isinstance(v, list) and all(isinstance(n, int) for n in v) for k, v in value.items()
    )
    if not good:
        raise UserError(f"{where}: expected a graph (node -> list of nodes), got {type(value).__name__}")
    return dict(value)
