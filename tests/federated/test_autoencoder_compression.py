"""Compression by an autoencoder: a code that is learnt, real bytes, a server that reads the decoded update only."""

import pytest
import torch
from federated_cells import CONVNET, data, generator, psnr, reconstruct, scenario, target

from inversionbench.core.defense import NONE, Client
from inversionbench.core.protocol import Protocol
from inversionbench.defenses.gradient_perturbation._autoencoder import Autoencoder
from inversionbench.defenses.gradient_perturbation.autoencoder_compression import AutoencoderCompression
from inversionbench.defenses.gradient_perturbation.mixed_quantization import MixedQuantization
from inversionbench.federation.client import local_update
from inversionbench.models.federated import build


def gradient(i=0):
    net = build(CONVNET, data().shape, data().classes, generator(0))
    x, y = data().private.images(slice(i, i + 1)), data().private.labels(slice(i, i + 1))
    return local_update(net, x, y, Protocol(), NONE, 10, generator())[0]


def client(round=0, state=None):
    return Client(round, 10, 0, 4, 1, {}, generator(round), {} if state is None else state)


def lost(defense, update, ctx=None):
    sent = defense.client_update(update, ctx or client())
    a, b = (torch.cat([t.flatten() for t in u.values()]) for u in (update, sent))
    return float((a - b).norm() / a.norm())


def test_codes_have_the_length_they_should():
    for ratio in (1, 2, 4, 8):
        net = Autoencoder(ratio, 4)
        z = net.encode(torch.randn(3, 64, generator=generator()))
        assert z.shape == (3, 64 // ratio)
        assert net.decode(z).shape == (3, 64)


def test_a_decoder_travels_as_bytes():
    a, b = Autoencoder(4, 8), Autoencoder(4, 8)
    a.train_on(torch.randn(4, 64, generator=generator()), 5, 0.01)
    z = torch.randn(2, 16, generator=generator())
    assert not torch.equal(a.decode(z), b.decode(z))
    assert len(a.decoder_state()) == a.decoder_bytes
    b.load_decoder(a.decoder_state())
    assert torch.equal(a.decode(z), b.decode(z))


def test_learning_beats_the_random_projection():
    """It loses 0.40 (sd 0.08 over four seeds) of what the untrained one loses; 0.7 is asked for."""
    trained = lost(AutoencoderCompression(strength=4), gradient())
    random = lost(AutoencoderCompression(strength=4, first_steps=0, steps=0), gradient())
    assert trained < 0.7 * random
    assert 0.1 < trained < 1  # lossy


def test_a_wider_code_loses_less():
    losses = [lost(AutoencoderCompression(strength=r, first_steps=150), gradient()) for r in (1, 2, 8)]
    assert losses[0] < losses[1] < losses[2]
    assert losses[0] < 0.2


def test_bytes():
    defense, update, state = AutoencoderCompression(strength=4), gradient(), {}
    first, second = (defense.client_update(update, client(t, state)) for t in (0, 1))
    net = Autoencoder(4, 8)
    assert defense.bytes_sent(first) - defense.bytes_sent(second) == net.decoder_bytes  # sent where it changed
    assert defense.bytes_sent(second) == defense.bytes_sent(dict(second))  # the formula
    weights = sum(t.numel() for t in update.values() if t.ndim > 1)
    assert defense.bytes_sent(second) > weights
    assert defense.bytes_sent(second) < 0.35 * NONE.bytes_sent(update)
    assert all(torch.equal(t, first[n]) for n, t in update.items() if t.ndim < 2)


def test_the_error_is_fed_back_and_the_code_adapts():
    update, rounds = gradient(), 8
    means = {}
    for feedback in (True, False):
        defense, state = AutoencoderCompression(strength=4, feedback=feedback, period=100), {}
        total = {n: torch.zeros_like(t) for n, t in update.items()}
        for t in range(rounds):
            sent = defense.client_update(update, client(t, state))
            total = {n: v + sent[n] / rounds for n, v in total.items()}
        means[feedback] = sum(float((total[n] - t).norm() ** 2) for n, t in update.items())
    assert means[True] < means[False]
    state = {}
    defense = AutoencoderCompression(strength=4, period=2, first_steps=10, steps=100, feedback=False)
    early = lost(defense, update, client(0, state))
    lost(defense, update, client(1, state))
    assert lost(defense, update, client(2, state)) < early


@pytest.mark.parametrize("wrong", [{"strength": 3}, {"strength": 512}, {"strength": 2, "period": 0}])
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match="autoencoder_compression"):
        AutoencoderCompression(**wrong)


def test_what_is_lost_protects_more_than_rounding_at_the_same_upload():
    """Over four seeds 4.6 dB (sd 1.0) less than undefended and rounded, which differ by 0; 1.5 are asked for. Lost are
    0.46 (sd 0.01) of the update."""
    values, losses, where = [], [], scenario(subjects=8)
    for defense in (*(AutoencoderCompression(strength=s, first_steps=150) for s in (0, 8)),
                    MixedQuantization(strength=2, table="uniform")):  # fmt: skip
        made = target(where, defense)
        losses.append(made.utility.get("loss_ratio", 0.0))
        values.append(psnr(where, made, reconstruct(where, made, "inverting_gradients", steps=150)))
    assert losses[1] > losses[0] + 0.2
    assert values[1] < min(values[0], values[2]) - 1.5
    sizes = [d.bytes_sent(gradient()) for d in (AutoencoderCompression(strength=8), defense)]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.15)
