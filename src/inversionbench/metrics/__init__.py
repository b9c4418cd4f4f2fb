"""What a reconstruction gives away, as numbers: one module per metric, named by its id.

Every metric module has `SPEC` (what it is, which way means more leakage) and a function of its own name.
The parts that put metrics together are exported here, and imported only when they are used:

- `pairwise`: per-image scores of reconstructions with a paired original, `PairScores`;
- `match`, `match_groups`: which reconstruction belongs to which original;
- `interval`, `wilson`, `changed_hits`, `summarise`: per-image scores to table entries;
- `score_controls`: the same scores for reconstructions that know nothing;
- `lpips_like`, `fid_like`: perceptual scores on the features of an evaluator;
- `Spec`, `Unavailable`: what a metric is, and what stands in the place of a value that cannot be had.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "Spec": "base",
    "Unavailable": "base",
    "pairwise": "_pairwise",
    "PairScores": "_pairwise",
    "match": "_matching",
    "match_groups": "_matching",
    "interval": "_aggregate",
    "wilson": "_aggregate",
    "changed_hits": "_aggregate",
    "summarise": "_aggregate",
    "Summary": "_aggregate",
    "score_controls": "_controls",
    "lpips_like": "lpips",
    "fid_like": "fid",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
