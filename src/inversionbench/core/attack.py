"""What an attack is: oracle + knowledge -> reconstruction.

A file `tracks/<track>/attacks/<id>.py` defines one frozen dataclass with the class attributes `id`, `level` (the
weakest access level it needs; a tuple where a field named `access` chooses) and, where they apply, `prior`
(the entries of `priors:` that it needs: a name, several, or a mapping from its field `base` to them) and
`control` (True for rows that say what a number means). Its fields are its parameters, with the names and
defaults of its paper. It never imports data sets, evaluators or the workflow. What the report says of rows with
other parameters comes from `budget` (the fields whose product is how much the attack may search or train) and
`published` (the paper's values of fields that have other defaults); defenses and priors have both, too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from inversionbench.core.errors import AccessDenied

if TYPE_CHECKING:
    import torch

    from inversionbench.oracle.base import Oracle


# parameters that many federated attacks have; checked before any job (`registry.check_parameters`)
LabelRule = Literal[
    "row_sum", "inner_product", "bias", "negative_set", "min_row", "wainakh", "bias_corrected", "geng", "ilrg"
]
Form = Literal["auto", "im2col", "grouped", "compiled", "vmap", "loop"]
Match = Literal["plain", "mask", "drop_layer", "columns", "skip_vb", "coefficients"]
# losses of searches by a classifier: latent/losses.py
Identity = Literal["cross_entropy", "doubt", "margin", "logit", "poincare"]


class Knowledge:
    """Side information, declared field by field; the record lists what an attack really read.

    Fields of the tracks in use (absent ones raise `AccessDenied`):
    public: `Part` of public data, without private labels. prior: a trained prior; priors: entry -> prior, where an
    attack needs several. targets: int64 (n,), the
    classes to reconstruct. labels: int64 (clients, batch) where the scenario says they are known.
    mean_image: the public mean. columns, records, responses, marginals, confusion: see the tabular track.
    defense: `public_knowledge()` of the defense, for attacks that know it. channels, height, width, ...
    """

    def __init__(self, **granted: Any):
        used: set[str] = set()

        def read(name: str) -> Any:
            if name not in granted:
                raise AccessDenied(f"the scenario grants {', '.join(sorted(granted)) or 'nothing'}, not '{name}'")
            used.add(name)
            return granted[name]

        # in closures, so that what was read stays read
        self.__dict__.update(_read=read, _used=lambda: frozenset(used), _granted=granted.keys(), grant=granted.update)

    def __getattr__(self, name: str) -> Any:
        return self.__dict__["_read"](name)

    @property
    def used(self) -> frozenset[str]:
        """The fields that were read."""
        return self.__dict__["_used"]()

    def __contains__(self, name: str) -> bool:
        return name in self.__dict__["_granted"]


@dataclass
class Reconstruction:
    """What an attack hands over.

    data: (subjects, ...) one answer per attacked subject (a client's batch: (clients, batch, c, h, w) in
    [0, 1]; an image of a class: (n, c, h, w) in [0, 1]; an attribute value per record: (n,)).
    labels: what each answer claims to show: recovered labels (clients, batch), or target classes (n,).
    scores: optional (n, values), how sure the attack is. checkpoints: (budget, data) pairs for curves.
    cost: counted, never timed (`gradient_evaluations`, ...). notes: facts for the record (form chosen, ...).
    failed: optional bool (subjects,): no answer was found; `data` holds a placeholder there.
    """

    data: torch.Tensor
    labels: torch.Tensor
    scores: torch.Tensor | None = None
    failed: torch.Tensor | None = None
    checkpoints: list[tuple[int, torch.Tensor]] = field(default_factory=list)
    cost: dict[str, int] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> str:
        """Why this is no answer, in a few words; "" where it is one. Looked at where `run` returns, so that a wrong
        kind or shape is the attack's fault and no evaluation's. Rows that are not finite count as failed."""
        import torch

        tensors = {"data": self.data, "labels": self.labels, "scores": self.scores, "failed": self.failed}
        for name, value in tensors.items():
            if not isinstance(value, torch.Tensor) and not (value is None and name in ("scores", "failed")):
                return f"{name} is {type(value).__name__}, expected a tensor"
            if value is not None and len(value) != len(self.data):
                return f"{name} has {len(value)} rows, data {len(self.data)}"
        if self.data.is_floating_point() and self.data.dtype != torch.float32 and self.data.ndim > 3:
            return f"images are {self.data.dtype}, expected float32"
        if self.labels.is_floating_point() or (self.failed is not None and self.failed.dtype != torch.bool):
            return "labels must be whole numbers, failed true or false"
        if self.data.is_floating_point() and len(self.data) and not torch.isfinite(self.data).flatten(1).all(1).any():
            return "no row of data is finite"
        if any(data.shape != self.data.shape for _, data in self.checkpoints):
            return f"checkpoints must have the shape of data, {tuple(self.data.shape)}"
        budgets = [budget for budget, _ in self.checkpoints]
        if any(not isinstance(b, int) or b < 0 for b in budgets) or sorted(set(budgets)) != budgets:
            return f"budgets of checkpoints must be whole and rise, got {budgets}"
        if wrong := [name for name, value in self.cost.items() if not isinstance(value, int) or value < 0]:
            return f"cost must be counted in whole numbers: {', '.join(wrong)}"

        def tensor(value: Any) -> None:  # tensors are for the track's evaluation
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"{type(value).__name__} is neither plain nor a tensor")

        try:
            json.dumps(self.notes, allow_nan=False, default=tensor)
        except (TypeError, ValueError) as error:
            return f"notes cannot stand in a record: {error}"
        return ""

    def cpu(self) -> Reconstruction:
        """The same with its tensors on the CPU, as it is saved; attacks may hand over those of their device."""
        scores = None if self.scores is None else self.scores.cpu()
        failed = None if self.failed is None else self.failed.cpu()
        held = [(budget, data.cpu()) for budget, data in self.checkpoints]
        return replace(self, data=self.data.cpu(), labels=self.labels.cpu(), scores=scores, failed=failed,
                       checkpoints=held)  # fmt: skip


@dataclass(frozen=True)
class Attack:
    """Base of all attacks."""

    id: ClassVar[str]
    level: ClassVar[str | tuple[str, ...]]
    prior: ClassVar[str | tuple[str, ...] | Mapping[str, tuple[str, ...]] | None] = None
    control: ClassVar[bool] = False
    budget: ClassVar[tuple[str, ...]] = ()
    published: ClassVar[Mapping[str, Any]] = {}
    adapts: ClassVar[str]  # id of the attack that this one is a form of, against one defense
    control_without_defense: ClassVar[bool]  # True: no target behind it, so no defense can act
    asks: ClassVar[str]  # what a scenario must ask for, where a track asks several questions
    needs: ClassVar[str]  # a setting of training or protocol that a scenario must have
    twin: ClassVar[bool]  # True: attacks the target that was trained on swapped values
    on_device: ClassVar[bool] = True  # False: computes on the CPU although its track has a device

    def run(self, oracle: Oracle, knowledge: Knowledge, rng: torch.Generator) -> Reconstruction:
        """Reconstruct. All randomness comes from `rng`."""
        raise NotImplementedError
