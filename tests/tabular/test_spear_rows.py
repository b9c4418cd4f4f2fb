"""SPEAR on rows: the same certificate, decoded by the schema."""

from __future__ import annotations

from rows_cells import Noise, evaluated, mean, scenario

from inversionbench.core import registry


def spear(**params):
    return registry.get("attack", "spear_rows")(**params)


def test_rows_are_whole_and_certified():
    """Every row of batches of 1, 4 and 8 on 200 untrained units; other clients' rows have no whole row."""
    found = evaluated(spear(), scenario((1, 4, 8), subjects=3, hidden=(200, 100), labels="hidden"))
    assert mean(found, "whole_rows") > 0.99
    assert mean(found, "certified") > 0.99
    assert found.facts["certified_wrong"] == 0
    assert mean(found, "whole_rows", "other_batch") < 0.1
    assert found.facts["by_batch_size"]["whole_rows"].keys() == {"1", "4", "8"}


def test_noise_takes_the_certificate():
    """Noise as large as the update: no certificate (share 0, without noise 1), and most rows are wrong."""
    found = evaluated(spear(tries=4000), scenario((4,), subjects=3, hidden=(200, 100)), defense=Noise(strength=1.0))
    assert mean(found, "certified") == 0
    assert mean(found, "whole_rows") < 0.5
