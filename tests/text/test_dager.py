"""DAGER: its card's checks, what breaks it, and its parts against the model itself."""

from __future__ import annotations

import pytest
import torch
from text_cells import NONE, TRACK, Noise, attack, data, evaluated, mean, reconstruct, scenario, target

from inversionbench.core.errors import AccessDenied, UserError
from inversionbench.models.text import SPECIAL, START, sentences
from inversionbench.tracks.text.attacks._prefixes import FirstBlock, first_inputs
from inversionbench.tracks.text.attacks._span import Judge, Span, noise_rank, span_of
from inversionbench.tracks.text.clients import distinct

EXACT = attack()
ADAPTIVE = attack(rank="noise", outlier=4.0)
TWO = scenario((1, 2), 8)
WIDTH = 32


def inputs_of(where, block, client):
    """What a block's attention read at all places of one client's batch, without padding: (tokens, width)."""
    goal, oracle = target(where), reconstruct(EXACT, where)[1]
    model, sizes = oracle.global_model().double(), oracle.protocol()["sizes"]
    out = []
    with torch.no_grad():
        for sentence in sentences(goal.truth["tokens"], sizes)[client]:
            h = model.token(torch.tensor([sentence[:-1]])) + model.position.weight[: len(sentence) - 1]
            for i in range(block):
                h = model.blocks[i](h)
            out.append(model.blocks[block].norm1(h)[0])
    return torch.cat(out)


def gradient(where, block, client):
    update = target(where).released["updates"]["client"]
    return update[f"blocks.{block}.qkv.weight"][client]


# --- the card's checks ---------------------------------------------------------------------------------


def test_exact_while_the_prefixes_fit():
    found, answer = evaluated(EXACT, TWO)
    assert max(found.facts["prefixes"]) < WIDTH - 1
    assert mean(found) == mean(found, "rouge2") == mean(found, "token_accuracy") == 1.0
    assert (answer.scores[8:] < 1e-8).all()
    assert answer.notes["found"] == [1] * 8 + [2] * 8


def test_breaks_when_the_second_span_is_full():
    """Layer normalisation takes one dimension away: width - 1 prefixes are already too many."""
    found, answer = evaluated(EXACT, scenario((3, 6), 4))
    assert min(found.facts["prefixes"]) >= WIDTH - 1
    assert mean(found) == 0.0
    assert all(r[1] >= WIDTH - 1 for r in answer.notes["ranks"])
    assert all(c == 0 for c in answer.notes["tested"])


def test_the_edge_is_sharp():
    """Over batches of 2 and 3 of a wider model, exactly those with fewer prefixes than width - 1 come back."""
    where = scenario((2, 3), 12, model={"width": 40})
    facts = evaluated(EXACT, where)[0].facts
    for prefixes, exact in zip(facts["prefixes"], facts["exact_of_client"]):
        assert exact == float(prefixes < 39)
    assert 0 < sum(facts["exact_of_client"]) < 24


@pytest.mark.parametrize("client", range(4))
def test_ranks(client):
    """The second gradient has one dimension per distinct prefix; the first as many as its inputs span, which is at
    most the number of distinct (word, place) pairs."""
    where = scenario(2, 4)
    counts = distinct(sentences(target(where).truth["tokens"], [2] * 4)[client], "language")
    for block, most in ((0, counts["pairs"]), (1, counts["prefixes"])):
        found = span_of(gradient(where, block, client), "tolerance", 1e-10)
        true = int(torch.linalg.matrix_rank(inputs_of(where, block, client)))
        assert found.rank == true <= most
    assert true == counts["prefixes"]


@pytest.mark.parametrize("block", [0, 1])
def test_inputs_lie_in_the_span_and_others_do_not(block):
    where = scenario(1, 4)
    span = span_of(gradient(where, block, 0), "tolerance", 1e-10)
    assert float(span.distance(inputs_of(where, block, 0)).max()) < 1e-10
    other = inputs_of(where, block, 1)[2:]
    assert float(span.distance(other).median()) > 0.2


