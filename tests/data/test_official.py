"""Every image set from small files in its official layout: parts, labels, identities, missing, damaged."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import official_layouts as make
import pytest
from official_layouts import built

from inversionbench.core import registry
from inversionbench.core.errors import UserError
from inversionbench.data import sources
from inversionbench.data.base import PARTS, File
from inversionbench.data.prepare import MissingData, prepare


@dataclass(frozen=True)
class Case:
    """A layout and what it must become. `code`: which array tells what the picture shows ("identity",
    "label", "y" or None). `public`: what public labels are: -1 ("none") or like the others ("known")."""

    name: str
    layout: Any
    classes: int
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    release: str = ""
    code: str | None = "label"
    public: str = "none"
    empty: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


SAMPLES = {"protocol": "samples"}
CASES = {
    "mnist": Case("mnist", make.idx_set, 5, (1, 28, 28), counts={"private": 20, "public": 55, "heldout": 15}),
    "mnist unpacked": Case("mnist", partial(make.idx_set, packed=False), 10, (1, 32, 32),
                           {**SAMPLES, "resolution": 32}, public="known", counts={"public": 40}),
    "mnist order": Case("mnist", make.idx_set, 2, (1, 28, 28), {"private_classes": [7, 3], "private": 5},
                        counts={"private": 5, "evaluation": 8, "heldout": 6}),
    "fashion_mnist": Case("fashion_mnist", make.idx_set, 5, (1, 28, 28)),
    "cifar10": Case("cifar10", make.cifar10, 5, (3, 32, 32), release="python"),
    "cifar10 folder": Case("cifar10", partial(make.cifar10, unpacked=True), 10, (3, 32, 32), SAMPLES,
                           release="folder", public="known"),
    "cifar10 jpeg": Case("cifar10", make.cifar10_jpeg, 5, (3, 32, 32), release="jpeg"),
    "cifar100": Case("cifar100", make.cifar100, 50, (3, 32, 32), release="python"),
    "cifar100 folder": Case("cifar100", partial(make.cifar100, unpacked=True), 2, (3, 32, 32),
                            {"protocol": "classes", "private_classes": [3, 1]}, release="folder"),
    "cifar100 without": Case("cifar100", make.cifar100, 5, (3, 32, 32),
                             {"protocol": "classes", "without_cifar10_classes": True}, release="python",
                             counts={"public": (100 - 5 - 11) * 6}),
    "svhn": Case("svhn", make.svhn, 5, (3, 32, 32), counts={"public": 30, "heldout": 10}),
    "svhn extra": Case("svhn", make.svhn, 2, (3, 32, 32),
                       {"use_extra": True, "private_classes": [0, 9]}, counts={"public": 72}),
    "svhn samples": Case("svhn", make.svhn, 10, (3, 32, 32), {**SAMPLES, "use_extra": True},
                         public="known", counts={"public": 50, "heldout": 20}),
    "lfw": Case("lfw", make.lfw, 3, (3, 64, 64), {"min_photos": 6, "crop": 40, "photos": 8},
                release="full", code="identity", counts={"private": 12, "public": 5, "evaluation": 6}),
    "lfw funneled": Case("lfw", partial(make.lfw, archive="lfw-funneled.tgz", top="lfw_funneled"), 2,
                         (1, 16, 16), {"min_photos": 6, "resolution": 16, "grey": True, "private_people": 2},
                         release="funneled", code="identity"),
    "celeba": Case("celeba", make.celeba, 3, (3, 64, 64),
                   {"private_people": 3, "public": 4, "heldout_share": 0.25}, release="zip", code="identity",
                   counts={"public": 4}),
    "celeba folder": Case("celeba", partial(make.celeba, unpacked=True), 2, (3, 64, 64),
                          {"private_people": 3, "attribute": "Even", "heldout_share": 0.25},
                          release="folder", code="identity",
                          public="known"),
    "facescrub": Case("facescrub", make.facescrub, 3, (3, 32, 32), {"private_people": 3, "resolution": 32},
                      code="identity", counts={"public": 7}),
    "facescrub all": Case("facescrub", make.facescrub, 4, (3, 32, 32),
                          {"private_people": 0, "resolution": 32}, code="identity", empty=("public",)),
    "att_faces": Case("att_faces", make.att_faces, 20, (1, 64, 64), release="zip", code="identity",
                      counts={"private": 100, "public": 200, "evaluation": 60, "heldout": 40}),
    "att_faces tar": Case("att_faces", partial(make.att_faces, kind="tar"), 40, (1, 32, 32),
                          {"private_subjects": 40, "resolution": 32}, "tar", "identity", empty=("public",)),
    "att_faces folder": Case("att_faces", partial(make.att_faces, kind="folder"), 20, (1, 64, 64),
                             release="folder", code="identity"),
    "ffhq": Case("ffhq", make.ffhq, 0, (3, 64, 64), {"check_md5": True}, "thumbnails", None,
                 empty=("private", "evaluation", "heldout"), counts={"public": 6}),
    "ffhq flat": Case("ffhq", partial(make.ffhq, flat=True), 0, (3, 32, 32), {"resolution": 32, "public": 3},
                      "thumbnails", None, empty=("private", "evaluation", "heldout"), counts={"public": 3}),
    "chestxray8": Case("chestxray8", make.chestxray8, 3, (1, 64, 64), {"findings": list(make.DISEASES)},
                       "archives", "y", counts={"public": 48}),
    "chestxray8 folder": Case("chestxray8", partial(make.chestxray8, unpacked=True, revision=True), 2,
                              (1, 64, 64), {"findings": list(make.DISEASES[:2])}, "folder_v2020", "y"),
    "ham10000": Case("ham10000", make.ham10000, 7, (3, 64, 64), release="zip", code="y", public="known"),
    "ham10000 tab": Case("ham10000", partial(make.ham10000, table="HAM10000_metadata.tab"), 7, (3, 64, 64),
                         release="zip_tab", code="y", public="known"),
    "ham10000 folder": Case("ham10000", partial(make.ham10000, unpacked=True), 7, (3, 32, 32),
                            {"resolution": 32}, "folder", "y", "known"),
    "imagenet": Case("imagenet", make.imagenet, 3, (3, 32, 32), {"resolution": 32}, code="y", public="known",
                     counts={"private": 12, "public": 9, "evaluation": 6, "heldout": 3}),
    "imagenet train": Case("imagenet", make.imagenet, 2, (3, 32, 32),
                           {"resolution": 32, "use_train": True, "classes": 2}, code="y", public="known",
                           counts={"private": 10, "public": 6, "evaluation": 4, "heldout": 20}),
}  # fmt: skip


@pytest.fixture(params=CASES)
def case(request, tmp_path, monkeypatch):
    made = CASES[request.param]
    built(made.name, made.layout, tmp_path / "root", monkeypatch)
    return made


def test_official_layout(case, tmp_path):
    data = prepare(case.name, case.options, tmp_path / "root", tmp_path / "a")
    assert (data.classes, data.shape, data.meta["release"]) == (case.classes, case.shape, case.release)
    sizes = {part: len(getattr(data, part)) for part in PARTS}
    assert {part for part in PARTS if not sizes[part]} == set(case.empty)
    assert case.counts.items() <= sizes.items()
    index = np.concatenate([getattr(data, part).extra["index"] for part in PARTS])
    assert len(index) == len(set(index.tolist()))
    for part in PARTS:
        _labels(case, data, part)
    again = prepare(case.name, case.options, tmp_path / "root", tmp_path / "b")
    assert again.digest == data.digest
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def _labels(case, data, part):
    """Labels belong to pictures, and are what the part promises."""
    found, private = getattr(data, part), data.private
    if not len(found):
        return
    if part == "public" and case.public == "none":
        assert (found.y == -1).all()
    else:
        assert set(found.y.tolist()) == set(range(case.classes))
    if case.code == "y":
        told = np.where(found.y >= 0, found.y, 20)
    elif case.code:
        told = found.extra[case.code]
    else:
        return
    codes = make.code_of(found.x)
    if case.code == "identity":  # numbers of people follow the order of their codes
        everyone = np.unique(np.concatenate([getattr(data, p).extra["identity"] for p in PARTS]))
        shown = np.unique(np.concatenate([make.code_of(getattr(data, p).x) for p in PARTS if len(getattr(data, p))]))
        assert len(everyone) == len(shown)
        np.testing.assert_array_equal(np.searchsorted(shown, codes), np.searchsorted(everyone, told))
    else:
        np.testing.assert_array_equal(codes, told)
    if case.code != "y" and part in ("evaluation", "heldout") and case.name != "celeba":
        same = {(int(y), int(c)) for y, c in zip(private.y, private.extra[case.code])}
        assert {(int(y), int(c)) for y, c in zip(found.y, told)} <= same


def test_private_classes_are_numbered_in_the_order_given(tmp_path, monkeypatch):
    built("mnist", make.idx_set, tmp_path / "root", monkeypatch)
    data = prepare("mnist", {"private_classes": [7, 3]}, tmp_path / "root", tmp_path / "a")
    np.testing.assert_array_equal(data.private.extra["label"], np.array([7, 3])[data.private.y])
    assert data.meta["class_names"] == ["7", "3"]


@pytest.mark.parametrize("name", ["chestxray8", "ham10000", "celeba folder", "lfw"])
def test_people_patients_and_lesions_are_in_one_part(name, tmp_path, monkeypatch):
    case = CASES[name]
    built(case.name, case.layout, tmp_path / "root", monkeypatch)
    data = prepare(case.name, case.options, tmp_path / "root", tmp_path / "a")
    who = {part: set(getattr(data, part).extra["identity"].tolist()) for part in PARTS}
    assert not who["private"] & who["public"]
    together = name in ("chestxray8", "ham10000")
    assert bool(who["private"] & who["evaluation"]) != together
    assert bool(who["private"] & who["heldout"]) != together


def test_chest_images_with_other_findings_are_left_out(tmp_path, monkeypatch):
    case = CASES["chestxray8"]
    built(case.name, case.layout, tmp_path / "root", monkeypatch)
    data = prepare(case.name, case.options, tmp_path / "root", tmp_path / "a")
    used = np.concatenate([getattr(data, part).extra["identity"] for part in ("private", "evaluation", "heldout")])
    assert set(used.tolist()) == set(range(1, 25)) - {5, 6}
    assert set(data.public.extra["identity"].tolist()) <= set(range(25, 41))


def test_celeba_attribute_is_the_label_everywhere(tmp_path, monkeypatch):
    case = CASES["celeba folder"]
    built(case.name, case.layout, tmp_path / "root", monkeypatch)
    data = prepare(case.name, case.options, tmp_path / "root", tmp_path / "a")
    for part in PARTS:
        found = getattr(data, part)
        np.testing.assert_array_equal(found.y, found.extra["identity"] % 2 == 0)
        np.testing.assert_array_equal(found.extra["attributes"][:, 1], found.extra["identity"] % 3 == 0)
    with pytest.raises(UserError, match="did you mean 'Even'"):
        prepare("celeba", {"private_people": 3, "attribute": "Evn"}, tmp_path / "root", tmp_path / "b")


def test_jpeg_release_has_its_own_name(tmp_path, monkeypatch):
    built("cifar10", make.cifar10_jpeg, tmp_path / "root", monkeypatch)
    data = prepare("cifar10", {}, tmp_path / "root", tmp_path / "a")
    assert (data.name, data.meta["title"]) == ("cifar10", "CIFAR-10 (JPEG)")


def test_ffhq_picture_that_is_not_the_listed_one(tmp_path, monkeypatch):
    built("ffhq", make.ffhq, tmp_path / "root", monkeypatch)
    bad = tmp_path / "root" / "ffhq" / "thumbnails128x128" / "01000" / "01001.png"
    make.save(bad, make.picture("PNG", 3, np.random.default_rng(0), height=128, width=128))
    with pytest.raises(UserError, match=r"01001\.png: md5"):
        prepare("ffhq", {"check_md5": True}, tmp_path / "root", tmp_path / "a")
    assert not (tmp_path / "a").exists()


OFFICIAL = {case.name: case for case in reversed(CASES.values())}


@pytest.mark.parametrize("name", OFFICIAL)
def test_small_files_are_refused_where_checksums_are_known(name, tmp_path):
    """Without the exchange of checksums none of these layouts passes for the real thing."""
    case = OFFICIAL[name]
    case.layout(tmp_path / name, np.random.default_rng(7))
    if name in ("att_faces", "facescrub", "ffhq"):
        assert not any(f.sha256 or f.md5 or f.content_sha256 for f in registry.get("dataset", name).card.files)
        return
    with pytest.raises(UserError, match="expected"):
        prepare(name, case.options, tmp_path, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == [name]


OWN = {n for n, m in registry.methods("dataset").items() if registry.REQUIRED in m.fields.values()}  # files of a user's
REAL = [n for n in registry.methods("dataset") if not registry.get("dataset", n).card.embedded and n not in OWN]


@pytest.mark.parametrize("name", REAL)
def test_missing_files_are_all_named_with_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.delenv(sources.ROOT_VARIABLE, raising=False)
    source = registry.get("dataset", name)()
    with pytest.raises(MissingData) as caught:
        prepare(name, {}, tmp_path, tmp_path / "out")
    text = str(caught.value)
    wanted = [path for paths in sources.releases(source).values() for path in paths[: sources.MANY]]
    assert wanted
    assert all(path in text for path in wanted)
    assert str(tmp_path / name) in text
    assert source.card.manual_steps in text
    assert set(caught.value.files) >= set(wanted)
    assert not list(tmp_path.iterdir())
    with pytest.raises(MissingData, match=sources.ROOT_VARIABLE):
        prepare(name, {}, None, tmp_path / "out")


@pytest.mark.parametrize("name", ["lfw", "cifar10", "imagenet", "celeba", "chestxray8"])
def test_damaged_archive_leaves_nothing_that_looks_whole(name, tmp_path, monkeypatch):
    """With the checksum out of the way the reader itself must notice that an archive was cut."""
    case = CASES[name]
    case.layout(tmp_path / "root" / name, np.random.default_rng(7))
    cls = registry.get("dataset", name)
    monkeypatch.setattr(cls, "card", replace(cls.card, files=tuple(File(f.path) for f in cls.card.files)))
    archives = [p for p in (tmp_path / "root" / name).iterdir() if p.suffix in (".gz", ".tgz", ".zip", ".tar")]
    path = max(archives, key=lambda p: p.stat().st_size * (p.name != "ILSVRC2012_img_train.tar"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3 // 512 * 512])
    with pytest.raises(UserError, match=r"damaged|cut off"):
        prepare(name, case.options, tmp_path / "root", tmp_path / "out" / "set")
    assert not list((tmp_path / "out").iterdir())


