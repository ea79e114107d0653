"""An S3 service on loopback: objects with ETags, ranges and listings, and what can go wrong.

What S3 answers stands in docs.aws.amazon.com/AmazonS3/latest/API: HeadObject, GetObject,
ListObjectsV2 and the error responses.
"""

import functools
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCESS_KEY, SECRET_KEY = "AKIATHEONEANDONLY", "a-secret-that-nobody-may-see"
BUCKET = "corpora"
# Fewer than S3's 1,000, so that a small listing has several pages.
PAGE = 3


@dataclass
class Service:
    """What lies in the bucket, by key, and how the service behaves."""

    objects: dict[str, bytes] = field(default_factory=dict)
    # Asked at every request for the content of an object: "cut", "drop", "unavailable", "late" (by
    # three seconds) or none.
    faults: Callable[[], str | None] = lambda: None
    # Every request, as method, key and range.
    seen: list[tuple[str, str, str | None]] = field(default_factory=list)

    def gets(self, key: str) -> list[str | None]:
        """The ranges in which the content of an object was asked for."""
        return [range_ for method, path, range_ in self.seen if (method, path) == ("GET", key)]


@functools.lru_cache(maxsize=64)
def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    service: Service

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        service = self.server.service
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        range_ = self.headers.get("Range")
        service.seen.append((self.command, key, range_))
        if f"Credential={ACCESS_KEY}/" not in self.headers.get("Authorization", ""):
            self._error(403, "AccessDenied")
        elif bucket != BUCKET:
            self._error(404, "NoSuchBucket")
        elif not key:
            self._list(parse_qs(parts.query))
        elif key not in service.objects:
            self._error(404, "NoSuchKey")
        elif self.headers.get("If-Match", etag(service.objects[key])) != etag(service.objects[key]):
            self._error(412, "PreconditionFailed")
        else:
            fault = service.faults() if self.command == "GET" else None
            self._object(service.objects[key], range_, fault)

    def _object(self, content: bytes, range_: str | None, fault: str | None) -> None:
        if fault == "late":
            time.sleep(3)
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "unavailable":
            self._error(503, "ServiceUnavailable")
            return
        headers = {"ETag": etag(content), "Last-Modified": "Wed, 21 Oct 2026 07:28:00 GMT"}
        status, body = 200, content
        if range_:
            start, end = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", range_).groups())  # type: ignore[union-attr]
            status, body = 206, content[start : end + 1]
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(content)}"
        self._send(status, headers, body, len(body) // 2 if fault == "cut" else len(body))

    def _list(self, query: dict[str, list[str]]) -> None:
        prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
        after = query.get("continuation-token", [""])[0]
        keys, folders = [], set()
        for key in sorted(self.server.service.objects):
            head, found, _ = key.removeprefix(prefix).partition(delimiter or "\0")
            if key.startswith(prefix) and found:
                folders.add(prefix + head + delimiter)
            elif key.startswith(prefix) and key > after:
                keys.append(key)
        entries = "".join(
            f"<Contents><Key>{escape(key)}</Key><ETag>{escape(etag(content))}</ETag>"
            f"<Size>{len(content)}</Size><LastModified>2026-10-21T07:28:00.000Z</LastModified>"
            "</Contents>"
            for key in keys[:PAGE]
            for content in [self.server.service.objects[key]]
        )
        entries += "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        )
        more = ""
        if len(keys) > PAGE:
            last = escape(keys[PAGE - 1])
            more = f"<NextContinuationToken>{last}</NextContinuationToken>"
        body = (
            f"<ListBucketResult><IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
            f"{more}{entries}</ListBucketResult>"
        ).encode()
        self._send(200, {"Content-Type": "application/xml"}, body, len(body))

    def _error(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code><Message>{code}, it says</Message></Error>".encode()
        self._send(status, {"Content-Type": "application/xml"}, body, len(body))

    def _send(self, status: int, headers: dict[str, str], body: bytes, num_sent: int) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:num_sent])
        self.close_connection = num_sent < len(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@contextmanager
def serve(service: Service) -> Iterator[str]:
    """Runs the service in the background; yields its address."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.service = service
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