def test_noise_kills_the_thresholds_and_not_the_adaptive_attacker():
    where = scenario(2, 6, model={"width": 64})
    noisy = {s: evaluated(ADAPTIVE, where, defense=Noise(s))[0] for s in (1e-6, 3e-2, 1.0)}
    plain = evaluated(EXACT, where, defense=Noise(1e-6))[0]
    assert mean(plain, "token_recall") == 0.0
    assert mean(noisy[1e-6]) == 1.0
    assert mean(noisy[1e-6], "rouge2") > mean(noisy[3e-2], "rouge2") + 0.1 > mean(noisy[1.0], "rouge2") + 0.2
    chance = max(mean(noisy[3e-2], "rouge2", c) for c in ("random_sentences", "unigram", "other_batch"))
    assert mean(noisy[3e-2], "rouge2") > chance + 0.1
    assert mean(noisy[1.0]) == 0.0


def test_the_adaptive_attacker_needs_no_noise():
    assert mean(evaluated(ADAPTIVE, TWO)[0]) == 1.0


# --- which models, which updates -----------------------------------------------------------------------


@pytest.mark.parametrize("blocks", [2, 3])
def test_a_classifier_of_the_last_word_needs_three_blocks(blocks):
    """In the last block only the last word asks: its gradient spans 1 + 2 x heads inputs per sentence at most, too few
    to tell the words of a longer one; with three blocks every sentence is found."""
    where = scenario(2, 4, model={"task": "class", "blocks": blocks, "width": 48})
    found, answer = evaluated(EXACT, where)
    assert all((r[1] <= 2 * (1 + 2 * 4)) == (blocks == 2) for r in answer.notes["ranks"])
    if blocks == 3:
        assert mean(found) == 1.0


def test_single_precision_needs_wider_thresholds():
    where = scenario((1, 2), 4, precision="float32")
    wide = attack(tolerance=1e-6, token_threshold=1e-3, sequence_threshold=1e-2)
    assert mean(evaluated(wide, where)[0]) == 1.0
    assert mean(evaluated(EXACT, where)[0]) < 0.5


def test_a_trained_model_and_a_weight_difference():
    where = scenario(2, 3, {"epochs": 1, "rate": 3e-3}, sends="delta", local_rate=0.05)
    assert mean(evaluated(EXACT, where)[0]) == 1.0
    untrained, trained = target(scenario(2, 3)).utility, target(where).utility
    assert trained["nll"] < untrained["nll"] - 1


