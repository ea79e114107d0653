"""Transfers are whole and verified, or there is one clear sentence and the old file stays."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from brewline.download import fetch
from brewline.errors import BrewlineError
from brewline.params import FileParams

CONTENT = bytes(range(256)) * 5000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content`, and cuts the connection after `cut_after` bytes while `cuts` lasts."""

    content = CONTENT
    etag = '"one"'
    cuts = 0
    cut_after = 5 << 16
    ranges: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        content = self.server.content
        wanted = self.headers.get("Range")
        self.server.ranges.append(wanted)
        start = 0
        if wanted and self.headers.get("If-Range") == self.server.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", self.server.etag)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: self.server.cut_after]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    with Server(("127.0.0.1", 0), Handler) as running:
        running.ranges = []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/corpus.tar"


def test_a_path_is_copied_and_verified(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(CONTENT)
    for name in (str(source), f"file://{source}"):
        assert fetch(FileParams(url=name, sha256=SHA256), target) == SHA256
        assert target.read_bytes() == CONTENT


def test_a_damaged_file_is_named_with_both_hashes_and_the_old_one_stays(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(CONTENT[:-1])
    target.write_text("old")
    with pytest.raises(BrewlineError) as error:
        fetch(FileParams(url=str(source), sha256=SHA256), target)
    assert str(source) in str(error.value)
    assert SHA256 in str(error.value)
    assert hashlib.sha256(CONTENT[:-1]).hexdigest() in str(error.value)
    assert target.read_text() == "old"


def test_a_missing_file_is_named_with_its_hash(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match=f"nothing is missing.*{SHA256}"):
        fetch(FileParams(url=str(tmp_path / "nothing"), sha256=SHA256), tmp_path / "b")


def test_an_unknown_scheme_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match="known are paths, file://, http:// and https://"):
        fetch(FileParams(url="ftp://host/x", sha256=None), tmp_path / "b")


def test_a_cut_transfer_continues_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cuts = 2
    source, target = FileParams(url=url(server), sha256=SHA256), tmp_path / "b"
    for _ in range(2):
        with pytest.raises(BrewlineError, match="run it again to continue") as error:
            fetch(source, target)
        assert error.value.kind == "network"
        assert not target.exists()
    fetch(source, target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=327680-", "bytes=655360-"]


def test_two_versions_are_never_mixed(server: Server, tmp_path: Path) -> None:
    server.cuts = 1
    source, target = FileParams(url=url(server), sha256=None), tmp_path / "b"
    with pytest.raises(BrewlineError):
        fetch(source, target)
    server.content, server.etag = CONTENT[::-1], '"two"'
    fetch(source, target)
    assert target.read_bytes() == CONTENT[::-1]


def test_an_unreachable_server_is_a_network_failure(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BrewlineError) as error:
        fetch(FileParams(url="http://127.0.0.1:9/x", sha256=None), tmp_path / "b")
    assert error.value.kind == "network"
