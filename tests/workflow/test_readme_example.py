"""The README's worked example: one file and one entry, and the method is in the table."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.workflow
README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(kind: str) -> list[tuple[str, str]]:
    """(name, text) of the fenced blocks that follow a `<!-- kind: name -->` comment."""
    return re.findall(rf"<!-- {kind}: (\S+) -->\n```\w+\n(.*?)```", README, re.DOTALL)


def test_the_worked_example_runs(finished):
    ((path, code),) = blocks("file")
    ((section, entry),) = blocks("entry")
    params, file = finished.folder / "params.yaml", finished.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    (file.parent / "__init__.py").touch()
    file.write_text(code)
    params.write_text(re.sub(rf"^{section}:\n", f"{section}:\n{entry}", params.read_text(), flags=re.MULTILINE))
    planned = finished.planned()
    assert (planned["train_target"], planned["attack"], planned["evaluate"]) == (2, 1, 1)
    finished.snakemake()
    assert "sign_update" in (finished.folder / "results/mini/survey/defenses.csv").read_text()
    tests = str(Path(__file__).parents[1] / "test_defenses_common.py")
    assert " passed" in finished.run(sys.executable, "-m", "pytest", "-n", "0", "-k", "sign_update", tests).stdout
