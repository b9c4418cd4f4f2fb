"""Compression by an autoencoder (survey 4.3; Chen, Abrahamyan, Sahli, Deligiannis, IEEE OJ-COMS 2024):
reconstruction of the layout.

A client learns a code of its update and sends the code; the decoder's loss perturbs what the server reads, layer by
layer and depending on the input. Per weight tensor:

    v = (update - mean) / deviation, cut into chunks of `chunk` values (the last one filled up with zeros)
    z = E(v): convolutions of stride 2, each halving the length       sent, with mean and deviation, as float32
    v^ = D(z): the mirror of E                                         at the server, then scaled back

Biases are sent as they are. E and D start from public weights of the round-0 seed; each client trains its own copy
by Adam on the chunks of its last `history` updates, `first_steps` in its first round and `steps` in every
`period`-th round after, and sends D again whenever it changed: those bytes count. The server averages decoded
updates. What is coded is the update (the parameters relative to the public global model): coding the parameters
themselves errs by more than a late update is long. feedback: the error of a round enters the next one.

strength: the code ratio r, a power of two (0: off). r = 1 is a code as wide as its input (an identity to learn).
`loss_ratio` in the record is ||decoded - update|| / ||update|| of the round: protection is that error.
steps = first_steps = 0 is a random projection, the baseline that learning has to beat.

Codes, scales and decoder travel in the open. An attacker who compares codes instead of decoded updates is not here: a
row says what those reach who take the decoded update for the true one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense
from inversionbench.core.ranges import Count, Positive, Whole
from inversionbench.core.update_path import Payload, Received, Residual, Stage, UpdatePath

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.defenses.gradient_perturbation._autoencoder import Autoencoder


@dataclass(frozen=True)
class AutoencoderCompression(Defense):
    """chunk: values per code. channels: of hidden layers. rate: of Adam."""

    id = "autoencoder_compression"
    hooks = frozenset({"client_update"})
    federated = True
    effect = ("cos_sent_true", "lower", 0.999)
    places = ("compensate", "transform")
    gives = "latent"

    chunk: Count = 256
    channels: Count = 8
    first_steps: Whole = 100
    steps: Whole = 10
    period: Count = 10
    history: Count = 3
    rate: Positive = 5e-3
    feedback: bool = True

    def __post_init__(self) -> None:
        ratio = int(self.strength)
        if self.strength < 0 or ratio != self.strength or ratio & (ratio - 1):
            raise ValueError(f"autoencoder_compression: strength is a power of two, or 0 for off, got {self.strength}")
        if (ratio and self.chunk % ratio) or self.period < 1 or self.history < 1:
            raise ValueError("autoencoder_compression: the ratio must divide the chunk, period and history be at least "
                             f"1, got {ratio}, {self.chunk}, {self.period}, {self.history}")  # fmt: skip

    def on_path(self) -> tuple[Stage, ...]:
        return (Residual(), Latent(self)) if self.feedback else (Latent(self),)

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        return UpdatePath(self.on_path()).send(update, ctx) if self.strength else update

    def bytes_sent(self, update: dict[str, Tensor]) -> int:
        """What travelled; of tensors alone, an upload without its decoder."""
        if self.strength == 0:
            return super().bytes_sent(update)
        if isinstance(update, Received):
            return update.size
        ratio = int(self.strength)
        code = sum(-(-t.numel() // self.chunk) * (self.chunk // ratio) + 2 for t in update.values() if t.ndim > 1)
        return 4 * (code + sum(t.numel() for t in update.values() if t.ndim < 2))

    def public_knowledge(self) -> dict[str, Any]:
        """The layout; codes and decoders travel in the open."""
        return {"code_ratio": int(self.strength), "chunk": self.chunk}


class Latent(Stage):
    """Chunks of the weight tensors to codes and back; its state is the client's autoencoder."""

    gives = "latent"

    def __init__(self, defense: AutoencoderCompression):
        self.defense = defense

    def encode(self, payload: Payload, ctx: Client, state: dict[str, Any]) -> Payload:
        import torch

        own = self.defense
        coder = self._coder(state)
        chunks, scales = self._chunks(payload.tensors)
        seen = state.setdefault("seen", [])
        seen.append(chunks)
        del seen[: -own.history]
        steps = own.first_steps if "rounds" not in state else own.steps if state["rounds"] % own.period == 0 else 0
        state["rounds"] = state.get("rounds", 0) + 1
        if steps:
            coder.train_on(torch.cat(seen), steps, own.rate)
        fresh = steps > 0
        raw = {n: t for n, t in payload.tensors.items() if t.ndim < 2}
        code = coder.encode(chunks)
        size = 4 * (code.numel() + sum(t.numel() for t in raw.values()) + 2 * len(scales))
        size += coder.decoder_bytes if fresh else 0
        read = coder.decode(code)
        lost = float((read - chunks).norm() / chunks.norm().clamp_min(1e-30))
        ctx.state["public"] = ctx.state.get("public", {}) | {"loss_ratio": lost}
        return Payload("latent", {"code": code, **scales, **raw}, size, coder.decoder_state())

    def decode(self, payload: Payload, like: Mapping[str, Tensor], ctx: Client) -> Payload:
        coder = self._fresh()
        coder.load_decoder(payload.wire)
        rows, at, out = coder.decode(payload.tensors["code"]), 0, {}
        for name, t in like.items():
            if t.ndim < 2:
                out[name] = payload.tensors[name]
                continue
            count = -(-t.numel() // self.defense.chunk)
            mean, deviation = payload.tensors["scale/" + name]
            values = rows[at : at + count].flatten()[: t.numel()].view_as(t)
            out[name] = (values * deviation + mean).to(t)
            at += count
        return Payload("dense", out, payload.size)

    def _chunks(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Standardised chunks (count, chunk) of all weight tensors, and each one's mean and deviation."""
        import torch
        from torch.nn import functional as F

        rows, scales = [], {}
        for name, t in tensors.items():
            if t.ndim < 2:
                continue
            flat = t.detach().float().flatten()
            mean, deviation = flat.mean(), flat.std().clamp_min(1e-30)
            scales["scale/" + name] = torch.stack([mean, deviation])
            spare = -len(flat) % self.defense.chunk
            rows.append(F.pad((flat - mean) / deviation, (0, spare)).view(-1, self.defense.chunk))
        return torch.cat(rows), scales

    def _fresh(self) -> Autoencoder:
        from inversionbench.defenses.gradient_perturbation._autoencoder import Autoencoder

        return Autoencoder(int(self.defense.strength), self.defense.channels)

    def _coder(self, state: dict[str, Any]) -> Autoencoder:
        """The client's own, from public weights in its first round."""
        if "coder" not in state:
            state["coder"] = self._fresh()
        return state["coder"]
