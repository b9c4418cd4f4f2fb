"""Mixed quantisation (survey 4.3; Ovi, Dey, Roy, Gangopadhyay, CVPR Workshops 2023): reconstruction.

Different layers of an update are quantised with different precision and in different modes, and what travels is
the quantised form. Which layer gets which mode was not available; here it is a table that can be read:

    layer                       bits at strength 1, 2, 3    mode
    first weight tensor         4, 2, 1                     symmetric, one step per tensor
    other convolutions          8, 4, 2                     affine (step and smallest value), per tensor
    linear layers               8, 4, 2                     symmetric, one step per output
    last weights, biases        16 (float16), 8, 4          affine below 16

so bits = base >> (strength - 1). table: "fixed" is that table; "random" deals its rows to the weight tensors by a
public draw of each round; "uniform" gives every tensor 8 >> (strength - 1) bits in the affine mode, the baseline
that a mixture has to beat. One bit is the sign times the mean magnitude.

The gradient, or weight difference, is quantised, never the weights: 8 bits of a weight would lose small
differences. Rounding is stochastic (unbiased) by default. feedback: the error enters the next round. outliers: share
of largest magnitudes that is clipped first, because one outlier sets the step of its tensor.

Measured (small convolutional network, four photographs, inverting gradients, 16.9 dB undefended): the table and its
uniform baseline leave 16.9 and 16.8 dB at strength 1, 15.3 and 14.5 at 3, 12.2 and 10.8 at 4. Mixing hides nothing that
as many bits everywhere do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense
from inversionbench.core.ranges import Share
from inversionbench.core.update_path import Payload, Received, Residual, Stage, UpdatePath

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TABLES = ("fixed", "random", "uniform")
BASE = {"first": 4, "convolution": 8, "linear": 8, "last": 16, "bias": 16, "uniform": 8}
MODES = {"first": "tensor", "convolution": "affine", "linear": "rows", "last": "affine", "bias": "affine",
         "uniform": "affine"}  # fmt: skip


@dataclass(frozen=True)
class MixedQuantization(Defense):
    """strength: how often the bits of the table are halved, plus 1. rounding: "stochastic" or "nearest"."""

    id = "mixed_quantization"
    hooks = frozenset({"client_update"})
    federated = True
    effect = ("cos_sent_true", "lower", 0.999)
    places = ("transform",)
    gives = "quantised"

    table: str = "fixed"
    rounding: str = "stochastic"
    feedback: bool = False
    outliers: Share = 0.0

    def __post_init__(self) -> None:
        if self.strength < 0 or self.strength != int(self.strength):
            raise ValueError(f"mixed_quantization: strength is a number of halvings plus 1, got {self.strength}")
        if self.table not in TABLES or self.rounding not in ("stochastic", "nearest") or not 0 <= self.outliers < 1:
            raise ValueError(
                f"mixed_quantization: expected a table of {', '.join(TABLES)}, rounding stochastic or nearest, "
                f"outliers in [0, 1), got {self.table}, {self.rounding}, {self.outliers}"
            )

    def bits_of(self, kind: str) -> int:
        """Bits of a value in a layer of this kind; 16 is float16."""
        return max(1, BASE[kind] >> (int(self.strength) - 1))

    def kinds(self, shapes: Mapping[str, tuple[int, ...]], round: int) -> dict[str, str]:
        """Tensor name -> row of the table, from public shapes (and the round, where the table is random)."""
        import torch

        if self.table == "uniform":
            return dict.fromkeys(shapes, "uniform")
        weights = [n for n, s in shapes.items() if len(s) > 1]
        kinds = {n: "bias" if len(s) < 2 else "convolution" if len(s) > 2 else "linear" for n, s in shapes.items()}
        if weights:
            kinds[weights[-1]] = "last"
            kinds[weights[0]] = "first"
        if self.table == "random":
            order = torch.randperm(len(weights), generator=torch.Generator().manual_seed(round)).tolist()
            dealt = [kinds[n] for n in weights]
            kinds |= {n: dealt[i] for n, i in zip(weights, order)}
        return kinds

    def on_path(self) -> tuple[Stage, ...]:
        return (Residual(), Quantise(self)) if self.feedback else (Quantise(self),)

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        return UpdatePath(self.on_path()).send(update, ctx) if self.strength else update

    def bytes_sent(self, update: dict[str, Tensor]) -> int:
        if self.strength == 0:
            return super().bytes_sent(update)
        if isinstance(update, Received):
            return update.size
        from inversionbench.defenses.gradient_perturbation._quantisers import packed_size

        kinds = self.kinds({n: tuple(t.shape) for n, t in update.items()}, 0)
        total = 0
        for name, t in update.items():
            bits, mode = self.bits_of(kinds[name]), MODES[kinds[name]]
            scales = 0 if bits == 16 else {"affine": 2, "tensor": 1, "rows": len(t)}[_mode(mode, bits)]
            total += packed_size(t.numel(), bits) + 4 * scales
        return total

    def public_knowledge(self) -> dict[str, Any]:
        """The quantiser; steps and values travel in the open."""
        if self.strength == 0:
            return {}
        return {"quantised": self.table, "halvings": int(self.strength) - 1, "rounding": self.rounding,
                "outliers": self.outliers}  # fmt: skip

    def read(self, tensors: Mapping[str, Tensor], kinds: Mapping[str, str], rng: torch.Generator) -> dict[str, Tensor]:
        """What the server reads of many updates, name -> (n, *shape), without their bytes."""
        draws = rng if self.rounding == "stochastic" else None
        return {n: _read(t, self.bits_of(kinds[n]), MODES[kinds[n]], self.outliers, draws) for n, t in tensors.items()}


class Quantise(Stage):
    """The table applied: to bits and back."""

    gives = "quantised"

    def __init__(self, defense: MixedQuantization):
        self.defense = defense

    def encode(self, payload: Payload, ctx: Client, state: dict[str, Any]) -> Payload:
        own = self.defense
        kinds = own.kinds({n: tuple(t.shape) for n, t in payload.tensors.items()}, ctx.round)
        ctx.state["public"] = ctx.state.get("public", {}) | {"kinds": kinds}
        rng = ctx.rng if own.rounding == "stochastic" else None
        wire = b"".join(_to_bytes(t, own.bits_of(kinds[n]), MODES[kinds[n]], own.outliers, rng)
                        for n, t in payload.tensors.items())  # fmt: skip
        return Payload("quantised", {}, len(wire), wire)

    def decode(self, payload: Payload, like: Mapping[str, Tensor], ctx: Client) -> Payload:
        kinds = self.defense.kinds({n: tuple(t.shape) for n, t in like.items()}, ctx.round)
        tensors, at = {}, 0
        for name, t in like.items():
            tensors[name], at = _from_bytes(payload.wire, at, t, self.defense.bits_of(kinds[name]), MODES[kinds[name]])
        return Payload("dense", tensors, payload.size)


def _mode(mode: str, bits: int) -> str:
    """One bit has no room for a smallest value."""
    return "tensor" if mode == "affine" and bits == 1 else mode


def _to_bytes(t: Tensor, bits: int, mode: str, outliers: float, rng: torch.Generator | None) -> bytes:
    """Scales as float32, then the values."""
    import torch

    from inversionbench.defenses.gradient_perturbation import _quantisers as q

    if bits == 16:
        return t.detach().half().cpu().numpy().tobytes()
    x, mode = q.clipped(t.detach().float(), outliers), _mode(mode, bits)
    rows = x.reshape(len(x) if mode == "rows" else 1, -1)
    values, scales = (q.affine if mode == "affine" else q.symmetric)(rows, bits, rng)
    return scales.to(torch.float32).cpu().numpy().tobytes() + q.pack(values.flatten().cpu().numpy(), bits)


def _from_bytes(wire: bytes, at: int, like: Tensor, bits: int, mode: str) -> tuple[Tensor, int]:
    """The tensor that starts at byte `at`, and where the next one does."""
    import numpy as np
    import torch

    from inversionbench.defenses.gradient_perturbation import _quantisers as q

    n, mode = like.numel(), _mode(mode, bits)
    if bits == 16:
        raw = np.frombuffer(wire, np.float16, n, at)
        return torch.from_numpy(raw.astype(np.float32)).view(like.shape).to(like), at + 2 * n
    count = {"affine": 2, "tensor": 1, "rows": len(like)}[mode]
    scales = torch.from_numpy(np.frombuffer(wire, np.float32, count, at).copy())
    start, size = at + 4 * count, q.packed_size(n, bits)
    values = torch.from_numpy(q.unpack(wire[start : start + size], n, bits)).float()
    if mode == "affine":
        x = q.affine_back(values.view(1, -1), scales.view(1, 2))
    else:
        x = q.symmetric_back(values.view(count, -1), scales, bits)
    return x.reshape(like.shape).to(like), start + size


def _read(t: Tensor, bits: int, mode: str, outliers: float, rng: torch.Generator | None) -> Tensor:
    """To bits and back for every tensor of a stack (n, *shape)."""
    import torch

    from inversionbench.defenses.gradient_perturbation import _quantisers as q

    if bits == 16:
        return t.half().to(t)
    x, mode = torch.stack([q.clipped(one, outliers) for one in t]) if outliers else t, _mode(mode, bits)
    rows = x.reshape(len(x) * (x.shape[1] if mode == "rows" else 1), -1)
    if mode == "affine":
        return q.affine_back(*q.affine(rows, bits, rng)).view_as(t)
    return q.symmetric_back(*q.symmetric(rows, bits, rng), bits).view_as(t)
