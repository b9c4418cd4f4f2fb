"""The path of one client's update, from its local steps to the wire and back, in stages that compose.

    w_t ── local steps ──▶ update
    update ── compensate ── clip ── noise ── transform ── ring ── mask ── transmit ──▶ decode ── aggregate

A stage is a pair: `encode` makes a payload of a payload, with the client's own memory; `decode` undoes what can be
undone with public information. Whoever reads the wire reads `decode` of it. A defense without stages of its own
is one stage, its hook H6 (`Hooked`); masks and ciphertexts need several clients and live in `Defense.exchange`.

What may follow what (`check_order`):
    noise directly behind the clip that bounds what is noised; what comes later is post-processing, and free
    an error that is fed back enters before the clip
    a mask or a cipher takes integers of a ring, never floats, and nothing changes what is masked
    a stage takes only the kinds of payload it understands: codes and quantised values of different clients have
    scales of their own and cannot be added under a mask
    what is proven of noise stays true (`check_chain`): nothing behind it looks at the images again, and nothing
    changes the images, the loss or the gradient of which DP-SGD clips the part of every example
Importable without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from inversionbench.core.errors import UserError, suggest

if TYPE_CHECKING:
    from torch import Tensor

    from inversionbench.core.defense import Client, Defense

PLACES = ("compensate", "clip", "noise", "transform", "ring", "mask")
KINDS = ("dense", "sparse", "quantised", "latent", "masked")


class Placed(Protocol):
    """What a stage or a defense says of itself."""

    @property
    def places(self) -> tuple[str, ...]: ...
    @property
    def takes(self) -> tuple[str, ...]: ...
    @property
    def gives(self) -> str: ...


def check_order(parts: Sequence[tuple[str, Placed]], where: str = "the update path") -> None:
    """Raise `UserError` where the parts (name, places and kinds) cannot follow each other like this."""
    filled: list[tuple[str, str]] = []
    kind = "dense"
    for name, part in parts:
        for place in part.places:
            _check_place(name, place, filled, where)
            filled.append((name, place))
        if kind not in part.takes:
            raise UserError(f"{where}: '{name}' takes {' or '.join(part.takes)} updates, "
                            f"'{filled[-len(part.places) - 1][0]}' before it leaves {kind} ones")  # fmt: skip
        kind = part.gives if part.gives != "dense" else kind


def _check_place(name: str, place: str, filled: Sequence[tuple[str, str]], where: str) -> None:
    if place not in PLACES:
        raise UserError(f"{where}: '{name}' fills no place '{place}': {suggest(place, PLACES)}")
    before = [p for _, p in filled]
    last = before[-1] if before else "local steps"
    if "mask" in before:
        raise UserError(f"{where}: '{name}' ({place}) comes after the masks of '{filled[before.index('mask')][0]}': "
                        "nothing may change what is masked; put it before")  # fmt: skip
    if place == "noise" and last != "clip":
        raise UserError(f"{where}: the noise of '{name}' follows '{last}', not a clip: its size means nothing unless "
                        "exactly what is noised was clipped")  # fmt: skip
    if place == "mask" and last != "ring":
        raise UserError(f"{where}: '{name}' masks what is no integer of a ring: floats neither cancel nor hide")
    if place == "compensate" and "clip" in before and "noise" not in before:
        raise UserError(f"{where}: the memory of '{name}' enters behind the clip of "
                        f"'{filled[before.index('clip')][0]}': put it before")  # fmt: skip


@dataclass(frozen=True)
class Payload:
    """kind: of KINDS. tensors: name -> tensor, as far as there are any. wire: the bytes that travel, where a stage
    wrote them; size: their number.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    size: int
    wire: bytes = b""


class Received(dict[str, "Tensor"]):
    """A decoded update, name -> tensor, with the number of bytes that carried it."""

    def __init__(self, tensors: Mapping[str, Tensor], size: int):
        super().__init__(tensors)
        self.size = size