def test_all_parameters_sent_say_the_same():
    every, some = scenario(2, 3, trained="all"), scenario(2, 3)
    a, b = (target(w).released["updates"]["client"] for w in (every, some))
    assert set(b) == {f"blocks.{i}.qkv.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    assert set(b) < set(a)
    assert all(torch.allclose(a[n], b[n], atol=1e-15) for n in b)
    assert mean(evaluated(EXACT, every)[0]) == 1.0


def test_embedding_gradients_would_name_the_words():
    """Why clients hold the embeddings by default: the rows that are not zero are the batch's words."""
    where = scenario(2, 3, trained="all")
    goal = target(where)
    for rows, batch in zip(goal.released["updates"]["client"]["token.weight"], goal.truth["tokens"]):
        named = set(torch.nonzero(rows.abs().sum(1)).flatten().tolist())
        assert named == {t for s in sentences(batch[None], [2])[0] for t in s[:-1]}


def test_without_projections_it_is_refused():
    released = target(TWO).released
    kept = {n: t for n, t in released["updates"]["client"].items() if not n.startswith("blocks.1")}
    oracle = TRACK.oracle(TWO, released | {"updates": {"client": kept}}, EXACT, "GR", NONE, 0)
    with pytest.raises(AccessDenied, match="first two blocks"):
        EXACT.run(oracle, None, torch.Generator())


# --- parts ---------------------------------------------------------------------------------------------


def test_tables_give_what_the_second_block_reads():
    model = reconstruct(EXACT, TWO)[1].global_model().double()
    choices = [torch.tensor([START]), torch.tensor([7, 9]), torch.tensor([5, 6, 8])]
    tables = FirstBlock(model, choices)
    prefixes = torch.tensor([[0, 0], [0, 1]])
    with torch.no_grad():
        for last in range(3):
            found = tables.second_inputs(prefixes, torch.tensor([last, last]))
            words = torch.tensor([[START, w, int(choices[2][last])] for w in (7, 9)])
            h = model.blocks[0](model.token(words) + model.position.weight[:3])
            assert torch.allclose(found, model.blocks[1].norm1(h)[:, 2], atol=1e-12)
        assert torch.allclose(first_inputs(model, 3)[2, 8], model.blocks[0].norm1(
            model.token.weight[8] + model.position.weight[2]), atol=1e-14)  # fmt: skip


def test_repeated_words_pass_the_first_filter_and_not_the_second():
    """Words that stand at several places let others pass there; the second block sorts them out."""
    answer = reconstruct(EXACT, scenario(4, 6, model={"width": 64}))[0]
    facts = evaluated(EXACT, scenario(4, 6, model={"width": 64}))[0].facts
    assert any(words > pairs for words, pairs in zip(answer.notes["words"], facts["pairs"]))
    assert facts["exact_of_client"] == [1.0] * 6


def test_the_limit_ends_the_search():
    answer = reconstruct(attack(limit=1), TWO)[0]
    assert all(answer.notes["stopped"][8:])
    assert max(answer.notes["tested"]) < 20


def test_distance_by_hand():
    span = Span(1, torch.eye(3, dtype=torch.float64), torch.tensor([2.0, 0.0, 0.0]).double(), 0.0)
    v = torch.tensor([[5.0, 0.0, 0.0], [0.0, 3.0, 4.0], [3.0, 4.0, 0.0]]).double()
    assert span.distance(v).tolist() == pytest.approx([0.0, 1.0, 0.8])
    assert not span.full
    assert Span(2, torch.eye(3), torch.ones(3), 0.0).full


def test_excess_is_zero_on_average_for_what_was_there():
    """Inputs of a noisy low-rank gradient: squared distances are what the noise explains."""
    g = torch.Generator().manual_seed(0)
    x, errors = (torch.randn(12, n, generator=g, dtype=torch.float64) for n in (40, 120))
    noisy = errors.T @ x + 0.05 * torch.randn(120, 40, generator=g, dtype=torch.float64)
    span = span_of(noisy, "noise", 1e-10)
    assert span.rank == 12
    assert span.noise == pytest.approx(0.05, rel=0.1)
    assert span.excess(x).exp().mean() == pytest.approx(1.0, abs=0.25)
    stranger = torch.randn(500, 40, generator=g, dtype=torch.float64)
    assert span.excess(stranger).min() > 4
    kept = Judge(span, 0.0, 4.0)(torch.cat([x, stranger[:100]]), stranger)[0]
    assert kept[:12].all()
    assert not kept[12:].any()


def test_noise_rank_of_noise_and_of_nothing():
    g = torch.Generator().manual_seed(0)
    assert noise_rank(torch.linalg.svdvals(torch.randn(90, 30, generator=g).double()), 90) == 0
    assert span_of(torch.zeros(9, 4), "tolerance", 1e-10).rank == 0


def test_same_seed_same_answer_and_cost():
    a, b = (reconstruct(EXACT, TWO) for _ in range(2))
    assert torch.equal(a[0].data, b[0].data)
    assert a[0].notes == b[0].notes
    assert a[0].cost == {"candidates": sum(a[0].notes["tested"])}
    assert a[1].ledger.queries == 16
    assert a[2].used == set()  # neither words nor public text are needed
    assert (a[0].data < len(data().meta["class_names"]) + 640).all()
    assert len(SPECIAL) == 4


@pytest.mark.parametrize(
    ("params", "message"),
    [({"rank": "noisy"}, "did you mean 'noise'"), ({"limit": 0}, "limit >= 1"), ({"beam": 0.5}, "beam >= 1")],
)
def test_bad_parameters(params, message):
    with pytest.raises(UserError, match=message):
        attack(**params)
