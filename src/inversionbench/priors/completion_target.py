"""P5, white-box form: completions are to differ in the target's penultimate features. One per target.

As `completion`, with F in L_div the features of the attacked classifier (SecretGen's white-box setting); each
training step costs two passes of the target per image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.device import device
from inversionbench.priors.completion import Completion

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor

    from inversionbench.core.scenario import Progress
    from inversionbench.data.base import Part
    from inversionbench.oracle.base import Oracle


@dataclass(frozen=True)
class CompletionTarget(Completion):
    """Recipe; parameters as in `completion`."""

    id: ClassVar[str] = "completion_target"
    target_aware: ClassVar[bool] = True
    level: ClassVar[str] = "WB"

    def train(
        self, public: Part, rng: torch.Generator, progress: Progress, target: Oracle | None = None, base: Any = None,
        checkpoint: Path | None = None,
    ) -> dict[str, Any]:
        if target is None:
            raise ValueError("completion_target: needs the oracle of a target; for none take completion")
        module = target.module().to(device())
        module.phase = "train"

        def features(x: Tensor, mask: Tensor) -> Tensor:
            seen = module.trace(x)
            return seen.logits if seen.features is None else seen.features

        return self.learn(public, rng, progress, features, checkpoint, module)
