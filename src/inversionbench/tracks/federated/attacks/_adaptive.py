"""Which entries of an update an attacker compares who knows what the defense does to it.

plain        all of them
mask         those that were sent: zeros of the observed update are left out (any pruning)
drop_layer   all but the tensors that the defense names (`layer`, `layers`), whose gradient it has changed (Soteria,
             GradPrivacy)
columns      in that tensor the entries that were sent, elsewhere all (Soteria: its zero columns are visible)
skip_vb      the tensors in front of a variational bottleneck (`bottleneck`); the attacker's own pass leaves the
             bottleneck's noise out (PRECODE)
coefficients the frequency coefficients that were sent, of the observed and of the dummy update (pFGD): the transform
             is public and keeps distances, so what was set to 0 there is left out

What the defense does not say (or no defense) leaves everything compared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from inversionbench.core.errors import UserError, suggest
from inversionbench.gradients.layout import Layout
from inversionbench.gradients.objectives import support
from inversionbench.models.bottleneck import Sample
from inversionbench.models.federated import Victim

MATCHES = ("plain", "mask", "drop_layer", "columns", "skip_vb", "coefficients")


def check(match: str) -> None:
    if match not in MATCHES:
        raise UserError(f"match: unknown way '{match}': {suggest(match, MATCHES)}")


@dataclass(frozen=True)
class Adapted:
    """The way `match` of an attacker who knows `public` of the defense, as `gradients.matching` asks for it."""

    match: str
    public: Mapping[str, Any]

    def __post_init__(self) -> None:
        check(self.match)

    def mask(self, observed: Tensor, layout: Layout) -> Tensor | None:
        return compared(self.match, observed, layout, self.public)

    def view(self, layout: Layout) -> Callable[[Tensor], Tensor] | None:
        return view(self.match, layout, self.public)

    def model(self, model: Victim) -> Victim:
        return disable_sampling_(model) if self.match == "skip_vb" else model


def compared(match: str, observed: Tensor, layout: Layout, public: Mapping[str, Any]) -> Tensor | None:
    """1 for the entries that are compared, else 0: (trials, size), or None for all. observed: (trials, size)."""
    check(match)
    if match == "mask":
        return support(observed)
    if match == "coefficients":
        through = view(match, layout, public)
        return through and _sent(through(observed), layout, public)
    mask = torch.ones_like(observed)
    if match == "skip_vb" and public.get("bottleneck"):
        mask[:, layout.where(public["bottleneck"][0]).start :] = 0
    elif match in ("drop_layer", "columns") and (named := _named(public, layout)):
        for place in map(layout.where, named):
            mask[:, place] = support(observed[:, place]) if match == "columns" else 0
    else:
        return None
    return mask


def _named(public: Mapping[str, Any], layout: Layout) -> list[str]:
    """The tensors that the defense says it changes."""
    return [name for name in (public.get("layer"), *public.get("layers", ())) if name in layout.names]


def view(match: str, layout: Layout, public: Mapping[str, Any]) -> Callable[[Tensor], Tensor] | None:
    """What both updates (trials, size) go through before they are compared; None: as they are."""
    if match != "coefficients" or public.get("transform") != "dct":
        return None
    from inversionbench.defenses.gradient_pruning.pfgd import spectra

    def through(g: Tensor) -> Tensor:
        return torch.cat([spectra(t).flatten(1) for t in layout.unflatten(g).values()], dim=1)

    return through


def _sent(observed: Tensor, layout: Layout, public: Mapping[str, Any]) -> Tensor:
    """1 for the coefficients (trials, size) that the rule of the defense has kept, 0 for the others."""
    from inversionbench.defenses.gradient_pruning.pfgd import Pfgd, spectra

    rule = Pfgd(strength=public["sparsity"], keep=public["keep"])
    rows = []
    for row in observed:
        parts = [row[place].view(spectra(torch.empty(1, *shape)).shape[1:])
                 for place, shape in zip(layout.slices, layout.shapes)]
        rows.append(torch.cat([rule.mask(f).flatten() for f in parts]))
    return torch.stack(rows).to(observed.dtype)


def quantised(g: Tensor, layout: Layout, public: Mapping[str, Any], rng: torch.Generator) -> Tensor:
    """Updates (n, size) as the server reads them of a client that says how it quantises them; of others as they are."""
    if "quantised" not in public:
        return g
    from inversionbench.defenses.gradient_perturbation.mixed_quantization import MixedQuantization

    rule = MixedQuantization(
        public["halvings"] + 1, public["quantised"], public["rounding"], outliers=public["outliers"]
    )
    return layout.flatten(rule.read(layout.unflatten(g), public["kinds"], rng))


def guarded(
    g: Tensor, layout: Layout, model: Victim, x: Tensor, y: Tensor, public: Mapping[str, Any], rng: torch.Generator
) -> Tensor:
    """Gradients (n, size) of the batches x (n, batch, c, h, w) in [0, 1] with labels y (n, batch) as a client under
    Guardian sends them, who draws its start anew; of others as they are.
    """
    if not public.get("budget") or "coarse" not in public:
        return g
    from inversionbench.defenses.gradient_pruning.guardian import Guardian, gradient_at

    rule = Guardian(public["budget"], public["steps"], public["coarse"], public["start"])
    own = copy.deepcopy(model).requires_grad_()
    shapes = {name: p.shape for name, p in own.named_parameters()}
    parts = layout.unflatten(g)
    flat = torch.cat([parts[name].flatten(1) for name in shapes], dim=1)
    moves = torch.stack([rule.perturbation(gradient_at(own, c), b, v, rng)[0] for b, c, v in zip(x, y, flat)])
    pieces = moves.split([shape.numel() for shape in shapes.values()], dim=1)
    return g + layout.flatten({name: t.unflatten(1, shape) for (name, shape), t in zip(shapes.items(), pieces)})


def disable_sampling_(model: Victim) -> Victim:
    """The model, whose sampling layers from now on give their mean."""
    for layer in model.modules():
        if isinstance(layer, Sample):
            layer.scale = 0.0
    return model
