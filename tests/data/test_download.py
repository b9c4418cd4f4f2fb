"""Downloads from a local server: verified, resumed where they stopped, never implied."""

import hashlib
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from inversionbench.core.errors import UserError
from inversionbench.data import _download, sources
from inversionbench.data.base import Card, DatasetSource, File

DATA = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server():
    """A server of one file; `asked`: the Range headers; `cut`: bytes after which it hangs up; `ranges`: whether
    it knows Range."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            box.asked.append(self.headers.get("Range"))
            start = 0
            if self.headers.get("Range") and box.ranges:
                start = int(self.headers["Range"].split("=")[1].rstrip("-"))
            if start >= len(DATA) or self.path == "/none":
                self.send_error(416 if start else 404)
                return
            body = DATA[start:] + box.more
            self.send_response(206 if start else 200)
            if box.length:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: box.cut])

        def log_message(self, *_):
            pass

    class Box:
        cut, ranges, length, more = None, True, True, b""

    box = Box()
    box.asked = []
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    box.url = f"http://127.0.0.1:{http.server_port}/file"
    yield box
    http.shutdown()
    http.server_close()
    thread.join()


def declared(server, **change):
    values = {"sha256": SHA256, "size": len(DATA), "url": server.url}
    return File("file.bin", **{**values, **change})


def test_whole(server, tmp_path):
    path = _download.get("d", declared(server), tmp_path / "sub" / "file.bin")
    assert path.read_bytes() == DATA
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    assert server.asked == [None]


@pytest.mark.parametrize("length", [True, False])
def test_cut_download_is_continued(server, tmp_path, length):
    server.cut, server.length = 300_000, length
    path = tmp_path / "file.bin"
    if length:
        with pytest.raises(UserError, match=r"ended after 300000 of 1024000 bytes.*Run again to continue"):
            _download.get("d", declared(server), path)
    else:  # without a length only size and checksum tell; nothing that looks whole may stay
        with pytest.raises(UserError, match="has 300000 bytes, expected 1024000"):
            _download.get("d", declared(server), path)
    assert not path.exists()
    server.cut = None
    _download.get("d", declared(server), path)
    assert path.read_bytes() == DATA
    assert server.asked == [None, "bytes=300000-" if length else None]


def test_server_without_ranges_starts_again(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(DATA[:1000])
    server.ranges = False
    assert _download.get("d", declared(server), tmp_path / "file.bin").read_bytes() == DATA


def test_part_that_is_already_whole(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(DATA)
    _download.get("d", declared(server), tmp_path / "file.bin")
    assert server.asked == []
    (tmp_path / "other.part").write_bytes(DATA)  # size not declared: the server says there is nothing more
    _download.get("d", declared(server, size=None), tmp_path / "other")
    assert server.asked == [f"bytes={len(DATA)}-"]


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    for change in ({"sha256": "0" * 64}, {"sha256": None, "md5": "0" * 32}):
        with pytest.raises(UserError, match=r"(sha256|md5) is .*, expected 0000"):
            _download.get("d", declared(server, **change), tmp_path / "file.bin")
        assert list(tmp_path.iterdir()) == []


def test_part_of_another_file_is_found_out_and_not_kept(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * 1000)
    with pytest.raises(UserError, match="sha256"):
        _download.get("d", declared(server), tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [True, False])
def test_server_that_sends_more_is_stopped(server, tmp_path, length):
    server.more, server.length = b"x" * 10, length
    with pytest.raises(UserError, match="expected 1024000"):
        _download.get("d", declared(server), tmp_path / "file.bin")
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_a_declared_size_has_a_limit_too(server, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CONTENT_LIMIT", 500_000)
    for change in ({"size": None}, {"sha256": None, "content_sha256": SHA256}):
        with pytest.raises(UserError, match="expected 500000 at most"):
            _download.get("d", declared(server, **change), tmp_path / "file.bin")
        assert list(tmp_path.iterdir()) == []


def test_nothing_there(server, tmp_path):
    with pytest.raises(UserError, match="404"):
        _download.get("d", declared(server, url=server.url.replace("file", "none")), tmp_path / "file.bin")
    with pytest.raises(UserError, match="could not be read"):
        _download.get("d", declared(server, url="http://127.0.0.1:1/file"), tmp_path / "file.bin")


@dataclass(frozen=True)
class Set(DatasetSource):
    release: str = "auto"

    def needs(self):
        return {"form": ("form.bin",), "plain": ("file.bin",), "unchecked": ("any.bin",)}


def with_card(server):
    files = (File("form.bin", sha256=SHA256), declared(server), File("any.bin", url=server.url))
    Set.card = Card("Set", "image", "here", "none", files=files, manual_steps="ask the owner")
    return Set


def test_only_on_request_and_only_what_may_be_fetched(server, tmp_path):
    source = with_card(server)()
    with pytest.raises(sources.MissingData, match="ask the owner"):
        sources.find(source, "set", tmp_path, download=False, progress=False)
    assert server.asked == []
    found = sources.find(source, "set", tmp_path, download=True, progress=False)
    assert found.release == "plain"
    assert [p.name for p in (tmp_path / "set").iterdir()] == ["file.bin"]
    sources.verify(found)


@pytest.mark.parametrize("release", ["form", "unchecked"])
def test_no_download_without_url_or_checksum(server, tmp_path, release):
    with pytest.raises(sources.MissingData, match="ask the owner"):
        sources.find(with_card(server)(release), "set", tmp_path, download=True, progress=False)
    assert server.asked == []
