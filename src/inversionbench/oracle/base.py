"""The oracle: the only way an attack reaches a target.

An oracle is built for one access level. It grants the calls of that level, refuses everything else with
`AccessDenied`, counts every input in a ledger, and refuses with `BudgetExceeded` *before* computing an
answer that the budget does not cover. The target itself lives in the closures of the granted calls; the
oracle cannot be copied or pickled, and has no attribute that leads to the model.

In-process Python is not a security boundary: the workflow therefore also keeps private data, truth and
evaluators out of the attack step's files, watches what an attack opens and walks through (`oracle.guard`), and
serves black-box oracles from a child process (`oracle.strict`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from inversionbench.core.errors import AccessDenied, BudgetExceeded
from inversionbench.core.levels import LEVELS

PHASES = ("init", "train", "search", "select", "log")


@dataclass(frozen=True)
class Row:
    """One line of the ledger: `inputs` evaluated by `call` in `phase`, `cumulative` inputs so far."""

    phase: str
    call: str
    inputs: int
    cumulative: int


class Tally:
    """What was asked: `rows`, the lines of a ledger, and their sums. An oracle shows its ledger in this form, which can
    be read and nothing else.

    White-box passes (`module`, forward and backward, one per input) are counted too, but they are compute,
    not queries: `queries` leaves them out, `passes` is theirs.
    """

    __slots__ = ("_read",)
    _read: Callable[[], tuple[tuple[Row, ...], int | None]]

    def __init__(self, read: Callable[[], tuple[tuple[Row, ...], int | None]]):
        object.__setattr__(self, "_read", read)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AccessDenied(f"a ledger is only read; '{name}' stays as it is")

    @property
    def rows(self) -> tuple[Row, ...]:
        return self._read()[0]

    @property
    def budget(self) -> int | None:
        return self._read()[1]

    @property
    def queries(self) -> int:
        return sum(row.inputs for row in self.rows if row.call != "module")

    @property
    def passes(self) -> int:
        return sum(row.inputs for row in self.rows if row.call == "module")

    def by_phase(self) -> dict[str, int]:
        out: dict[str, int] = {}
        for row in self.rows:
            if row.call != "module":
                out[row.phase] = out.get(row.phase, 0) + row.inputs
        return out


class Ledger(Tally):
    """Counts queries. One query is one input evaluated once; repeats cost again. Lives in the closures of an oracle."""

    __slots__ = ("_rows",)
    _rows: list[Row]

    def __init__(self, budget: int | None = None):
        rows: list[Row] = []
        super().__init__(lambda: (tuple(rows), budget))
        object.__setattr__(self, "_rows", rows)

    def copy_from(self, rows: Iterable[Row]) -> None:
        """Take over the lines of the ledger that another process keeps."""
        self._rows[:] = rows

    def shown(self) -> Tally:
        """The same to read."""
        rows, budget = self._rows, self.budget
        return Tally(lambda: (tuple(rows), budget))

    def charge(self, call: str, inputs: int, phase: str) -> None:
        if phase not in PHASES:
            raise ValueError(f"phase must be one of {', '.join(PHASES)}, got '{phase}'")
        if inputs < 0:
            raise ValueError(f"{call}: {inputs} inputs cannot be charged; nothing is ever given back")
        total = self.queries if call != "module" else self.passes
        if call != "module" and self.budget is not None and total + inputs > self.budget:
            raise BudgetExceeded(f"{call}: {inputs} more would make {total + inputs} of {self.budget} queries")
        last = self._rows[-1] if self._rows else None
        if last and last.call == call and last.phase == phase:
            self._rows[-1] = Row(phase, call, last.inputs + inputs, total + inputs)
        else:
            self._rows.append(Row(phase, call, inputs, total + inputs))


@dataclass(frozen=True)
class InputSpec:
    """What an input must look like. `shape` without the batch; values in [low, high]; dtype name."""

    shape: tuple[int, ...]
    low: float = 0.0
    high: float = 1.0
    dtype: str = "float32"

    def check(self, x: Any) -> None:
        """Refuse, as an interface on the network would: wrong shape, dtype, range; inputs wanting gradients."""
        if getattr(x, "requires_grad", False):
            raise AccessDenied("the input requires a gradient, but this level answers without any")
        if tuple(x.shape[1:]) != self.shape or len(x) == 0:
            raise ValueError(f"expected inputs of shape (n, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        if str(x.dtype).removeprefix("torch.") != self.dtype:
            raise ValueError(f"expected dtype {self.dtype}, got {x.dtype}")
        low, high = float(x.min()), float(x.max())
        if not (self.low <= low and high <= self.high):  # also refuses NaN
            raise ValueError(f"expected values in [{self.low}, {self.high}], got [{low}, {high}]")


@dataclass(frozen=True)
class RecordSpec(InputSpec):
    """x: (n, columns). one_hot: (start, stop) of each categorical column."""

    one_hot: tuple[tuple[int, int], ...] = ()

    def check(self, x: Any) -> None:
        super().check(x)
        for start, stop in self.one_hot:
            part = x[:, start:stop]
            if not (((part == 0) | (part == 1)).all() and (part.sum(1) == 1).all()):
                raise ValueError(f"columns {start} to {stop - 1} are one category: expected a single 1 among zeros")


class Oracle:
    """Grants `calls` at `level`; anything else raises `AccessDenied`.

    Public: `level`, `input_spec`, `num_classes`, `ledger`, the granted calls, `checkpoint`.
    `calls` maps a call's name to a closure; each closure charges the ledger itself.
    """

    __slots__ = ("__calls", "checkpoints", "input_spec", "ledger", "level", "num_classes")
    level: str
    ledger: Tally
    input_spec: InputSpec | None
    num_classes: int | None
    checkpoints: list[tuple[int, Any]]

    def __init__(
        self,
        level: str,
        calls: Mapping[str, Callable[..., Any]],
        ledger: Ledger,
        input_spec: InputSpec | None = None,
        num_classes: int | None = None,
    ):
        wrong = set(calls) ^ LEVELS[level].calls
        if wrong:
            raise ValueError(f"level {level} grants {sorted(LEVELS[level].calls)}, got calls {sorted(calls)}")
        for name, value in {
            "_Oracle__calls": dict(calls), "level": level, "ledger": ledger.shown(), "input_spec": input_spec,
            "num_classes": num_classes, "checkpoints": [],
        }.items():  # fmt: skip
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        calls = object.__getattribute__(self, "_Oracle__calls")
        if name in calls:
            return calls[name]
        raise AccessDenied(f"level {self.level} grants {', '.join(sorted(calls))}; '{name}' is not granted")

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AccessDenied(f"an oracle is not a model: call one of {', '.join(sorted(LEVELS[self.level].calls))}")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AccessDenied(f"an oracle cannot be changed; '{name}' stays as it is")

    def __delattr__(self, name: str) -> NoReturn:
        raise AccessDenied(f"an oracle cannot be changed; '{name}' stays as it is")

    def _refuse(self, *args: Any) -> NoReturn:
        raise AccessDenied("an oracle can be neither copied nor pickled")

    __reduce__ = __reduce_ex__ = __copy__ = __deepcopy__ = __getstate__ = _refuse  # type: ignore[assignment]

    @contextmanager
    def checkpoint(self, budget: int) -> Iterator[Callable[[Any], None]]:
        """Hand over the answer that the attack would give if stopped at `budget` queries (or passes).

        Only answers already paid for may be used. `with oracle.checkpoint(1000) as hold: hold(images)`
        """
        held: list[Any] = []
        yield held.append
        if not held:
            raise ValueError(f"checkpoint({budget}): the attack handed over nothing")
        self.checkpoints.append((budget, held[-1]))
