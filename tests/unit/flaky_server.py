"""An HTTP server on loopback with every fault that a download has to survive.

A fault is the name of one answer; `faults` is asked for one at every request, so that a test sets
a sequence, or draws it from a seed.
"""

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

# Answers that betray themselves: by their length, form, status, or by the tag of their version.
HONEST_FAULTS = (
    "cut",
    "drop",
    "too_long",
    "switch",
    "busy",
    "unavailable",
    "page",
    "wrong_rest",
    "no_length",
    "unsatisfiable",
)
# Answers that only a hash or a size given beforehand tells from the right ones.
LIES = ("too_short", "wrong_file", "same_tag")


@dataclass
class Seen:
    """A request as it came."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Content:
    """What the server has, and how it behaves."""

    files: dict[str, bytes] = field(default_factory=dict)
    # Another version of every file, which the fault `switch` swaps in.
    others: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    faults: Callable[[], str | None] = lambda: None
    # Where in the body `cut` stops, as a share.
    cut_at: Callable[[], float] = lambda: 0.5
    retry_after: str = "0"
    bytes_per_s: float | None = None
    seen: list[Seen] = field(default_factory=list)
    bytes_sent: int = 0

    def ranges(self) -> list[str | None]:
        return [request.range for request in self.seen if request.method == "GET"]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    content: Content

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_HEAD(self) -> None:
        self._answer(None)

    def do_GET(self) -> None:
        self._answer(self.server.content.faults())

    def _answer(self, fault: str | None) -> None:
        content = self.server.content
        range_ = self.headers.get("Range")
        content.seen.append(
            Seen(self.command, self.path, range_, self.headers.get("Authorization"))
        )
        path = self.path.partition("?")[0]
        if path in content.redirects:
            self._status(302, {"Location": content.redirects[path], "Content-Length": "0"})
        elif fault == "drop":
            self.close_connection = True
        elif fault in ("busy", "unavailable"):
            status = 429 if fault == "busy" else 503
            self._status(status, {"Retry-After": content.retry_after, "Content-Length": "0"})
        elif fault == "unsatisfiable":
            self._status(416, {"Content-Length": "0"})
        elif path not in content.files:
            self._status(404, {"Content-Length": "0"})
        elif fault == "page":
            self._status(200, {"Content-Type": "text/html", "Content-Length": "6"}, b"<html>")
        else:
            self._file(path, fault, range_)

    def _file(self, path: str, fault: str | None, range_: str | None) -> None:
        content = self.server.content
        if fault == "switch":
            content.files, content.others = content.others, content.files
        body = content.files[path]
        etag = f'"{hashlib.md5(body).hexdigest()}"'
        if fault in ("wrong_file", "same_tag"):
            body = body[::-1]
        start = 0
        honest = self.headers.get("If-Range") == etag
        if range_ and (honest or fault == "wrong_rest"):
            start = int(re.fullmatch(r"bytes=(\d+)-", range_)[1])  # type: ignore[index]
        headers = {"ETag": etag, "Content-Type": "application/octet-stream"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
            if fault == "wrong_rest":
                headers["Content-Range"] = f"bytes {start + 7}-{len(body) - 1}/{len(body)}"
        rest = body[start:]
        length = {"too_long": len(rest) + 1000, "too_short": len(rest) // 2}.get(
            fault or "", len(rest)
        )
        if fault == "no_length":
            self.close_connection = True
        else:
            headers["Content-Length"] = str(length)
        if fault in ("cut", "no_length"):
            rest = rest[: int(len(rest) * content.cut_at())]
        self._status(206 if start else 200, headers | content.headers, rest[:length])
        if len(rest) != length:
            self.close_connection = True

    def _status(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        content = self.server.content
        for at in range(0, len(body), 1 << 14):
            piece = body[at : at + (1 << 14)]
            self.wfile.write(piece)
            content.bytes_sent += len(piece)
            if content.bytes_per_s:
                time.sleep(len(piece) / content.bytes_per_s)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serve(content: Content) -> Iterator[str]:
    """Runs the server in the background; yields its address, without a slash at the end."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.content = content
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def act_as_hub(
    address: str, content: Content, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """Has huggingface_hub take the server for the Hub, at one commit, with a cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    content.headers["X-Repo-Commit"] = "0" * 40


def publish_repository(content: Content, name: str, revision: str, folder: Path) -> None:
    """Has the server hold a folder as a repository of the Hub."""
    paths = sorted(folder.iterdir())
    for path in paths:
        for one in (revision, "0" * 40):
            content.files[f"/{name}/resolve/{one}/{path.name}"] = path.read_bytes()
    listed = [
        {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": "0"}
        for path in paths
    ]
    content.files[f"/api/models/{name}/tree/{revision}"] = json.dumps(listed).encode()
