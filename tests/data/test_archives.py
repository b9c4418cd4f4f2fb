"""Hostile and damaged archives are refused with a reason, and nothing is written anywhere."""

import gzip
import io
import stat
import tarfile
import zipfile
import zlib

import pytest

from inversionbench.core.errors import UserError
from inversionbench.data import _archives


def tar(path, entries, mode="w:gz", end=True):
    """entries: (name, bytes) or a TarInfo."""
    with tarfile.open(path, mode) as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
            else:
                info = tarfile.TarInfo(entry[0])
                info.size = len(entry[1])
                archive.addfile(info, io.BytesIO(entry[1]))
    return path


def zipped(path, entries):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def read(path, **limits):
    return {name: get() for name, get in _archives.members(path, _archives.Limits(**limits))}


GOOD = [("a/1.txt", b"one"), ("a/2.txt", b"two" * 700)]


@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_tar_is_read(tmp_path, mode):
    assert read(tar(tmp_path / "t", GOOD, mode)) == dict(GOOD)
    assert _archives.names(tmp_path / "t") == ["a/1.txt", "a/2.txt"]
    assert _archives.member(tmp_path / "t", "a/2.txt") == b"two" * 700


def test_zip_is_read_without_side_files(tmp_path):
    junk = [("__MACOSX/a/._1.txt", b"x"), ("a/.DS_Store", b"x"), ("a/._2.txt", b"x"), ("a/Thumbs.db", b"x")]
    assert read(zipped(tmp_path / "z", [*GOOD, *junk])) == dict(GOOD)


