"""Folders as people have them: links, side files, odd files, pictures of other depth or size, missing pictures."""

import os
from functools import partial

import numpy as np
import official_layouts as make
import pytest
from PIL import Image

from inversionbench.core.errors import UserError
from inversionbench.data import _formats, _images, _tree, sources
from inversionbench.data.base import File
from inversionbench.data.prepare import MissingData, prepare
from inversionbench.workflow.cli import main


def png(path, value=7, mode="L", size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


def test_links_are_followed_and_side_files_left_out(tmp_path):
    real = tmp_path / "elsewhere" / "b"
    png(real / "2.png")
    folder = tmp_path / "set"
    png(folder / "a" / "1.png")
    (folder / "b").symlink_to(real)
    (folder / "a" / "3.png").symlink_to(real / "2.png")
    for junk in (".DS_Store", "._1.png", ".ipynb_checkpoints/1.png", "@eaDir/1.png", "__MACOSX/1.png", "Thumbs.db"):
        png(folder / "a" / "x.png").rename(make_parent(folder / "a" / junk))
    (folder / "a" / "named_like_a.png").mkdir()
    assert [name for name, _ in _tree.walk(folder)] == ["a/1.png", "a/3.png", "b/2.png"]
    assert [p.relative_to(folder).as_posix() for p in _images.files(folder)] == ["a/1.png", "a/3.png", "b/2.png"]


def make_parent(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("kind", ["broken link", "pipe", "loop", "not UTF-8"])
def test_what_is_no_file_is_named(kind, tmp_path):
    png(tmp_path / "a" / "1.png")
    if kind == "broken link":
        (tmp_path / "a" / "2.png").symlink_to(tmp_path / "gone.png")
    elif kind == "pipe":
        os.mkfifo(tmp_path / "a" / "2.png")
    elif kind == "loop":
        (tmp_path / "a" / "b").symlink_to(tmp_path)
    else:
        os.close(os.open(os.fsencode(tmp_path) + b"/a/\xff.png", os.O_CREAT))
    with pytest.raises(UserError, match=r"broken link|folder that holds it|not UTF-8"):
        _images.files(tmp_path)


@pytest.mark.parametrize("ending", ["png", "pgm"])
def test_more_than_eight_bits_are_refused(ending, tmp_path):
    path = tmp_path / f"deep.{ending}"
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    if ending == "png":
        Image.fromarray(ramp).save(path)
    else:
        path.write_bytes(b"P5\n8 8\n65535\n" + ramp.astype(">u2").tobytes())
    with pytest.raises(UserError, match="more than 8 bits"):
        _images.decode(path.read_bytes(), str(path), 8, mode="L")


def test_pictures_of_another_size_are_refused(tmp_path):
    path = png(tmp_path / "half.png", size=(46, 56))
    with pytest.raises(UserError, match=r"46 x 56 pixels, the set has 92 x 112"):
        _images.decode(path.read_bytes(), str(path), 64, mode="L", native=(92, 112))


def att_faces(root, monkeypatch):
    make.built("att_faces", partial(make.att_faces, kind="folder"), root, monkeypatch)
    return root / "att_faces" / "att_faces"


def test_a_replaced_picture_is_seen_and_a_side_file_is_not(tmp_path, monkeypatch):
    folder = att_faces(tmp_path / "root", monkeypatch)
    first = prepare("att_faces", {}, tmp_path / "root", tmp_path / "out")
    (folder / ".DS_Store").write_bytes(b"x")
    assert prepare("att_faces", {}, tmp_path / "root", tmp_path / "out").digest == first.digest
    path = folder / "s1" / "1.pgm"
    old = path.read_bytes()
    path.write_bytes(old[:-1] + bytes([old[-1] ^ 255]))  # as many bytes
    os.utime(path, ns=(1, 1))
    second = prepare("att_faces", {}, tmp_path / "root", tmp_path / "out")
    assert second.digest != first.digest or second.meta["files"] != first.meta["files"]
    assert second.meta["files"][0]["listing_sha256"] != first.meta["files"][0]["listing_sha256"]


def test_check_writes_a_list_and_names_what_changed(tmp_path, monkeypatch, capsys):
    folder = att_faces(tmp_path / "root", monkeypatch)
    command = ["data", "check", "att_faces", "--root", str(tmp_path / "root")]
    assert main(command) == 0
    assert "first sight" in capsys.readouterr().out
    assert main(command) == 0
    assert "as in .att_faces.sha256" in capsys.readouterr().out
    (folder / "s3" / "4.pgm").write_bytes(b"other")
    assert main(command) == 2
    assert "s3/4.pgm has other content" in capsys.readouterr().err
    (folder / "s3" / "4.pgm").unlink()
    assert main(command) == 2
    assert "s3/4.pgm is missing" in capsys.readouterr().err


def test_a_folder_is_counted_unless_a_part_is_enough(tmp_path):
    png(tmp_path / "set" / "1.png")
    with pytest.raises(UserError, match="holds 1 files, expected 400"):
        sources.compare_folder(File("set", count=400), tmp_path / "set", partial=False)
    assert "1 files of 400" in sources.compare_folder(File("set", count=400), tmp_path / "set", partial=True)


def test_people_without_a_folder_around_them(tmp_path, monkeypatch):
    folder = att_faces(tmp_path / "root", monkeypatch)
    first = prepare("att_faces", {}, tmp_path / "root", tmp_path / "a")
    for person in folder.iterdir():
        person.rename(folder.parent / person.name)
    folder.rmdir()
    assert prepare("att_faces", {}, tmp_path / "root", tmp_path / "b").digest == first.digest


@pytest.mark.parametrize(("name", "place"), [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw")])
def test_layout_of_torchvision(name, place, tmp_path, monkeypatch):
    make.built(name, make.idx_set, tmp_path / "root", monkeypatch)
    (tmp_path / "other" / place).parent.mkdir(parents=True)
    (tmp_path / "root" / name).rename(tmp_path / "other" / place)
    assert len(prepare(name, {}, tmp_path / "other", tmp_path / "out").private)


def test_the_other_layouts_of_kaggle(tmp_path, monkeypatch):
    options = {"private_people": 3, "crop": 100}
    make.built("celeba", partial(make.celeba, unpacked=True), tmp_path / "root", monkeypatch)
    first = prepare("celeba", options, tmp_path / "root", tmp_path / "a")
    pictures = tmp_path / "root" / "celeba" / "img_align_celeba"
    pictures.rename(pictures.with_name("inner"))
    pictures.mkdir()
    pictures.with_name("inner").rename(pictures / "img_align_celeba")
    assert prepare("celeba", options, tmp_path / "root", tmp_path / "b").digest == first.digest
    (pictures / "img_align_celeba" / "000002.jpg").unlink()
    with pytest.raises(UserError, match=r"first img_align_celeba/000002\.jpg"):
        prepare("celeba", options, tmp_path / "root", tmp_path / "c")
    kept = prepare("celeba", {**options, "partial": True}, tmp_path / "root", tmp_path / "d")
    assert kept.meta["partial"] == "19 of the 20 pictures of the table are there"


def test_tilde_and_mark_of_excel(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv(sources.ROOT_VARIABLE, "~/real")
    assert sources.data_root(None) == tmp_path / "real"
    assert _formats.text(b"\xef\xbb\xbfa,b", "t.csv") == "a,b"
    with pytest.raises(UserError, match="damaged table"):
        _formats.table('a,b\n1,"2\n3,4\n', "t.csv", ("a",), ",")


def test_missing_data_names_few_of_many_files(tmp_path):
    with pytest.raises(MissingData) as caught:
        prepare("att_faces", {}, tmp_path, tmp_path / "out")
    assert "and 27 more" in str(caught.value)
