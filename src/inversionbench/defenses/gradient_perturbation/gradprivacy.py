"""GradPrivacy (survey 4.3; Lu, Xue, Wan, Li, Zhang, Hu, IEEE ISPA/BDCloud 2023): reconstruction.

Magnitudes, which a gradient matching attack needs, are changed in the entries that belong to sensitive features; signs,
which carry the descent, stay. r: the inputs of the last linear layer, s_j their sensitivity,

    s_j = mean over the batch of |d r_j / d x| / (|r_j| + offset)
    entries: column j of that layer's weight for the top share of the s_j, and the filters of the last convolution
             whose channels have the top share of the mean s_j
    V = G + feedback E
    V'_k = sign(V_k) |V_k| a_k, a_k ~ U(1 - alpha, 1 + alpha)   (mode "uniform"), or
    V'_k = sign(V_k) median |V|                                 (mode "flatten"); each tensor keeps its norm
    if cos(V, V') < least: V' <- V' + t V / |V| with the smallest t that restores it
    E <- V - V'

strength: the share of features (0: off). Signs of the sent and the true gradient agree in the first round; a sign
matching attack is untouched. All other tensors keep their direction, so an attacker who leaves these two layers out
(`match: drop_layer`) loses little.

The two modules (amplitude perturbation, deviation correction) and the aim at trained models are the paper's; the
formulas are ours, since its text could not be read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Client, Defense
from inversionbench.core.ranges import Count, Positive, Share

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MODES = ("uniform", "flatten")


@dataclass(frozen=True)
class GradPrivacy(Defense):
    """mode: see above. alpha: amplitude of "uniform". least: smallest cosine with what should be sent. feedback: of
    the deviation, 0 forgets it. offset: in the score. probes: random directions for norms of larger batches.
    """

    id = "gradprivacy"
    hooks = frozenset({"client_update"})
    federated = True
    inputs = ("image",)
    layered = True
    effect = ("cos_sent_true", "lower", 0.999)
    places = ("compensate", "transform")
    looks_again = True

    mode: str = "flatten"
    alpha: Share = 0.9
    least: Share = 0.5
    feedback: Share = 1.0
    offset: Positive = 0.1
    probes: Count = 32

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"gradprivacy: mode is one of {', '.join(MODES)}, got '{self.mode}'")
        if not 0 <= self.strength <= 1 or not 0 <= self.alpha <= 1 or not 0 <= self.least < 1:
            raise ValueError(f"gradprivacy: strength and alpha are shares in [0, 1], least in [0, 1), got {self}")

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        if self.strength == 0:
            return update
        memory = ctx.state.setdefault("gradprivacy", {})
        wanted = {n: g + self.feedback * memory[n] if n in memory else g for n, g in update.items()}
        sent = dict(wanted)
        chosen = self.entries(ctx)
        for name, mask in chosen.items():
            sent[name] = self.perturb(wanted[name], mask, ctx.rng)
        sent = keep_direction(wanted, sent, self.least)
        memory.update({n: wanted[n] - sent[n] for n in wanted})
        changed = sum(int(m.sum()) for m in chosen.values())
        ctx.state["public"] = {"entries_changed": float(changed), "layers": list(chosen)}
        return sent

    def entries(self, ctx: Client) -> dict[str, Tensor]:
        """Name -> mask (bool, shape of the tensor) of the entries of sensitive features."""
        import torch

        from inversionbench.defenses.feature_perturbation._sensitivity import batch_of, inputs_of, row_norms

        model, x, _ = batch_of(ctx, self.id)
        name, features = inputs_of(model, "")
        r, norms = row_norms(features, x, self.probes if len(x) > 1 else 0, ctx.rng)
        score = (norms / (r.abs() + self.offset)).mean(dim=0)
        out = {name: top(score, self.strength).expand_as(ctx.parameters[name])}
        last = [n for n, m in model.body.named_modules() if isinstance(m, torch.nn.Conv2d)][-1:]
        for conv in last:
            weight = ctx.parameters[f"body.{conv}.weight"]
            if len(score) % len(weight):
                continue  # features are no channels of this layer
            channels = top(score.view(len(weight), -1).mean(dim=1), self.strength)
            for kind in ("weight", "bias"):
                if (given := ctx.parameters.get(f"body.{conv}.{kind}")) is not None:
                    out[f"body.{conv}.{kind}"] = channels.view(-1, *[1] * (given.ndim - 1)).expand_as(given)
        return out

    def perturb(self, g: Tensor, mask: Tensor, rng: torch.Generator) -> Tensor:
        """One tensor with other magnitudes where mask holds, the same signs, the same norm."""
        import torch

        if self.mode == "uniform":
            size = g.abs() * (1 + self.alpha * (2 * torch.rand(g.shape, generator=rng).to(g) - 1))
        else:
            alive = g[mask & (g != 0)].abs()
            size = torch.full_like(g, float(alive.median()) if len(alive) else 0.0)
        changed = torch.where(mask, g.sign() * size, g)
        return changed * (g.norm() / changed.norm().clamp_min(1e-30))

    def public_knowledge(self) -> dict[str, Any]:
        """The rule, and in each round the tensors that it changes (`layers`); which of their entries is not visible."""
        return {"share": self.strength, "mode": self.mode, "alpha": self.alpha, "least": self.least, "signs": "kept"}


def top(score: Tensor, share: float) -> Tensor:
    """Mask of the largest ceil(share * n) scores.

    >>> import torch
    >>> top(torch.tensor([1.0, 4.0, 2.0, 3.0]), 0.5)
    tensor([False,  True, False,  True])
    """
    import torch

    mask = torch.zeros(len(score), dtype=torch.bool)
    mask[score.topk(math.ceil(round(share * len(score), 6))).indices] = True
    return mask


def keep_direction(wanted: dict[str, Tensor], sent: dict[str, Tensor], least: float) -> dict[str, Tensor]:
    """`sent`, moved towards `wanted` by the smallest step that makes their cosine at least `least`.

    >>> import torch
    >>> keep_direction({"w": torch.tensor([1.0, 0.0])}, {"w": torch.tensor([0.0, 1.0])}, 0.6)["w"]
    tensor([0.7500, 1.0000])
    """
    import torch

    g, s = (torch.cat([t.flatten().double() for t in update.values()]) for update in (wanted, sent))
    norm = float(g.norm())
    if norm == 0:
        return sent
    along = float(g @ s) / norm
    across = math.sqrt(max(0.0, float(s @ s) - along**2))
    step = least * across / math.sqrt(1 - least**2) - along
    if step <= 0:
        return sent
    return {n: t + step / norm * wanted[n] for n, t in sent.items()}
