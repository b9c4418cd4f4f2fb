"""CAHE: exact sums, both secrets needed, noise and security as computed, and an attacker who reads ciphertexts."""

import numpy as np
import pytest
import torch
from federated_cells import generator, psnr, reconstruct, scenario, target
from scipy.stats import chi2

from inversionbench.core.defense import NONE
from inversionbench.core.exchange import Round
from inversionbench.defenses.cryptographic_encryption import _lattice as lattice
from inversionbench.defenses.cryptographic_encryption._lwe_security import label, primal
from inversionbench.defenses.cryptographic_encryption._stream import Stream
from inversionbench.defenses.cryptographic_encryption.cahe import Cahe, Keys

TOY = {"dimension": 64, "identity": 4, "slots": 32}  # INSECURE: sizes for tests


def updates(n, d=300):
    return [{"w": 0.1 * torch.randn(d // 10, 10, generator=generator(i))} for i in range(n)]


def run(defense, n=4, observer="server", attacked=True):
    payloads = updates(n)
    sizes = [defense.bytes_sent(p) for p in payloads]
    return payloads, defense.exchange(payloads, [1.0] * n, Round(1, generator(), sizes, observer, attacked))


@pytest.fixture(scope="module")
def keys():
    return Keys.make(Cahe(strength=1, **TOY), 100, Stream(bytes(32)))


@pytest.mark.parametrize("count", [1, 10, 100])
def test_the_decrypted_sum_is_that_of_the_integers(keys, count):
    x = np.random.default_rng(0).integers(-keys.offset, keys.offset, (count, 150))
    assert np.array_equal(keys.sum(x)[0], x.sum(0))


def test_both_secrets_are_needed(keys):
    x = np.random.default_rng(1).integers(-keys.offset, keys.offset, 4000)
    cipher = keys.encrypt(x)
    whole = lattice.decrypt(cipher, keys.secret, keys.partial, keys.modulus)
    assert int(whole.max()) < 2 ** (keys.per_slot * keys.field)
    wrong = lattice.User.make(keys.matrix, 32, keys.modulus, Stream(b"w" * 32)).secret
    for secret, partial in ((None, keys.partial), (keys.secret, None), (wrong, keys.partial)):
        found = lattice.decrypt(cipher, secret, partial, keys.modulus)
        read = np.sort(found.ravel() / keys.modulus)
        gap = np.abs(read - (np.arange(len(read)) + 0.5) / len(read)).max()  # Kolmogorov and Smirnov, p > 1e-3
        assert gap < 1.95 / np.sqrt(len(read))


def uniform(part):
    """Byte histogram, chi-square at p > 1e-3."""
    counts = np.bincount(np.frombuffer(part.tobytes(), np.uint8), minlength=256)
    return bool(chi2.sf(((counts - counts.mean()) ** 2 / counts.mean()).sum(), 255) > 1e-3)


def test_ciphertexts_look_uniform_and_are_independent_of_the_input():
    keys = Keys.make(Cahe(strength=1, dimension=64, identity=16, slots=32), 4, Stream(bytes(32)))
    x = np.random.default_rng(1).integers(-50, 50, 40_000)
    cipher = keys.encrypt(x)
    assert all(uniform(part) for part in (cipher.c0, cipher.c1, cipher.c2))
    assert abs(np.corrcoef(keys.read(cipher, len(x)), x)[0, 1]) < 4 / np.sqrt(len(x))
    again = keys.encrypt(x)
    assert not np.array_equal(again.c2, cipher.c2)  # fresh errors


def test_too_small_an_identity_part_is_seen(keys):
    """With four entries t is 0 now and then, and c0 bare errors: the negative control of the test above."""
    assert not uniform(keys.encrypt(np.zeros(40_000, np.int64)).c0)


def test_errors_used_twice_leave_the_difference(keys):
    """The negative control: the same stream for two messages."""
    a, b = np.zeros((1, 32), np.int64), np.full((1, 32), 9, np.int64)
    args = (keys.matrix, keys.public, keys.centre, keys.NAME, keys.modulus)
    first, second = (lattice.encrypt(v, *args, Stream(b"s" * 32)) for v in (a, b))
    assert set((second.c2 - first.c2).ravel().tolist()) == {9}


def test_the_noise_is_as_predicted():
    stream, n, slots = Stream(bytes(32)), 256, 64
    centre = lattice.KeyCentre(4, 64, stream)
    partial = centre.partial_key("g", slots)
    matrix, p = lattice.public_matrix(b"x", n, n), 2**30 + 1
    user = lattice.User.make(matrix, slots, p, stream)
    zero = np.zeros((60, slots), np.int64)
    cipher = lattice.encrypt(zero, matrix, user.public, centre.matrix, "g", p, stream)
    seen = (lattice.opened(cipher, user.secret, partial) / p).std()
    assert seen == pytest.approx(lattice.noise(n, centre.columns, centre.width), rel=0.05)
    assert lattice.accepts(centre.matrix, partial, "g", centre.width)
    assert not lattice.accepts(centre.matrix, partial, "h", centre.width)
    assert not lattice.accepts(centre.matrix, partial + 2**40, "g", centre.width)
    assert partial.std() == pytest.approx(centre.width / lattice.TAU, rel=0.03)
    too_large = 2 ** (lattice.largest_plain(n, centre.columns, centre.width, 1) + 6) + 1
    loud = lattice.User.make(matrix, slots, too_large, stream)
    wrapped = lattice.encrypt(zero, matrix, loud.public, centre.matrix, "g", too_large, stream)
    assert lattice.decrypt(wrapped, loud.secret, partial, too_large).any()  # past the bound sums go wrong


def test_the_partial_key_does_not_show_its_trapdoor():
    """Preimages must have the same spread in every direction, not that of [R; I]."""
    centre = lattice.KeyCentre(1, 8, Stream(b"t" * 32))
    key = centre.partial_key("g", 4000).astype(float)
    spread = np.linalg.eigvalsh(np.cov(key))
    basis = np.vstack([centre._trapdoor.astype(float), np.eye(64)])
    naive = np.linalg.eigvalsh(np.cov(basis @ lattice._coset_gaussian(np.ones((64, 4000), int), Stream(bytes(32)))))
    assert spread.max() / spread.min() < 2
    assert naive.max() / max(naive.min(), 1e-9) > 100


@pytest.mark.parametrize(
    ("n", "log_q", "secret", "bits", "core"),
    [
        (1024, 27, (2 / 3) ** 0.5, 132, None), (2048, 54, (2 / 3) ** 0.5, 130, None),
        (4096, 109, (2 / 3) ** 0.5, 128, None), (2560, 64, None, 142, 110), (1280, 32, None, 148, 118),
        (2304, 64, None, 126.5, None),
    ],
)  # fmt: skip
def test_the_security_estimate(n, log_q, secret, bits, core):
    got = primal(n, log_q, 3.2, secret)
    assert got[0] == pytest.approx(bits, abs=0.6)
    assert core is None or got[1] == pytest.approx(core, abs=0.6)
    assert ("INSECURE" in label(*got)) == (bits < 127.5)


def test_toy_parameters_say_so():
    assert Cahe(strength=1, **TOY).security()["security"].startswith("INSECURE")
    real = Cahe(strength=1).security()
    assert real["security_bits"] > 140
    assert real["security"].startswith("142 bits")
    assert "demonstration" in real["security"]


def test_encrypted_rounds_equal_plain_ones_bit_for_bit():
    defense = Cahe(strength=1, **TOY)
    payloads, encrypted = run(defense)
    _, plain = run(defense, observer=None, attacked=False)
    mean = NONE.aggregate(payloads, [1.0] * 4)[0]["w"]
    assert torch.equal(encrypted.mean["w"], plain.mean["w"])
    assert float((encrypted.mean["w"] - mean).abs().max()) <= 2.0**-15 + 1e-7
    assert encrypted.bytes_up == [defense.bytes_sent(payloads[0])] * 4


def test_who_sees_what():
    defense = Cahe(strength=1, **TOY)
    payloads, seen = run(defense)
    w = torch.stack([p["w"] for p in payloads])
    rows = torch.stack([v["w"] for v in seen.view])
    assert abs(float(torch.corrcoef(torch.stack([rows.flatten(), w.flatten()]))[0, 1])) < 4 / 1200**0.5
    assert float(rows.abs().max()) > 1
    assert torch.allclose(run(defense, observer="collusion")[1].view[2]["w"], w[2], atol=1e-4)
    assert torch.allclose(run(defense, observer="client")[1].view[0]["w"], w[[0, 2, 3]].mean(0), atol=1e-4)


@pytest.mark.parametrize("select", ["random", "top"])
def test_partial_sharing(select):
    defense = Cahe(strength=1, share=0.25, select=select, **TOY)
    payloads, done = run(defense, attacked=False, observer=None)
    mean, sent = NONE.aggregate(payloads, [1.0] * 4)[0]["w"], done.mean["w"]
    share = float((sent != 0).float().mean())
    assert share == pytest.approx(0.25, abs=0.02) if select == "random" else 0.25 < share < 0.75
    assert torch.allclose(sent[sent != 0], mean[sent != 0], atol=1e-4)
    if select == "top":
        assert float((sent - mean).norm()) < 0.7 * float(mean.norm())
        assert done.bytes_up[0] > run(defense, attacked=False)[1].bytes_up[0] - 1
    assert done.bytes_up[0] < Cahe(strength=1, **TOY).bytes_sent(payloads[0])
    for observer in ("client", "collusion"):  # what a client kept back nobody sees
        seen = run(defense, attacked=False, observer=observer)[1].view[0]["w"]
        assert not bool(seen[sent == 0].any())
        assert bool(seen[sent != 0].any())


def test_wrong_settings():
    for wrong in ({"strength": 0.5}, {"share": 0.0}, {"select": "best"}, {"clients": 0}):
        with pytest.raises(ValueError, match="cahe"):
            Cahe(**wrong)
    with pytest.raises(ValueError, match="plaintext"):
        Cahe(strength=1, bits=50).room(4)


def test_ciphertexts_are_inverted_like_noise():
    where = scenario(subjects=4)
    made = target(where, Cahe(strength=1, **TOY))
    assert "INSECURE" in made.released["defense"]["security"]
    coded = psnr(where, made, reconstruct(where, made, "inverting_gradients", steps=60))
    noise = {n: torch.randn(t.shape, generator=generator(5)) for n, t in made.released["updates"]["client"].items()}
    made.released["updates"]["client"] = noise
    assert abs(coded - psnr(where, made, reconstruct(where, made, "inverting_gradients", steps=60))) < 1.5
