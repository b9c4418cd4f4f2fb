"""What a defense is: some of eight hooks, and one strength.

    private set D ── H1 training_set ──▶ D'
    D' ── batch (x, y) ── H2 train_transform ──▶ (x', y')
    factory ── H3 build_model ──▶ f
    (x', y') ── f ── H4 loss ──▶ L                    sees logits, hidden activations, x', y', step, epoch
    L ── autograd ── H5 gradient ──▶ g'               each training step
    g' or local training ── H6 client_update ──▶ payload   what leaves the client
    payloads ── H7 aggregate ──▶ aggregate, server_view    what the server sees
    f(x) ── H8 release ──▶ what a querier sees
    z = client half(x) ── H8 release_features ──▶ what the server half gets, in training and at inference

A file `defenses/<family>/<id>.py` defines one frozen dataclass with a field `strength` (0 is exactly no
defense: the same bits as without it), the class attribute `hooks` (the hooks that it implements; the others
stay the identities below), `inputs`, `models` and `federated` (the kinds of data, of models and of training that it is
made for). Two methods are no hooks: `prepare`, once per target, and `for_client`, once per client, return the defense
that is then run (by default itself). So does `learn`, for releases that are learnt on the trained target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import get_annotations
from typing import TYPE_CHECKING, Any, ClassVar

from inversionbench.core.errors import suggest
from inversionbench.core.ranges import NonNegative

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from inversionbench.core.exchange import Exchange, Round
    from inversionbench.core.update_path import Stage
    from inversionbench.data.base import Dataset

# What a target's utility says of what a defense changed, on undefended targets too. effect_*: `training.effects`.
# cos_sent_true: of the update before and after H6, 1 where nothing is done to it.
EFFECTS = ("effect_confidence", "effect_logit_norm", "effect_label_gap", "cos_sent_true")


@dataclass
class Step:
    """What the hooks of one training step may see.

    x: (batch, ...) and y: (batch,) int64 or (batch, classes) soft, after H2. logits: (batch, classes).
    hidden: activations by layer name, each (batch, ...), where the model reports them. params: name ->
    parameter. step counts from 0 over all epochs of `steps`; epoch from 0 of `epochs`. expected: mean size of the
    batch where its images were drawn independently of each other (`Defense.poisson`), else 0. rows: which training
    samples these are (batch,), where a central training says so.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    logits: Tensor
    hidden: Mapping[str, Tensor]
    step: int
    epoch: int
    epochs: int
    classes: int
    rng: torch.Generator
    expected: float = 0.0
    rows: Tensor | None = None


@dataclass
class Client:
    """What H6 and H7 may see: the round, the client's own memory, its size, the global parameters.

    rounds: of the whole federation. state: kept from round to round by this client alone (residuals, momentum).
    clients: how many take part. model: the global model as received; x, y: the images and labels of the (last) local
    epoch, after H2. These three are there wherever images are trained on, for what is computed from the batch itself.
    """

    round: int
    rounds: int
    index: int
    clients: int
    samples: int
    parameters: Mapping[str, Tensor]
    rng: torch.Generator
    state: dict[str, Any] = field(default_factory=dict)
    model: nn.Module | None = None
    x: Tensor | None = None
    y: Tensor | None = None


@dataclass(frozen=True)
class Sending:
    """What H8 may see where features of an input are sent: the client half of the network (inputs -> features), whether
    the two halves are being trained (then gradients must reach the features), and where to draw from."""

    client: nn.Module
    training: bool
    rng: torch.Generator


