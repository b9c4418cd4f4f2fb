"""A black-box oracle served from a child process: the attack's process never holds the target.

    with served(lambda: track.oracle(scenario, load(path), attack, "LO", defense, seed)) as oracle:
        attack.run(oracle, knowledge, rng)

The child builds the real oracle, answers over a pipe, keeps the ledger and enforces the budget; the parent
holds an oracle of the same level whose calls are questions to the child. Messages are JSON and raw arrays,
nothing that runs code when it is read. Same answers, same ledger, same errors as in one process.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inversionbench.core.errors import AccessDenied, BudgetExceeded, UserError
from inversionbench.core.levels import LEVELS
from inversionbench.oracle.base import InputSpec, Ledger, Oracle, RecordSpec, Row

CALLS = frozenset({"labels", "scores", "logits", "observe", "undefended", "explain"})  # that answer, and no more
ERRORS: dict[str, type[Exception]] = {
    e.__name__: e for e in (AccessDenied, BudgetExceeded, UserError, ValueError, TypeError)
}


def black_box(level: str) -> bool:
    """Whether a level grants answers alone, so that its oracle can be served."""
    return LEVELS[level].calls <= CALLS


@contextmanager
def served(make: Callable[[], Oracle]) -> Iterator[Oracle]:
    """An oracle whose target lives in a child process, where `make` reads and builds it.

    The child is forked, which costs hundredths of a second; where there is CUDA, which no fork survives, it is started
    anew, and `make` must be a function of a module with arguments that can be pickled.
    """
    context: Any = multiprocessing.get_context("spawn" if torch.cuda.is_available() else "fork")
    here, there = context.Pipe()
    child = context.Process(target=_serve, args=(there, make, here), daemon=True)
    child.start()
    there.close()
    try:
        yield _remote(here, _answer(here)[0])
    finally:
        here.close()
        child.join(timeout=10)
        if child.is_alive():
            child.terminate()
            child.join()


def _remote(pipe: Connection, about: Mapping[str, Any]) -> Oracle:
    """The parent's side: the same level and input check, calls that ask."""
    if not black_box(about["level"]):
        raise ValueError(f"level {about['level']} cannot be served from another process: it is no black box; "
                         f"expected one of {', '.join(sorted(filter(black_box, LEVELS)))}")
    ledger = Ledger(about["budget"])
    known: dict[str, type[InputSpec]] = {kind.__name__: kind for kind in (InputSpec, RecordSpec)}
    spec = known[about["kind"]](**{name: _tuples(value) for name, value in about["spec"].items()})

    def question(call: str) -> Callable[..., Tensor]:
        def ask(x: Tensor | None = None, phase: str | None = None, **options: Any) -> Tensor:
            if x is not None:
                spec.check(x)
            options |= {"phase": phase} if phase else {}
            _send(pipe, {"call": call, "options": options}, None if x is None else x.cpu().numpy())
            _, answer = _answer(pipe, lambda rows: ledger.copy_from(Row(*row) for row in rows))
            assert answer is not None
            return torch.from_numpy(answer.copy()).to(x.device if x is not None else "cpu")

        return ask

    calls = {call: question(call) for call in LEVELS[about["level"]].calls}
    return Oracle(about["level"], calls, ledger, spec, about["classes"])


def _serve(pipe: Connection, make: Callable[[], Oracle], other: Connection) -> None:
    """The child: answer until the parent hangs up, whose end a forked child holds too."""
    other.close()
    try:
        oracle = make()
    except Exception as error:
        return _send(pipe, {"error": type(error).__name__, "message": str(error)})
    about = {
        "kind": type(oracle.input_spec).__name__, "spec": asdict(oracle.input_spec),  # type: ignore[arg-type]
        "level": oracle.level, "classes": oracle.num_classes,
        "budget": oracle.ledger.budget,
    }
    _send(pipe, about)
    while True:
        try:
            header, x = _receive(pipe)
        except EOFError:
            return None
        out: dict[str, Any] = {}
        answer = None
        try:
            given = () if x is None else (torch.from_numpy(x.copy()),)
            answer = getattr(oracle, header["call"])(*given, **header["options"]).numpy()
        except Exception as error:
            out = {"error": type(error).__name__, "message": str(error)}
        out["rows"] = [[r.phase, r.call, r.inputs, r.cumulative] for r in oracle.ledger.rows]
        _send(pipe, out, answer)


def _answer(pipe: Connection, charge: Callable[[Any], None] = lambda rows: None) -> tuple[Any, np.ndarray | None]:
    """What the child says; its errors are raised here, after `charge` got the lines of its ledger."""
    try:
        header, array = _receive(pipe)
    except EOFError:
        raise RuntimeError("the process that holds the target has ended") from None
    charge(header.get("rows", ()))
    if "error" in header:
        raise ERRORS.get(header["error"], RuntimeError)(header["message"])
    return header, array


def _tuples(value: Any) -> Any:
    """Lists of JSON as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _send(pipe: Connection, header: Mapping[str, Any], array: np.ndarray | None = None) -> None:
    kind = {} if array is None else {"dtype": array.dtype.str, "shape": array.shape}
    pipe.send_bytes(json.dumps({**header, **({"array": kind} if kind else {})}).encode())
    if array is not None:
        pipe.send_bytes(np.ascontiguousarray(array).tobytes() or b"")


def _receive(pipe: Connection) -> tuple[dict[str, Any], np.ndarray | None]:
    header = json.loads(pipe.recv_bytes())
    kind = header.pop("array", None)
    if kind is None:
        return header, None
    return header, np.frombuffer(pipe.recv_bytes(), dtype=np.dtype(kind["dtype"])).reshape(kind["shape"])
