"""`prepare` around a data set: where files are looked for, what is verified, options, seeds, work not redone."""

import gzip
import json
import os
from dataclasses import dataclass

import numpy as np
import official_layouts as make
import pytest
from official_layouts import built

from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.data import prepare as module
from inversionbench.data import sources
from inversionbench.data.base import PARTS, Card, DatasetSource, File
from inversionbench.data.prepare import MissingData, combine, generator, prepare


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with small MNIST files."""
    built("mnist", make.idx_set, tmp_path / "root", monkeypatch)
    return tmp_path / "root"


IMAGES = "train-images-idx3-ubyte.gz"


def test_root_is_given_or_from_the_environment(root, tmp_path, monkeypatch):
    monkeypatch.delenv(sources.ROOT_VARIABLE, raising=False)
    with pytest.raises(MissingData, match="no data root is set"):
        prepare("mnist", {}, None, tmp_path / "out")
    monkeypatch.setenv(sources.ROOT_VARIABLE, str(root))
    prepare("mnist", {}, None, tmp_path / "out")
    with pytest.raises(MissingData):
        prepare("mnist", {}, tmp_path / "elsewhere", tmp_path / "other")


def test_only_the_missing_file_is_named(root, tmp_path):
    (root / "mnist" / IMAGES).unlink()
    with pytest.raises(MissingData) as caught:
        prepare("mnist", {}, root, tmp_path / "out")
    assert caught.value.files == (IMAGES,)
    assert caught.value.folder == root / "mnist"
    assert "t10k-images" not in str(caught.value)


def test_file_compressed_again_is_the_same_data(root, tmp_path):
    first = prepare("mnist", {}, root, tmp_path / "a")
    path = root / "mnist" / IMAGES
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=123))
    second = prepare("mnist", {}, root, tmp_path / "b")
    assert second.digest == first.digest
    named = [{f["path"]: f for f in data.meta["files"]}[IMAGES] for data in (first, second)]
    assert named[0]["sha256"] != named[1]["sha256"]
    assert named[0]["content_sha256"] == named[1]["content_sha256"]


def test_changed_content_is_refused(root, tmp_path):
    path = root / "mnist" / IMAGES
    data = bytearray(gzip.decompress(path.read_bytes()))
    data[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(data)))
    with pytest.raises(UserError, match=r"sha256 of its content is .*, expected"):
        prepare("mnist", {}, root, tmp_path / "out")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match="cannot be unpacked"):
        prepare("mnist", {}, root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bomb_is_not_unpacked_to_its_end(root, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CONTENT_LIMIT", 1 << 22)
    (root / "mnist" / IMAGES).write_bytes(gzip.compress(bytes(1 << 24)))
    with pytest.raises(UserError, match="unpacks to more than 4194304 bytes"):
        prepare("mnist", {}, root, tmp_path / "out")


@pytest.mark.parametrize("declared", [File("f", size=5), File("f", md5="0" * 32), File("f", sha256="0" * 64)])
def test_size_and_sums(tmp_path, declared):
    (tmp_path / "f").write_bytes(b"data")
    with pytest.raises(UserError, match=r"has 4 bytes, expected 5|(md5|sha256) is .*, expected 0000"):
        sources.check("set", declared, tmp_path / "f")
    right = File("f", size=4, md5="8d777f385d3dfec8815d20f7496026dc")
    assert sources.check("set", right, tmp_path / "f")["size"] == 4


def test_pipe_in_place_of_a_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "f")
    with pytest.raises(UserError, match="not a regular file"):
        sources.check("set", File("f"), tmp_path / "f")


def test_other_folder_name(root, tmp_path, monkeypatch):
    monkeypatch.setattr(registry.get("dataset", "mnist"), "folders", ("digits_of_lecun",), raising=False)
    (root / "mnist").rename(root / "digits_of_lecun")
    assert prepare("mnist", {}, root, tmp_path / "out").classes == 5


def test_releases_in_order_and_by_name(tmp_path, monkeypatch):
    built("cifar10", make.cifar10_jpeg, tmp_path / "root", monkeypatch)
    make.cifar10(tmp_path / "root" / "cifar10", np.random.default_rng(0), unpacked=True)
    cls = registry.get("dataset", "cifar10")
    found = {
        release: sources.present(cls(release=release), "cifar10", tmp_path / "root")
        for release in ("auto", "jpeg", "python")
    }
    assert [f and f.release for f in found.values()] == ["folder", "jpeg", None]
    with pytest.raises(UserError, match=r"unknown release 'jpg': did you mean 'jpeg'\?"):
        prepare("cifar10", {"release": "jpg"}, tmp_path / "root", tmp_path / "out")
    with pytest.raises(MissingData) as caught:
        prepare("cifar10", {"release": "python"}, tmp_path / "root", tmp_path / "out")
    assert caught.value.files == ("cifar-10-python.tar.gz",)


BAD = [
    ({"resolutoin": 28}, "did you mean 'resolution'"),
    ({"resolution": "28"}, "expected a whole number"),
    ({"resolution": 4}, r"expected 8\.\.1024"),
    ({"private_classes": [0]}, "two or more"),
    ({"private_classes": [0, "1"]}, "each a whole number"),
    ({"private_classes": [0, 10]}, r"two or more of 0\.\.9"),
    ({"private_classes": list(range(10))}, "use protocol 'samples'"),
    ({"protocol": "class"}, "did you mean 'classes'"),
    ({"evaluation_share": 1.0}, "shares"),
    ({"public": -3}, "got -3"),
]


@pytest.mark.parametrize(("options", "text"), BAD)
def test_options_that_make_no_sense(root, tmp_path, options, text):
    with pytest.raises(UserError, match=text):
        prepare("mnist", options, root, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


def test_unknown_data_set(tmp_path):
    with pytest.raises(UserError, match="did you mean 'mnist'"):
        prepare("mnits", {}, tmp_path, tmp_path / "out")


def test_split_depends_on_seed_and_not_on_resolution_or_limits(root, tmp_path):
    small, large, other, few = (
        prepare("mnist", options, root, tmp_path / str(i), seed=seed)
        for i, (options, seed) in enumerate(
            [({}, 0), ({"resolution": 32}, 0), ({}, 1), ({"private": 7, "public": 9}, 0)]
        )
    )
    assert small.meta["split"]["digest"] == large.meta["split"]["digest"] != other.meta["split"]["digest"]
    assert small.digest != large.digest
    np.testing.assert_array_equal(few.private.extra["index"], small.private.extra["index"][:7])
    np.testing.assert_array_equal(few.public.extra["index"], small.public.extra["index"][:9])
    assert generator("a", 0).random() != generator("b", 0).random()


def test_meta_says_where_it_came_from(root, tmp_path):
    meta = prepare("mnist", {"private": 5}, root, tmp_path / "out", seed=3).meta
    assert meta["seed"] == 3
    assert meta["options"]["private"] == 5
    assert meta["options"]["private_classes"] == [0, 1, 2, 3, 4]
    assert {f["path"] for f in meta["files"]} == {f.path for f in registry.get("dataset", "mnist").card.files}
    assert meta["terms"]
    assert str(root) not in json.dumps(meta)


def test_work_is_done_once_and_again_when_something_changed(root, tmp_path, monkeypatch):
    built_by = []
    real = registry.get("dataset", "mnist").build
    monkeypatch.setattr(
        registry.get("dataset", "mnist"), "build", lambda *args: built_by.append(1) or real(*args)
    )
    out = tmp_path / "out"
    prepare("mnist", {}, root, out)
    prepare("mnist", {}, root, out)
    assert len(built_by) == 1
    prepare("mnist", {"private": 4}, root, out)
    prepare("mnist", {"private": 4}, root, out, seed=1)
    os.utime(root / "mnist" / IMAGES, (1, 1))
    prepare("mnist", {"private": 4}, root, out, seed=1)
    assert len(built_by) == 4
    (out / "dataset.json").write_text("{")
    prepare("mnist", {"private": 4}, root, out, seed=1)
    assert len(built_by) == 5


def test_key_follows_the_code_that_is_used():
    names = {path.stem for path in module._modules("mnist")}
    assert {"mnist", "_idx_pair", "_classed", "_split", "_formats", "_archives", "prepare", "base"} <= names
    assert not {"lfw", "_pickles", "_cifar", "faces"} & names


@dataclass(frozen=True)
class Interrupted(DatasetSource):
    """Streams 600 images from a file; the environment says after how many it is cut."""

    card = Card("Test", "image", "here", "none", files=(File("big.bin"),))

    def build(self, root, out, rng):
        data = np.frombuffer((root / "big.bin").read_bytes(), np.uint8).reshape(-1, 1, 4, 4)
        arrays = {}
        for part in PARTS:
            arrays[part] = out.array(part, "x", (150, 1, 4, 4), np.uint8)
            out.side(part, y=np.full(150, -1 if part == "public" else 0))

        def decode(i):
            Interrupted.decoded.append(i)
            if len(Interrupted.decoded) == Interrupted.cut:
                raise KeyboardInterrupt
            return data[i]

        out.fill(arrays, ((PARTS[i % 4], i // 4, lambda i=i: decode(i)) for i in rng.permutation(600)))
        out.meta(classes=1)


def test_interrupted_prepare_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "make", lambda name, options: Interrupted())
    monkeypatch.setattr(module, "_modules", lambda name: [])
    rng = np.random.default_rng(0)
    make.save(tmp_path / "root" / "big" / "big.bin", rng.integers(0, 256, 600 * 16, dtype=np.uint8).tobytes())
    hashed = []
    real = sources.check
    monkeypatch.setattr(sources, "check", lambda *args: hashed.append(1) or real(*args))
    Interrupted.decoded, Interrupted.cut = [], 500
    with pytest.raises(KeyboardInterrupt):
        prepare("big", {}, tmp_path / "root", tmp_path / "out" / "big")
    assert not (tmp_path / "out" / "big").exists()
    Interrupted.decoded, Interrupted.cut = [], None
    data = prepare("big", {}, tmp_path / "root", tmp_path / "out" / "big")
    assert 100 < len(Interrupted.decoded) < 360
    assert len(hashed) == 1
    Interrupted.decoded = []
    assert prepare("big", {}, tmp_path / "root", tmp_path / "whole").digest == data.digest
    assert len(Interrupted.decoded) == 600


def test_progress_only_when_somebody_looks_on(tmp_path, monkeypatch, capsys):
    built("cifar10", make.cifar10_jpeg, tmp_path / "root", monkeypatch)
    prepare("cifar10", {}, tmp_path / "root", tmp_path / "a")
    assert capsys.readouterr().err == ""
    prepare("cifar10", {}, tmp_path / "root", tmp_path / "b", progress=True)
    assert "cifar10" in capsys.readouterr().err


def test_combine_takes_public_from_another_set(root, tmp_path, monkeypatch):
    built("fashion_mnist", make.idx_set, root, monkeypatch)
    first = prepare("mnist", {}, root, tmp_path / "a")
    prepare("fashion_mnist", {"protocol": "samples"}, root, tmp_path / "b", seed=5)
    both = combine(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert both.name == "mnist+fashion_mnist"
    assert both.meta["title"] == "MNIST (public: Fashion-MNIST)"
    assert both.meta["public_from"]["options"]["protocol"] == "samples"
    np.testing.assert_array_equal(both.private.x, first.private.x)
    assert (both.public.y == -1).all()
    assert both.meta["class_names"] == first.meta["class_names"]
    assert both.meta["dropped_public"] + len(both.public) == 40
    prepare("fashion_mnist", {"resolution": 32}, root, tmp_path / "d")
    with pytest.raises(UserError, match="same resolution"):
        combine(tmp_path / "a", tmp_path / "d", tmp_path / "e")
    with pytest.raises(UserError, match="not a prepared data set"):
        combine(tmp_path / "a", tmp_path / "nothing", tmp_path / "e")
