"""Readers of published formats: what they read, and what they refuse."""

import collections
import gzip
import io
import os
import pickle
import wave

import numpy as np
import pytest
from PIL import Image
from scipy import sparse
from scipy.io import savemat

from inversionbench.core.errors import UserError
from inversionbench.data import _formats, _images, _pickles


def idx(array, dims=None):
    dims = dims or array.shape
    return bytes([0, 0, 8, len(dims)]) + b"".join(d.to_bytes(4, "big") for d in dims) + array.tobytes()


def test_idx_plain_and_packed(tmp_path):
    x = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx(x))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(x)))
    np.testing.assert_array_equal(_formats.idx(tmp_path / "a"), x)
    np.testing.assert_array_equal(_formats.idx(tmp_path / "a.gz"), x)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0\0", b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", b"<html>", idx(np.zeros(5, np.uint8), (6,)),
        idx(np.zeros(5, np.uint8), (4,)), b"\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)  # fmt: skip
def test_idx_refused(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(UserError, match=r"idx file|bytes follow"):
        _formats.idx(tmp_path / "a")


def test_cut_gz_is_refused(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(np.zeros(500, np.uint8)))[:-9])
    with pytest.raises(UserError, match="cut off or damaged"):
        _formats.idx(tmp_path / "a.gz")


def wav(samples, channels=1, width=2, rate=8000):
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(channels)
        sound.setsampwidth(width)
        sound.setframerate(rate)
        sound.writeframes(np.asarray(samples, "<i2").tobytes())
    return out.getvalue()


def test_wav():
    got = _formats.wav(wav([0, 16384, -32768, 32767]), "clip", 8000)
    np.testing.assert_array_equal(got, np.float32([0, 0.5, -1, 32767 / 32768]))
    for bad in (wav([0] * 4, rate=16000), wav([0] * 4, channels=2), wav([0] * 4, width=1)):
        with pytest.raises(UserError, match="expected 1 channel, 2 bytes, 8000 Hz"):
            _formats.wav(bad, "clip", 8000)
    for bad in (b"", b"RIFF", wav([1] * 100)[:30], wav([1] * 100)[:-20]):
        with pytest.raises(UserError, match="clip"):
            _formats.wav(bad, "clip", 8000)


def test_mat(tmp_path):
    savemat(tmp_path / "a.mat", {"X": np.arange(6, dtype=np.uint8).reshape(2, 3), "y": [[1], [2]]})
    found = _formats.mat(tmp_path / "a.mat", "a", ("X", "y"))
    np.testing.assert_array_equal(found["X"], [[0, 1, 2], [3, 4, 5]])
    with pytest.raises(UserError, match="no variable z"):
        _formats.mat(tmp_path / "a.mat", "a", ("X", "z"))
    data = (tmp_path / "a.mat").read_bytes()
    for bad in (data[:140], b"\x89HDF\r\n\x1a\n" + bytes(600), b"text"):
        with pytest.raises(UserError, match="MATLAB"):
            _formats.mat(bad, "a", ("X",))


def test_table():
    rows = _formats.table('"a";b\r\n1;"x;y"\r\n2;z\r\n', "t", ("a", "b"), ";")
    assert rows == [{"a": "1", "b": "x;y"}, {"a": "2", "b": "z"}]
    with pytest.raises(UserError, match="no column c; it has a, b"):
        _formats.table("a;b\n1;2\n", "t", ("c",), ";")
    for bad in ("a;b\n1;2\n3\n", "a;b\n1;2\n3;4;5\n"):
        with pytest.raises(UserError, match="row 2"):
            _formats.table(bad, "t", ("a",), ";")
    with pytest.raises(UserError, match="damaged table"):
        _formats.table("a;b\n" + "x" * 200_000 + ";2\n", "t", ("a",), ";")
    with pytest.raises(UserError, match="not utf-8"):
        _formats.text(b"\xff\xfe", "t")


