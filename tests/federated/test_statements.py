"""What defenses state of themselves stands beside their results, in words."""

import pytest
from defended_cells import evaluate, reconstruct, scenario, target

from inversionbench.core.defense import NONE
from inversionbench.defenses.cryptographic_encryption.cahe import Cahe
from inversionbench.defenses.cryptographic_encryption.secure_aggregation import SecureAggregation
from inversionbench.defenses.differential_privacy.dp_sgd import DpSgd
from inversionbench.defenses.differential_privacy.local_dp import LocalDp
from inversionbench.defenses.protocol.chain import Chain

CLOSE = (0.05, 200, 11_000, 60)  # sampling rate, steps, parameters, rounds


def test_dp_sgd_counts_examples():
    (said,) = DpSgd(strength=1.0).statements(*CLOSE)
    assert "epsilon 5.37 in 200 steps, 4.38 in one, delta 1e-05" in said
    assert "example level, neighbours: add or remove one record" in said
    assert "Opacus RDP at sampling rate 0.05" in said
    assert "NOT PRIVATE" not in said
    assert "NOT PRIVATE" in DpSgd(strength=0.01).statements(*CLOSE)[0]


def test_local_dp_counts_clients():
    (said,) = LocalDp(strength=3.0).statements(*CLOSE)
    told = LocalDp(strength=3.0).spent(11_000, 60)
    assert f"epsilon {told['epsilon_total']:.3g} in 60 rounds, {told['epsilon_round']:.3g} in the first" in said
    assert "client level, neighbours: replace one client's update" in said
    assert "RDP" in said
    assert "NOT PRIVATE" in said
    half = LocalDp(strength=3.0, keep=0.5).statements(*CLOSE)[0]
    assert half != said  # the same noise norm on fewer coordinates


def test_cryptography_says_what_it_rests_on():
    assert "128 bits (X25519, ChaCha20)" in SecureAggregation(strength=4).statements(*CLOSE)[0]
    assert "the sum of 4 is opened" in SecureAggregation(strength=4).statements(*CLOSE)[0]
    assert "own update is opened" in SecureAggregation(strength=1).statements(*CLOSE)[0]
    assert "INSECURE" not in Cahe(strength=1).statements(*CLOSE)[0]
    toy = Cahe(strength=1, dimension=128).statements(*CLOSE)[0]
    assert "INSECURE" in toy
    assert "dimension 128" in toy


@pytest.mark.parametrize("off", [NONE, DpSgd(), LocalDp(), SecureAggregation(), Cahe(), Chain()], ids=repr)
def test_nothing_is_stated_at_strength_0(off):
    assert off.statements(*CLOSE) == ()


def test_a_chain_states_what_its_stages_do():
    stages = ({"method": "local_dp"}, {"method": "secure_aggregation", "strength": 4})
    noise, masks = Chain(strength=1.0, stages=stages, varies="local_dp").statements(*CLOSE)
    assert noise.startswith("local_dp: epsilon")
    assert masks.startswith("secure_aggregation: masks: 128 bits")


@pytest.mark.parametrize(
    ("defense", "words"), [(LocalDp(strength=1.0), "NOT PRIVATE"), (NONE, None)], ids=["noise", "none"]
)
def test_it_reaches_the_facts_of_a_cell(defense, words):
    where = scenario(subjects=2)
    made = target(where, defense)
    answer = reconstruct(where, made, "inverting_gradients", defense=defense, steps=3)
    facts = evaluate(where, made, answer).facts
    assert ("guarantee" in facts) == (words is not None)
    assert words is None or words in facts["guarantee"]