NAMES = ["../out", "a/../../out", "/etc/out", "C:/out", "a\\..\\out", "..", "//host/out"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_leave_the_archive(tmp_path, name):
    with pytest.raises(UserError, match="outside"):
        read(tar(tmp_path / "t", [(name, b"x")]))
    with pytest.raises(UserError, match="outside"):
        read(zipped(tmp_path / "z", [(name, b"x")]))


KINDS = {
    "symbolic link": (tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": (tarfile.LNKTYPE, "a/1.txt"),
    "pipe": (tarfile.FIFOTYPE, ""),
    "character device": (tarfile.CHRTYPE, ""),
    "block device": (tarfile.BLKTYPE, ""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_links_and_devices_in_tars(tmp_path, kind, mode):
    with pytest.raises(UserError, match="link or a device"):
        read(tar(tmp_path / "t", [*GOOD, special("a/bad", *KINDS[kind])], mode))


def test_sparse_member(tmp_path):
    info = tarfile.TarInfo("hole")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[483:495] = b"%011o\0" % (1 << 30)  # the size that it unpacks to
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "t").write_bytes(bytes(header) + bytes(1024))
    with pytest.raises(UserError, match="link or a device"):
        read(tmp_path / "t")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_in_zips(tmp_path, kind):
    info = zipfile.ZipInfo("bad")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UserError, match="link or a device"):
        read(tmp_path / "z")


def test_encrypted_zip(tmp_path):
    path = zipped(tmp_path / "z", GOOD)
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match="encrypted"):
        read(path)


def test_too_many_members_and_twice_the_same_name(tmp_path):
    many = [(f"{i}", b"") for i in range(11)]
    assert len(read(tar(tmp_path / "t", many), members=11)) == 11
    for make in (tar, zipped):
        path = make(tmp_path / "m", many)
        with pytest.raises(UserError, match="more than 10 members"):
            read(path, members=10)
    with pytest.raises(UserError, match="two members are named"):
        read(tar(tmp_path / "t", [GOOD[0], GOOD[0]]))
    with pytest.raises(UserError, match="two members are named"):
        read(tar(tmp_path / "t", [GOOD[0], (f"./{GOOD[0][0]}", b"other")]))
    with pytest.warns(UserWarning, match="Duplicate"):
        zipped(tmp_path / "z", [GOOD[0], GOOD[0]])
    with pytest.raises(UserError, match="two members are named"):
        read(tmp_path / "z")


def test_sizes_beyond_the_limits(tmp_path):
    for make in (tar, zipped):
        path = make(tmp_path / "s", [("a", bytes(1000)), ("b", bytes(1000))])
        with pytest.raises(UserError, match="at most 999"):
            read(path, member=999)
        with pytest.raises(UserError, match="unpacks to more than 1999"):
            read(path, total=1999)


def test_bombs(tmp_path):
    zeros = bytes(1 << 25)  # 32 MiB of zeros pack 1000 times
    with pytest.raises(UserError, match="expands more than 250 times"):
        read(zipped(tmp_path / "z", [("bomb", zeros)]))
    with pytest.raises(UserError, match="expands more than 250 times"):
        read(tar(tmp_path / "t", [("bomb", zeros)]))
    many = [(f"{i}", bytes(1 << 20)) for i in range(32)]  # each below the size that is looked at
    with pytest.raises(UserError, match="expands more than 250 times"):
        read(zipped(tmp_path / "m", many))


def test_bomb_in_a_header(tmp_path):
    """A long-name header of 1 GiB is memory that a reader would fetch before it sees any member."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
    with gzip.open(tmp_path / "t", "wb") as handle:
        handle.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 16))
    with pytest.raises(UserError, match="header or member of 1073741824 bytes"):
        read(tmp_path / "t")


def test_gz_that_unpacks_to_too_much(tmp_path):
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes(1001)))
    assert len(_archives.gunzip(tmp_path / "x.gz", 1001)) == 1001
    with pytest.raises(UserError, match="more than 1000 bytes"):
        _archives.gunzip(tmp_path / "x.gz", 1000)


@pytest.mark.parametrize("make", [zipped, tar, lambda p, e: tar(p, e, "w")])
def test_any_cut_is_noticed(tmp_path, make):
    """Cut at 40 places, between members too: never a shorter list of members."""
    whole = make(tmp_path / "whole", [(f"{i}.bin", bytes(range(256)) * 2 * i) for i in range(5)]).read_bytes()
    last = whole.rstrip(b"\0") if whole[:2] not in (b"\x1f\x8b", b"PK") else whole
    for cut in range(0, len(last), max(1, len(last) // 40)):
        (tmp_path / "cut").write_bytes(whole[:cut])
        with pytest.raises(UserError, match="cut off or damaged"):
            read(tmp_path / "cut")


def test_tar_without_end_mark(tmp_path):
    whole = tar(tmp_path / "t", GOOD, "w").read_bytes()
    blocks = 512 * (2 + 1 + 5)  # two headers, 3 bytes, 2100 bytes: exactly the members
    (tmp_path / "cut").write_bytes(whole[:blocks])
    with pytest.raises(UserError, match="no end mark"):
        read(tmp_path / "cut")


def test_damage_inside(tmp_path):
    for make in (zipped, tar):
        data = bytearray(make(tmp_path / "d", [("a", bytes(range(256)) * 64)]).read_bytes())
        data[len(data) // 2] ^= 0xFF
        (tmp_path / "d").write_bytes(bytes(data))
        with pytest.raises(UserError, match="cut off or damaged"):
            read(tmp_path / "d")


def test_wrong_crc_of_gzip(tmp_path):
    plain = tar(tmp_path / "t", GOOD, "w").read_bytes()
    packed = bytearray(gzip.compress(plain))
    packed[-8:-4] = (zlib.crc32(plain) ^ 1).to_bytes(4, "little")
    (tmp_path / "t").write_bytes(bytes(packed))
    with pytest.raises(UserError, match="CRC"):
        read(tmp_path / "t")


def test_not_an_archive(tmp_path):
    (tmp_path / "t").write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match="damaged"):
        read(tmp_path / "t")


def test_member_checksum(tmp_path):
    path = zipped(tmp_path / "z", GOOD)
    with pytest.raises(UserError, match="sha256"):
        _archives.member(path, "a/1.txt", sha256="0" * 64)
    with pytest.raises(UserError, match="no member 'b'"):
        _archives.member(path, "b")


def test_nested_tars(tmp_path):
    inner = tar(tmp_path / "i", GOOD, "w").read_bytes()
    path = tar(tmp_path / "t", [("n01.tar", inner), ("n02.tar", inner)], "w")
    found = {name: get() for name, get in _archives.nested(path)}
    assert found == {f"{n}/{name}": data for n in ("n01", "n02") for name, data in GOOD}
    bad = tar(tmp_path / "b", [special("x", tarfile.SYMTYPE, "/etc")], "w").read_bytes()
    with pytest.raises(UserError, match="link or a device"):
        list(_archives.nested(tar(tmp_path / "t", [("n01.tar", bad)], "w")))
    with pytest.raises(UserError, match="damaged"):
        list(_archives.nested(tar(tmp_path / "t", [("n01.tar", inner[:700])], "w")))