@dataclass(frozen=True)
class Defense:
    """Base of all defenses: every hook is the identity."""

    strength: NonNegative = 0.0

    id: ClassVar[str] = "none"
    hooks: ClassVar[frozenset[str]] = frozenset()
    inputs: ClassVar[tuple[str, ...]] = ()  # kinds of private data that it is made for (modality of a track); () any
    models: ClassVar[tuple[str, ...]] = ()  # names of the models that it is made for; () any
    layered: ClassVar[bool] = False  # made for the layers of our own networks, not for any network of a user's
    federated: ClassVar[bool] = False  # acts on what a client of a federation does, so a track must have clients
    halves: ClassVar[bool] = False  # made for a network in two halves, so a track must send features
    budget: ClassVar[tuple[str, ...]] = ()  # as of `core.attack.Attack`
    published: ClassVar[Mapping[str, Any]] = {}
    keeps_labels: ClassVar[bool] = False  # a release that never changes the label output
    places: ClassVar[tuple[str, ...]] = ("transform",)  # of H6 and H7 on the path, see `_path.PLACES`
    takes: ClassVar[tuple[str, ...]] = ("dense", "sparse")  # kinds of payload, see `_path.KINDS`
    gives: ClassVar[str] = "dense"
    learnt: ClassVar[bool] = False  # its release is learnt on the trained target (`learn`), which so belongs to it
    post_processing: ClassVar[bool] = False  # of what the attacker sees, so that he could do it to undefended answers
    poisson: ClassVar[bool] = False  # in training every image is drawn on its own: batches vary, even to none
    looks_again: ClassVar[bool] = False  # H6 reads the images themselves: behind noise it is no post-processing
    personal: ClassVar[bool] = False  # every client tests with a part of its own: accuracy is the mean over them
    client_momentum: ClassVar[bool] = False  # clients keep the momentum: the server adds none
    # what it means to change: one of EFFECTS, "higher" or "lower", and the ratio to undefended from which on it acted
    effect: ClassVar[tuple[str, str, float] | None] = None

    def __init_subclass__(cls) -> None:
        """Refuse a declaration that nothing reads, or that no target can answer."""
        own = {n: v for n, v in vars(cls).items() if not n.startswith("_") and n not in get_annotations(cls)}
        for name, value in own.items():
            if not hasattr(Defense, name) and not callable(value) and not hasattr(value, "__get__"):
                raise TypeError(f"defense {cls.__name__}: unknown attribute '{name}': {suggest(name, vars(Defense))}")
        if cls.effect is not None:
            name, direction, ratio = cls.effect
            if name not in EFFECTS:
                raise TypeError(f"defense {cls.__name__}: unknown effect '{name}': {suggest(name, EFFECTS)}")
            if not ((direction == "higher" and ratio > 1) or (direction == "lower" and 0 < ratio < 1)):
                raise TypeError(f"defense {cls.__name__}: effect: expected 'higher' and a ratio above 1, or 'lower' "
                                f"and one below 1, got {cls.effect}")

    @property
    def crowd(self) -> int:
        """Clients that one session of H7 needs; an attacked round is filled up to a multiple of it."""
        return 1

    def prepare(self, data: Dataset, factory: Callable[[torch.Generator], nn.Module], rng: torch.Generator) -> Defense:
        """Once per target, before all hooks: this defense made ready for a data set and an architecture (a search,
        a pre-training). `factory(rng)` builds the undefended network. What it finds goes into the result's fields.
        """
        return self

    def learn(self, net: nn.Module, data: Dataset, rng: torch.Generator) -> Defense:
        """Once per target, after training, where `learnt`: this defense with what its release needs, from the answers
        of the trained network `net` to public images. What it finds goes into the result's fields."""
        return self

    def for_client(self, x: Tensor, y: Tensor, rng: torch.Generator) -> Defense:
        """Once per client: this defense as a client with the local images x (n, ...) and labels y (n,) runs it."""
        return self

    def training_set(self, x: Tensor, y: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """H1. x: (n, ...), y: (n,) of the private part."""
        return x, y

    def lot(self, y: Tensor, rate: float, rng: torch.Generator) -> Tensor:
        """Where `poisson`: the samples of one step of a central training, as an index into y (n,). By default each is
        drawn on its own with probability `rate`. Not a hook.
        """
        import torch

        return (torch.rand(len(y), generator=rng) < rate).nonzero()[:, 0].to(y.device)

    def train_transform(self, x: Tensor, y: Tensor, rng: torch.Generator, step: int) -> tuple[Tensor, Tensor]:
        """H2. One batch; the returned y may be soft (batch, classes)."""
        return x, y

    def build_model(self, factory: Callable[[], nn.Module]) -> nn.Module:
        """H3. The architecture, or its initial weights."""
        return factory()

    def loss(self, ctx: Step) -> Tensor:
        """H4. Scalar. The default is the cross entropy, with soft targets where y is soft."""
        from torch.nn import functional as F

        return F.cross_entropy(ctx.logits, ctx.y)

    def gradient(self, gradients: dict[str, Tensor], ctx: Step) -> dict[str, Tensor]:
        """H5. Parameter name -> gradient, in each local step."""
        return gradients

    def client_update(self, update: dict[str, Tensor], ctx: Client) -> dict[str, Tensor]:
        """H6. Parameter name -> what the client sends, decoded as the server (and so the attacker) reads it."""
        return update

    def aggregate(
        self, payloads: Sequence[dict[str, Tensor]], weights: Sequence[float]
    ) -> tuple[dict[str, Tensor], Sequence[dict[str, Tensor]]]:
        """H7. The weighted mean, and what the server sees (by default every payload)."""
        total = sum(weights)
        mean = {name: sum(w / total * p[name] for w, p in zip(weights, payloads, strict=True)) for name in payloads[0]}
        return mean, payloads  # type: ignore[return-value]

    def exchange(
        self, payloads: Sequence[dict[str, Tensor]], weights: Sequence[float], round: Round
    ) -> Exchange:
        """H7 with its surroundings: the mean, the observer's view, the bytes each way. Not a hook of its own."""
        from inversionbench.core.exchange import plain

        return plain(self, payloads, weights, round)

    def on_path(self) -> tuple[Stage, ...]:
        """The stages of H6 on the update path, for chains; by default the hook itself is one."""
        from inversionbench.core.update_path import Hooked

        return (Hooked(self),)

    def deployed(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """What a client feeds the model at test time, where `personal`. Not a hook."""
        return x

    def guarantee(self, rate: float, steps: int) -> dict[str, float]:
        """What is proven for a client's records after `steps` steps at sampling rate `rate`. Not a hook."""
        return {}

    def statements(self, rate: float, steps: int, parameters: int, rounds: int) -> tuple[str, ...]:
        """What is proven or assumed, in words that stand beside every number: epsilon and delta with neighbours, unit
        and accountant; a security level. rate, steps: see `guarantee`. parameters: values of one update. rounds: of the
        federation. Not a hook.
        """
        return ()

    def release(self, logits: Tensor, rng: torch.Generator) -> Tensor:
        """H8. logits: (n, classes) -> released scores (n, classes)."""
        return logits.softmax(dim=1)

    def release_features(self, z: Tensor, ctx: Sending) -> Tensor:
        """H8 of a network in two halves. z: (n, ...), what the client half made of n inputs -> what is sent, for which
        the server half is trained where this hook stands beside others; alone, it acts on the undefended halves."""
        return z

    def public_knowledge(self) -> dict[str, Any]:
        """What an attacker who knows the defense may be told."""
        return {}

    def bytes_sent(self, update: dict[str, Tensor]) -> int:
        """Bytes of one upload; dense float32 unless the defense sends less."""
        return sum(4 * t.numel() for t in update.values())


NONE = Defense()


def acted(effect: tuple[str, str, float] | None, own: Mapping[str, float], plain: Mapping[str, float]) -> bool | None:
    """Whether a defense changed what it declares to change (its `effect`), from the utility of a target under it and of
    an undefended one of the same scenario. None: it declares nothing, or one of the two was not measured.

    >>> norms = ({"effect_logit_norm": norm} for norm in (6.6, 9.0))
    >>> [acted(("effect_logit_norm", "higher", 1.5), own, {"effect_logit_norm": 6.0}) for own in norms]
    [False, True]
    """
    if effect is None or not all(effect[0] in found for found in (own, plain)):
        return None
    name, direction, ratio = effect
    return own[name] >= ratio * plain[name] if direction == "higher" else own[name] <= ratio * plain[name]
