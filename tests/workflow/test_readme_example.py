"""The README's worked example: one file and one entry, and the method is in the table."""

from __future__ import annotations

import re
import shutil
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
    params = finished.folder / "params.yaml"
    before = params.read_text()
    file = finished.folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    (file.parent / "__init__.py").touch()
    file.write_text(code)
    params.write_text(re.sub(rf"^{section}:\n", f"{section}:\n{entry}", before, flags=re.MULTILINE))
    try:
        planned = finished.planned()
        assert (planned["train_target"], planned["attack"], planned["evaluate"]) == (2, 1, 1)
        finished.snakemake()
        table = (finished.folder / "results/mini/survey/defenses.csv").read_text()
        assert "sign_update" in table
        tests = str(Path(__file__).parents[1] / "test_defenses_common.py")
        assert " passed" in finished.run(sys.executable, "-m", "pytest", "-k", "sign_update", tests).stdout
    finally:
        params.write_text(before)
        file.unlink()
        for left in sorted((finished.folder / "results/mini").rglob("sign_update")):
            shutil.rmtree(left)
    finished.snakemake()
    assert "sign_update" not in (finished.folder / "results/mini/survey/defenses.csv").read_text()