class Stage:
    """One stage; see the module. `state` is the client's memory of this stage alone, kept from round to round."""

    places: ClassVar[tuple[str, ...]] = ("transform",)
    takes: ClassVar[tuple[str, ...]] = ("dense", "sparse")
    gives: ClassVar[str] = "dense"

    def encode(self, payload: Payload, ctx: Client, state: dict[str, Any]) -> Payload:
        raise NotImplementedError

    def decode(self, payload: Payload, like: Mapping[str, Tensor], ctx: Client) -> Payload:
        """Of `ctx` only what is public (round, parameters) may be used. like: shapes of the update."""
        return payload

    def settle(self, read: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        """What the other end reads is known: errors to be made good later are kept here."""


class Residual(Stage):
    """Error feedback: what the stages behind lost is added to the next round's update."""

    places = ("compensate",)

    def encode(self, payload: Payload, ctx: Client, state: dict[str, Any]) -> Payload:
        owed = state.get("error", {})
        v = {n: t + owed[n] if n in owed else t for n, t in payload.tensors.items()}
        state["sum"] = v
        return replace(payload, tensors=v)

    def settle(self, read: Mapping[str, Tensor], state: dict[str, Any]) -> None:
        state["error"] = {n: v - read[n] for n, v in state.pop("sum").items()}


class Hooked(Stage):
    """The hook H6 of a defense as one stage: what it returns is decoded already."""

    def __init__(self, defense: Defense):
        self.defense = defense
        self.places, self.takes, self.gives = defense.places, defense.takes, defense.gives  # type: ignore[misc]

    def encode(self, payload: Payload, ctx: Client, state: dict[str, Any]) -> Payload:
        own = replace(ctx, state=state)
        sent = self.defense.client_update(dict(payload.tensors), own)
        ctx.state["public"] = ctx.state.get("public", {}) | state.get("public", {})
        return Payload(self.gives, sent, self.defense.bytes_sent(sent))


class UpdatePath:
    """Stages in order. Raises `UserError` where they cannot follow each other."""

    def __init__(self, stages: Sequence[Stage]):
        self.stages = tuple(stages)
        names = [s.defense.id if isinstance(s, Hooked) else type(s).__name__ for s in stages]
        check_order(list(zip(names, stages)))

    def encode(self, update: Mapping[str, Tensor], ctx: Client) -> Payload:
        payload = Payload("dense", update, sum(4 * t.numel() for t in update.values()))
        for i, stage in enumerate(self.stages):
            payload = stage.encode(payload, ctx, self._memory(ctx, i))
        return payload

    def decode(self, payload: Payload, like: Mapping[str, Tensor], ctx: Client) -> Received:
        size = payload.size
        for stage in reversed(self.stages):
            payload = stage.decode(payload, like, ctx)
        return Received(payload.tensors, size)

    def send(self, update: Mapping[str, Tensor], ctx: Client) -> Received:
        """Through the wire: what the other end reads of an update; the client's memory moves on."""
        read = self.decode(self.encode(update, ctx), update, ctx)
        for i, stage in enumerate(self.stages):
            stage.settle(read, self._memory(ctx, i))
        return read

    @staticmethod
    def _memory(ctx: Client, i: int) -> dict[str, Any]:
        return ctx.state.setdefault("path", {}).setdefault(i, {})


def check_chain(stages: Sequence[Mapping[str, Any]], varies: str, where: str) -> None:
    """Refuse a chain whose stages do not exist, lack a strength or cannot follow each other. Imports no method."""
    from inversionbench.core import registry

    described = []
    for i, stage in enumerate(stages):
        here = f"{where}.stages[{i}]"
        if not isinstance(stage, Mapping) or "method" not in stage:
            raise UserError(f"{here}: expected a mapping with 'method', got {stage!r}")
        method = registry.describe("defense", stage["method"])
        registry.check_parameters(method, {k: v for k, v in stage.items() if k != "method"}, here)
        if method.id == "chain":
            raise UserError(f"{here}: a chain holds no chains")
        if ("strength" in stage) == (method.id == varies):
            wanted = "its strength is that of the chain" if method.id == varies else "give it a strength"
            raise UserError(f"{here}: '{method.id}': {wanted} ('varies' is '{varies}')")
        described.append((method.id, method.attributes))
    if stages and varies not in [name for name, _ in described]:
        raise UserError(f"{where}.varies: no stage '{varies}': {suggest(varies, [n for n, _ in described])}")
    on_path = [(n, _Said(a)) for n, a in described if a["hooks"] & {"client_update", "aggregate"}]
    check_order(on_path, where)
    _check_noise(described, where)
    for hook in ("aggregate", "release"):
        found = [(name, a) for name, a in described if hook in a["hooks"]]
        if len(found) > 1 and "mask" not in found[-1][1]["places"]:  # a sum under masks replaces any other mean
            raise UserError(f"{where}: only one stage may hold the hook '{hook}', got "
                            f"{', '.join(name for name, _ in found)}")


def _check_noise(described: Sequence[tuple[str, Mapping[str, Any]]], where: str) -> None:
    """Refuse what would make the stated epsilon of a noisy stage wrong."""
    before = {"training_set", "train_transform", "loss", "gradient"}
    lots = [name for name, a in described if a["poisson"]]
    noisy = lots[:1]
    for name, a in described:
        if noisy and a["looks_again"]:
            raise UserError(f"{where}: '{name}' looks at the images again behind the noise of '{noisy[0]}', whose "
                            "epsilon would not hold; put it before, or leave it out")  # fmt: skip
        if lots and name != lots[0] and a["hooks"] & before:
            raise UserError(f"{where}: '{lots[0]}' clips what each example adds to a plain gradient, '{name}' changes "
                            f"{', '.join(sorted(a['hooks'] & before))}: its epsilon would not hold")  # fmt: skip
        noisy += [name] if "noise" in a["places"] else []


class _Said:
    """Places and kinds of a described method."""

    def __init__(self, attributes: Mapping[str, Any]):
        self.places, self.takes, self.gives = (attributes[k] for k in ("places", "takes", "gives"))