class Command:
    """What a hostile pickle looks like: unpickling it calls os.system."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_hostile_pickle_is_not_run(tmp_path):
    for protocol in range(6):
        data = pickle.dumps({"data": Command(tmp_path / "run")}, protocol)
        with pytest.raises(UserError, match=r"asks for '(posix|nt)\.system'"):
            _pickles.loads(data, "file", _pickles.ARRAYS | _pickles.SPARSE | _pickles.LISTS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["builtins.eval", "builtins.getattr", "os.system", "numpy.load", "copyreg.add"])
def test_globals_outside_the_list(name):
    module, attribute = name.rsplit(".", 1)
    data = f"c{module}\n{attribute}\n.".encode()
    with pytest.raises(UserError, match="does not need"):
        _pickles.loads(data, "file", _pickles.ARRAYS | _pickles.SPARSE | _pickles.LISTS)


def test_dotted_names_do_not_reach_further():
    data = b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93."  # STACK_GLOBAL numpy, ndarray.__class__
    with pytest.raises(UserError, match="does not need"):
        _pickles.loads(data, "file", _pickles.ARRAYS)


def test_wanted_pickles_are_read():
    batch = {"data": np.arange(12, dtype=np.uint8).reshape(2, 6), "labels": [3, 4]}
    for protocol in (0, 2, 4):
        got = _pickles.loads(pickle.dumps(batch, protocol), "file", _pickles.ARRAYS)
        np.testing.assert_array_equal(got["data"], batch["data"])
        assert got["labels"] == [3, 4]
    matrix = sparse.csr_matrix(np.eye(3, dtype=np.float32))
    with pytest.raises(UserError, match="does not need"):
        _pickles.loads(pickle.dumps(matrix, 2), "file", _pickles.ARRAYS)
    got = _pickles.loads(pickle.dumps(matrix, 2), "file", _pickles.ARRAYS | _pickles.SPARSE)
    np.testing.assert_array_equal(got.toarray(), np.eye(3))
    graph = collections.defaultdict(list, {0: [1], 1: [0]})
    loaded = _pickles.loads(pickle.dumps(graph, 2), "file", _pickles.LISTS)
    assert _pickles.adjacency(loaded, "file") == {0: [1], 1: [0]}
    for bad in ({0: [1.5]}, {"a": [1]}, [1], {0: (1,)}):
        with pytest.raises(UserError, match="expected a graph"):
            _pickles.adjacency(bad, "file")
    with pytest.raises(UserError, match="numeric array"):
        _pickles.array(np.array([{}]), "file")


def test_cut_pickle():
    data = pickle.dumps({"data": np.zeros(100)}, 2)
    for cut in (0, 1, len(data) // 2, len(data) - 1):
        with pytest.raises(UserError, match="damaged pickle"):
            _pickles.loads(data[:cut], "file", _pickles.ARRAYS)


def encoded(pixels, kind="PNG", **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind, **options)
    return out.getvalue()


def test_decode_crops_the_centre_and_orders_channels():
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[5:15, 10:20] = (10, 20, 30)
    got = _images.decode(encoded(pixels), "p", 10, crop=10)
    assert got.shape == (3, 10, 10)
    np.testing.assert_array_equal(got, np.broadcast_to(np.uint8([10, 20, 30])[:, None, None], (3, 10, 10)))
    grey = _images.decode(encoded(pixels), "p", 5, crop=10, mode="L")
    assert grey.shape == (1, 5, 5)
    assert int(grey.max()) - int(grey.min()) == 0
    boxed = _images.decode(encoded(pixels), "p", 10, box=(10, 5, 20, 15))
    np.testing.assert_array_equal(boxed, got)


def test_shrinking_averages():
    """Without filtering a checkerboard of 0 and 255 would become all one of the two."""
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    got = _images.decode(encoded(board), "p", 8, mode="L")
    assert abs(got.astype(float) - 127.5).max() < 2


def test_picture_formats(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    np.testing.assert_array_equal(_images.decode(encoded(pixels, "PPM"), "p", 16), pixels.transpose(2, 0, 1))
    grey = pixels[..., 0]
    np.testing.assert_array_equal(_images.decode(b"P5\n16 16\n255\n" + grey.tobytes(), "p", 16, mode="L")[0], grey)
    with pytest.raises(UserError, match="not a picture of format"):
        _images.decode(encoded(pixels, "GIF"), "p", 16)
    for bad in (b"", b"<html>", encoded(pixels, "JPEG")[:200], encoded(pixels)[:-30], encoded(pixels)[:40]):
        with pytest.raises(UserError, match="p: "):
            _images.decode(bad, "p", 16)


def test_picture_bomb():
    """A PNG header that claims 60,000 x 60,000 pixels must not be unpacked."""
    data = bytearray(encoded(np.zeros((16, 16), np.uint8)))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with pytest.raises(UserError, match=r"at most 67108864|damaged picture"):
        _images.decode(bytes(data), "p", 16)


def test_fit_pads_small_and_resizes_others():
    x = np.random.default_rng(0).integers(0, 256, (2, 1, 28, 28), dtype=np.uint8)
    padded = _images.fit(x, 32)
    np.testing.assert_array_equal(padded[:, :, 2:-2, 2:-2], x)
    assert padded.sum(dtype=int) == x.sum(dtype=int)
    assert _images.fit(x, 14).shape == (2, 1, 14, 14)
    assert _images.fit(x, 64).shape == (2, 1, 64, 64)
    assert _images.fit(x, 28) is x
