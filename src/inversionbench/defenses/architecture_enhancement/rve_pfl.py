"""RVE-PFL (survey 4.6; Issa, Moustafa, Turnbull, Choo, IEEE TIFS 2024): a private variational encoder per client.

    client: mean, log var = E_i(x)       z = mean + strength * exp(log var / 2) * noise, as many values as x
            shared network C on z        loss = cross entropy (+ kl * KL(N(mean, var) || N(0, I)))
    sent:   the update of C alone        E_i stays with its client, is trained there, and is used at test time

The federated network looks like an ordinary image classifier, but what enters it is a code of the client's own.
Gradient inversion finds z. strength: of the noise in the code, 1 as published (0: no encoder, off).

Deviations: a smaller encoder (two convolutions, a mean over 4 x 4 cells, one hidden layer) than the 25 million
weights of the published one at 32 x 32; its dropout is left out. The published code trains without the KL term
(kl: 0). log var is kept in [-10, 10]. The server takes the weighted mean of one round (the published one carries the
last average along by mistake). A client's encoder starts from its own seed; an attacked client takes part for the
first time, so its encoder is as it started. The threat model that switches at run time is not in the code and left out.

What it does not stop: who has an encoder like the client's (a colluding client whose encoder transfers), or learns
one, can map z back. Reconstructions are scored against x; `to_transformed` in a record is the score against z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inversionbench.core.defense import Defense, Step
from inversionbench.core.ranges import Count, NonNegative, Positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

BOUND = 10.0  # of log var


@dataclass(frozen=True)
class RvePfl(Defense):
    """kl: weight of the divergence. width, hidden: of the encoder. rate: of Adam on the encoder."""

    id = "rve_pfl"
    hooks = frozenset({"train_transform", "loss"})
    federated = True
    inputs = ("image",)
    layered = True
    personal = True

    kl: NonNegative = 0.0
    width: Count = 8
    hidden: Count = 64
    rate: Positive = 1e-3

    def __post_init__(self) -> None:
        if self.strength < 0 or self.kl < 0 or min(self.width, self.hidden) < 1:
            raise ValueError(f"rve_pfl: expected strength, kl >= 0 and whole widths, got {self}")

    def for_client(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Defense:
        """This defense with an encoder of the client's own."""
        if self.strength == 0:
            return self
        import torch

        from inversionbench.defenses.architecture_enhancement._encoder import Encoder
        from inversionbench.defenses.feature_perturbation._local import with_notes

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=rng)))
            encoder = Encoder(tuple(x.shape[1:]), self.width, self.hidden)
        return with_notes(self, encoder=encoder, optimiser=torch.optim.Adam(encoder.parameters(), self.rate), last={})

    def train_transform(self, x: Tensor, y: Tensor, rng: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        if self.strength == 0:
            return x, y
        mean, log_var = self._held("encoder")(x)
        self._held("last").update(mean=mean, log_var=log_var)
        return self._code(mean, log_var, rng), y

    def loss(self, ctx: Step) -> Tensor:
        """The loss of the shared network; moves the client's encoder by one step on the same loss."""
        if self.strength == 0:
            return super().loss(ctx)
        import torch

        last = self._held("last")
        loss = super().loss(ctx)
        whole = loss + self.kl * divergence(last["mean"], last["log_var"])
        encoder: nn.Module = self._held("encoder")
        grads = torch.autograd.grad(whole, list(encoder.parameters()), retain_graph=True)
        for p, g in zip(encoder.parameters(), grads):
            p.grad = g
        self._held("optimiser").step()
        return loss

    def deployed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        import torch

        if self.strength == 0:
            return x
        with torch.no_grad():
            mean, log_var = self._held("encoder")(x)
            return self._code(mean, log_var, rng)

    def public_knowledge(self) -> dict[str, Any]:
        """The kind of the encoder; not its weights."""
        if self.strength == 0:
            return {}
        return {"encoder": "private", "width": self.width, "hidden": self.hidden, "kl": self.kl,
                "spread": self.strength}  # fmt: skip

    def _code(self, mean: Tensor, log_var: Tensor, rng: torch.Generator) -> Tensor:
        """What the shared network is fed: values that its normalisation turns into z."""
        import torch

        from inversionbench.models.federated import MEAN, STD

        noise = torch.randn(mean.shape, generator=rng).to(mean)
        return (mean + self.strength * (log_var / 2).exp() * noise) * STD + MEAN

    def _held(self, name: str) -> Any:
        if name not in self.__dict__:
            raise ValueError("rve_pfl: no encoder: call for_client() first")
        return self.__dict__[name]


def divergence(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, var) || N(0, I)) in nats, summed over the code, averaged over the batch.

    >>> import torch
    >>> float(divergence(torch.full((2, 3), 2.0), torch.zeros(2, 3)))
    6.0
    """
    terms = 1 + log_var - mean.square() - log_var.exp()
    return -0.5 * terms.flatten(1).sum(1).mean()
