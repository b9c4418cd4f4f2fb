"""What is attacked, what training it leaves behind, and what the evaluation of one cell says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

Progress = Callable[..., Any]  # tqdm's signature: progress(iterable, desc=..., total=...)


@dataclass(frozen=True)
class Scenario:
    """What is attacked, read from `scenarios:` in params.yaml.

    model: {"name": ..., options}. training: recipe of the target. protocol: what the track's observation
    needs (batch size, local steps, labels known, attacked classes, sensitive column, ...). subjects: how many
    victims a cell attacks (client batches, classes, records). judges: name of the entry of `evaluators:`. metrics:
    further ones of the track's `optional` metrics, which cost more or need files.
    """

    name: str
    track: str
    dataset: str
    model: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    protocol: Mapping[str, Any] = field(default_factory=dict)
    subjects: int = 8
    seeds: tuple[int, ...] = (0,)
    target_seeds: int = 1
    judges: str | None = None
    metrics: tuple[str, ...] = ()


@dataclass
class Target:
    """What training one target leaves behind; both dictionaries are saved by `torch.save` as plain tensors,
    numbers, strings and containers (loaded with `weights_only=True`).

    released: what the world may see (weights, observed updates, public statistics).
    truth: what only the evaluation may see (indices of attacked samples, labels, sensitive values).
    utility: what training it showed of the price of the defense (bytes, ...), by name, and what `Track.price` did.
    trials: those of `Track.price`, as they stand in records.
    seconds: processor seconds by name (client, server, ...): kept among the timings, never in a record.
    """

    released: dict[str, Any]
    truth: dict[str, Any]
    utility: dict[str, float]
    seconds: dict[str, float] = field(default_factory=dict)
    trials: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Evaluation:
    """What the evaluation of one cell says.

    metrics: name -> values per subject, float (n,); NaN never: a metric that could not be computed is in
    `unavailable` with its reason. groups: (n,) the target (class, client, record) of each value, for intervals.
    controls: control name -> metric name -> values. curves: metric name -> [(budget, values)].
    facts: further numbers and strings for the record.
    gallery: triples for the report, each float (k, c, h, w) in [0, 1]: original, reconstruction, nearest.
    sounds: the same names, each float (samples,) in [-1, 1] at 8,000 Hz.
    """

    metrics: dict[str, np.ndarray]
    groups: np.ndarray
    controls: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    curves: dict[str, list[tuple[int, np.ndarray]]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    gallery: dict[str, torch.Tensor] = field(default_factory=dict)
    sounds: dict[str, torch.Tensor] = field(default_factory=dict)
