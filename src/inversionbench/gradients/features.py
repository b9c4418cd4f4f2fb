"""The walk of GIFD through the feature spaces of a style-based generator, for a run of trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from inversionbench.core.balls import l1_ball
from inversionbench.gradients.latent import Matcher, sphere
from inversionbench.gradients.search import Found, adam

if TYPE_CHECKING:
    from inversionbench.models.style_prior import StylePrior
    from inversionbench.tracks.federated.attacks.gifd import Gifd


class Packed:
    """Several tensors per image as one row of numbers, and back. shapes: of each tensor, without the images."""

    def __init__(self, shapes: Sequence[tuple[int, ...]]):
        self.shapes = [torch.Size(s) for s in shapes]

    def split(self, rows: Tensor) -> list[Tensor]:
        """(n, size) to the tensors, each (n, *shape)."""
        parts = rows.split([s.numel() for s in self.shapes], dim=1)
        return [part.unflatten(1, s) for part, s in zip(parts, self.shapes)]

    @staticmethod
    def join(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([p.flatten(1) for p in parts], dim=1)


class FeatureSpaceSearch:
    """All stages for the trials of one run. `history`: the matching loss of every trial after each stage."""

    def __init__(self, attack: Gifd, prior: StylePrior, matcher: Matcher, part: slice):
        self.a, self.prior, self.style, self.matcher = attack, prior, prior.style, matcher
        self.compare = matcher.of(part)
        self.history: list[Tensor] = []
        self.overrun = 0.0  # the furthest that any projected part was found outside its ball, relative

    def run(self, v: Tensor) -> Found:
        """v: (trials, batch, num_ws, w_dim), standard normal. The best images of all stages."""
        shape = v.shape[:2]
        maps = [n.expand(shape.numel(), *n.shape[1:]).clone() for n in self.style.noises]
        ws, found = self._codes(v)
        best = found
        state: tuple[Tensor | None, Tensor | None] = (None, None)
        for stage in range(1, self.a.stages + 1):
            with torch.no_grad():
                x, img = self.style.run_blocks(ws, stage - 1, stage, state[0], state[1], maps)
            state, ws, maps, found = self._features(stage, x, img if self.a.carry_rgb else None, ws, maps, shape)
            best = self._better(best, found)
        return best

    def _codes(self, v: Tensor) -> tuple[Tensor, Found]:
        """Stage 0: the codes of all layers, on the sphere of their start."""
        shape = v.shape

        def styles(flat: Tensor) -> Tensor:
            return self.prior.to_w(flat.view(-1, *shape[2:]))

        def images(flat: Tensor) -> Tensor:
            return self.matcher.normalised(self.style.synthesis(styles(flat)))

        start = v.flatten(2)
        found = adam(start, lambda x: self._objective(images(x)), self.a.steps, self.a.latent_rate, signed=False,
                     schedule="ramp", after=sphere(start))  # fmt: skip
        with torch.no_grad():
            ws = styles(found.x)
            found.x = images(found.x)
        return ws, self._log_stage(found)

    def _features(
        self, stage: int, x: Tensor, img: Tensor | None, ws: Tensor, maps: list[Tensor], shape: torch.Size
    ) -> tuple[tuple[Tensor, Tensor | None], Tensor, list[Tensor], Found]:
        """One feature stage from the state (x, img): the new state, codes, noise maps and what was found."""
        first = 2 * stage - 1  # the first layer of the blocks to come: earlier codes and noise no longer count
        parts = [x, ws[:, first:], *maps[first:]]
        packed = Packed([tuple(p.shape[1:]) for p in parts])
        start = packed.join(parts)
        radii = [self.a.radii[stage - 1], self.a.style_radius, *[self.a.noise_radius] * (len(parts) - 2)]

        def split(rows: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
            f, late, *late_maps = packed.split(rows)
            return f, torch.cat([ws[:, :first], late], dim=1), [*maps[:first], *late_maps]

        def images(flat: Tensor) -> Tensor:
            f, w, noises = split(flat.flatten(0, 1))
            made = self.style.run_blocks(w, stage, self.style.n_blocks, f, img, noises)[1]
            return self.matcher.normalised(made)

        def project(flat: Tensor, t: int) -> None:
            moved = packed.split(flat.flatten(0, 1) - start)
            held = [l1_ball(m.flatten(1), r * m[0].numel()) for m, r in zip(moved, radii)]
            flat.copy_((start + torch.cat(held, dim=1)).view_as(flat))
            self._check_projection(packed.split(flat.flatten(0, 1) - start), radii)

        found = adam(start.unflatten(0, shape), lambda x: self._objective(images(x)), self.a.steps, self.a.rate,
                     signed=False, schedule="ramp", after=project)  # fmt: skip
        with torch.no_grad():
            f, ws, maps = split(found.x.flatten(0, 1))
            found.x = images(found.x)
        return (f, img), ws, maps, self._log_stage(found)

    def _objective(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total, match = self.compare(x)
        size = x.shape[-1] * x.shape[-2]
        return total + self.a.norm * x.flatten(1).norm(dim=1) / size, match

    def _check_projection(self, moved: Sequence[Tensor], radii: Sequence[float]) -> None:
        for m, r in zip(moved, radii):
            limit = r * m[0].numel()
            if limit not in (0, float("inf")):
                self.overrun = max(self.overrun, float(m.flatten(1).abs().sum(1).max()) / limit - 1)

    def _log_stage(self, found: Found) -> Found:
        self.history.append(found.match.clone())
        return found

    @staticmethod
    def _better(old: Found, new: Found) -> Found:
        """Trial by trial the stage with the lower matching loss; what was known before becomes a checkpoint."""
        better = new.match < old.match
        held = [*old.held, (old.evaluations, old.x, old.match)]
        return Found(
            torch.where(better.view(-1, 1, 1, 1, 1), new.x, old.x),
            torch.where(better, new.objective, old.objective),
            torch.minimum(new.match, old.match),
            old.evaluations + new.evaluations,
            old.frozen | new.frozen,
            held,
        )
