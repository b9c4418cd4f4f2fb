"""What an attack may touch while it runs, beyond the oracle's calls: watched by an audit hook of the interpreter.

    with watched(closed=[results, data_root]) as seen:
        answer = attack.run(oracle, knowledge, rng)

Refused with `AccessDenied`, and noted in `seen.refused` whatever the attack does with the error: opening or listing
anything below a closed folder; starting a process or a connection; and, where the attack's own code asks for it (not a
library on its behalf), walking the interpreter to the target: `gc.get_objects` and its kin, frames, ctypes.
Every other file that is opened and belongs to no library, system or temporary folder is noted in `seen.opened`, for the
record.

Refused is what passes the interpreter's audit events. Closures raise none, nor does a library's own C++ code that
reads a file: against these stand that a score or label attack's process does not hold the target (`oracle.strict`), and
a test that looks at every method's file for names that no attack needs.
"""

from __future__ import annotations

import os
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from inversionbench.core.errors import AccessDenied

PACKAGE = Path(__file__).parents[1]
ATTACKS = tuple(str(PACKAGE / engine) + os.sep for engine in ("gradients", "latent"))
LIBRARIES = tuple({os.path.realpath(sysconfig.get_path(p)) for p in ("stdlib", "platstdlib", "purelib", "platlib")})
KNOWN = (*(f"{folder}{os.sep}" for folder in (*LIBRARIES, str(PACKAGE))), "/proc/", "/sys/", "/dev/", "/etc/", "/usr/",
         "/lib")  # fmt: skip
FILES = ("open", "os.listdir", "os.scandir", "os.rename", "os.remove")
OUTSIDE = ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect")
INSIDE = ("gc.get_objects", "gc.get_referrers", "gc.get_referents", "sys._getframe", "sys._current_frames",
          "ctypes.dlopen", "ctypes.cdata", "ctypes.dlsym")  # fmt: skip
HIDDEN = ("tb_frame", "gi_frame", "cr_frame", "ag_frame")  # attributes that lead to a frame
COMPILERS = ("torch/_inductor", "torch/_dynamo", "torch/utils")  # may start a compiler for an attack that asks for it


@dataclass
class Seen:
    """opened: files that belong to no library, in the order of first sight; refused: what was tried, in words."""

    opened: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def _install() -> Callable[..., Any]:
    """The function that starts and ends a watch. A hook cannot be taken away again: there is one, made when first
    needed, and what it looks at lives in this closure."""
    now: list[tuple[Seen, tuple[str, ...]]] = []

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if not now or not (event in FILES or event in OUTSIDE or event in INSIDE or event == "object.__getattr__"):
            return
        watch = now.pop()  # what is called from here is not looked at
        try:
            refused = _judge(event, args, sys._getframe(1), *watch)
        finally:
            now.append(watch)
        if refused:
            watch[0].refused.append(refused)
            raise AccessDenied(f"an attack may not {refused}")

    installed: list[bool] = []

    def switch(watch: tuple[Seen, tuple[str, ...]] | None) -> None:
        if not installed:
            sys.addaudithook(hook)
            installed.append(True)
        now[:] = [watch] if watch else []

    return switch


_switch = _install()


@contextmanager
def watched(closed: Iterable[str | Path]) -> Iterator[Seen]:
    """Watch this process. closed: folders below which nothing may be opened."""
    seen = Seen()
    _switch((seen, tuple(os.path.realpath(path) for path in closed)))
    try:
        yield seen
    finally:
        _switch(None)


def _judge(event: str, args: tuple[Any, ...], frame: FrameType, seen: Seen, closed: tuple[str, ...]) -> str:
    """What is refused, in words; "" where nothing is. Notes files."""
    if event in FILES:
        if not isinstance(args[0], (str, bytes, os.PathLike)):
            return ""  # an open file, or the working folder
        path = os.path.realpath(os.fsdecode(os.fspath(args[0])))
        if path.startswith(KNOWN):  # first: a closed folder may lie above them
            return ""
        for folder in closed:
            if path == folder or path.startswith(folder + os.sep):
                return f"open {os.path.relpath(path, os.path.dirname(folder))}"
        passing = path.startswith(os.path.realpath(tempfile.gettempdir()))
        if event == "open" and not passing and path not in seen.opened:
            seen.opened.append(path)
        return ""
    if event in OUTSIDE:
        compiling = any(name in path for path in _stack(frame) for name in COMPILERS)
        return "" if compiling else f"leave its process ({event})"
    if not _by_attack(frame.f_code.co_filename):
        return ""
    if event == "object.__getattr__":
        return f"read {args[1]} of {type(args[0]).__name__}" if args[1] in HIDDEN else ""
    return f"call {event}"


def _stack(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back


def _by_attack(filename: str) -> bool:
    """Whether code of this file is an attack's: one of ours, or a file that is neither ours nor a library's."""
    path = os.path.realpath(filename)
    if path.startswith(str(PACKAGE) + os.sep):
        return path.startswith(ATTACKS) or f"{os.sep}attacks{os.sep}" in path
    return not filename.startswith("<") and not path.startswith(LIBRARIES)
