"""Audit your own update: the table's attacks, controls and honesty on what you have.

from inversionbench import Audit

audit = Audit.of_update(model, update, truth=(x, y), protocol={"bn": "eval_public"})
verdict = audit.run(attacks="fast")
print(verdict.text())
verdict.save("audit.html")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from inversionbench.audit.update import Update
    from inversionbench.audit.verdict import Verdict


class Audit:
    """What is audited; `run` attacks it."""

    def __init__(self, subject: Update):
        self.subject = subject

    @classmethod
    def of_update(
        cls,
        model: nn.Module,
        update: Mapping[str, Tensor],
        truth: tuple[Tensor, Tensor],
        protocol: Mapping[str, Any] | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        public: Tensor | None = None,
        seed: int = 0,
    ) -> Audit:
        """One client's update.

        Args:
            model: any classifier (batch, c, h, w) -> logits, with the weights that the client started from.
            update: parameter name -> gradient, or new minus old weights (protocol `sends: delta`).
            truth: the client's batch, float (batch, c, h, w) in [0, 1] before normalisation, and labels int64 (batch,).
            protocol: settings of `core.protocol.Protocol` that differ from one plain gradient with batch norms in eval
                mode: `sends`, `local_rate`, `epochs`, `local_batch`, `bn`.
            mean, std: normalisation of the inputs, by channel.
            public: pictures that the attacker may have, (n, c, h, w) in [0, 1].

        Raises:
            UserError: what does not fit together, in one line.
        """
        from inversionbench.audit.update import Update
        from inversionbench.core.protocol import read_protocol
        from inversionbench.models.own import Inputs

        given = read_protocol(dict(protocol or {}), "protocol")
        inputs = Inputs(tuple(map(float, mean)), tuple(map(float, std)))
        return cls(Update.of(model, update, *truth, given, inputs, public, seed))

    def run(self, attacks: str = "fast", progress: Callable[[str], None] = lambda said: None) -> Verdict:
        """Self-check, attacks ("fast" or "thorough"), controls. progress: is told what runs."""
        return self.subject.run(attacks, progress)
