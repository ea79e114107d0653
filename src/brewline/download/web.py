"""HTTP transfers that go on after a cut, and never join two versions of a file.

Beside the file lies `version.json`, which says what the part belongs to. The rest is asked for by
`Range` and `If-Range` (RFC 9110, sections 13.1.5 and 14), and taken only if the answer names the
same version, the same total, and begins where the part ends. Proxies and certificates come from
the environment, as requests reads it (HTTPS_PROXY, NO_PROXY, REQUESTS_CA_BUNDLE, ~/.netrc).
"""

import base64
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import HTTPError, MaxRetryError, ProtocolError
from urllib3.util import Retry

from brewline.core.errors import BrewlineError, FailureKind
from brewline.core.files import remove, write_json
from brewline.download.troubles import PASSING_STATUSES, shown
from brewline.download.version import Version

TOKEN_VARIABLE = "BREWLINE_TOKEN"
# What a cut connection costs at most.
_CHUNK_BYTES = 1 << 16
# To connect, and between two pieces of an answer.
_TIMEOUT_S = (30, 60)
_TRIES = 6
_BACKOFF_S = 0.5
_LONGEST_BACKOFF_S = 60
_LONGEST_RETRY_AFTER_S = 300
_MAX_CONNECTIONS = 64
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")


def _patience() -> Retry:
    """How often, and after which waits, something is tried that may pass."""
    return Retry(
        total=_TRIES,
        backoff_factor=_BACKOFF_S,
        backoff_max=_LONGEST_BACKOFF_S,
        backoff_jitter=_BACKOFF_S,
        status_forcelist=PASSING_STATUSES,
        allowed_methods=("GET", "HEAD"),
        raise_on_status=False,
        retry_after_max=_LONGEST_RETRY_AFTER_S,
    )


@functools.cache
def _session() -> requests.Session:
    session = requests.Session()
    adapter = HTTPAdapter(pool_maxsize=_MAX_CONNECTIONS, max_retries=_patience())
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    # Threads share the session; a jar would be the one thing in it that answers change.
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    # What a proxy compresses on the way has another length and other ranges than the file.
    session.headers["Accept-Encoding"] = "identity"
    return session


class _Token(requests.auth.AuthBase):
    """Adds the bearer token; requests drops it when a redirect leads to another host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _token_for(url: str) -> _Token | None:
    """The token of `BREWLINE_TOKEN=<host>=<token>`, if `url` is on that host and encrypted."""
    host, _, token = os.environ.get(TOKEN_VARIABLE, "").partition("=")
    parts = urlsplit(url)
    private = parts.scheme == "https" or parts.hostname in ("127.0.0.1", "localhost")
    return _Token(token) if token and private and parts.hostname == host else None


def _explain(url: str, error: Exception) -> BrewlineError:
    """A failure of the connection in one sentence, without the query, which may hold a secret."""
    cause: object = error.args[0] if error.args else error
    reason = getattr(cause, "reason", None) or cause
    text = str(reason).replace(urlsplit(url).query or "\0", "...")
    # An address that makes no sense, of the file or of a proxy, will not get better.
    if isinstance(error, ValueError):
        return BrewlineError(f"{shown(url)}: {text}", "settings")
    return BrewlineError(f"{shown(url)}: {text}; run it again to continue", "network")


@contextmanager
def answer(
    url: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> Iterator[requests.Response]:
    """Yields the answer to a request, its body not yet read; 416 is an answer too.

    Raises:
        BrewlineError: of kind `network` where the server cannot be reached or has a passing
            trouble after all tries; `settings` where it wants another or a token; else `data`.
    """
    try:
        response = _session().request(
            method,
            url,
            headers=headers,
            stream=True,
            timeout=_TIMEOUT_S,
            allow_redirects=True,
            auth=_token_for(url),
        )
    except (requests.RequestException, HTTPError, OSError) as error:
        raise _explain(url, error) from None
    with response:
        status = response.status_code
        if status >= 400 and status != 416:
            kinds: dict[int, FailureKind] = {401: "settings", 403: "settings", 407: "settings"}
            kind = "network" if status in PASSING_STATUSES else kinds.get(status, "data")
            raise BrewlineError(f"{shown(url)}: HTTP {status} {response.reason}", kind)
        _refuse_wrong_kind(url, response)
        yield response


def _refuse_wrong_kind(url: str, response: requests.Response) -> None:
    suffix = PurePosixPath(urlsplit(url).path).suffix
    content_type = response.headers.get("Content-Type", "")
    if content_type.startswith("text/html") and suffix not in (".html", ".htm"):
        raise BrewlineError(
            f"{shown(url)} answers with a web page instead of the file; a login, perhaps"
        )
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding != "identity" and suffix not in (".gz", ".tgz"):
        raise BrewlineError(f"{shown(url)} sends the file in encoding {encoding!r}, unasked")


def _strong_tag(headers: Mapping[str, str]) -> str | None:
    """What identifies these bytes: a strong ETag, or a date of change well before the answer's.

    A file that changed within the second may have changed twice (RFC 9110, section 8.8.2.2).
    """
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    changed, now = headers.get("Last-Modified"), headers.get("Date")
    try:
        if changed and now:
            age_s = (parsedate_to_datetime(now) - parsedate_to_datetime(changed)).total_seconds()
            return changed if age_s > 1 else None
    except (ValueError, TypeError):
        pass
    return None


def _version(response: requests.Response) -> Version:
    headers = response.headers
    length = headers.get("Content-Length", "")
    total = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    size = int(total[2]) if total else int(length) if length.isdecimal() else None
    return Version(
        url=shown(response.url),
        size=size,
        tag=_strong_tag(headers),
        delimited=size is not None or headers.get("Transfer-Encoding") == "chunked",
    )


def look(url: str) -> Version:
    """Asks for the size and the version of a file, without its content.

    Raises:
        BrewlineError: see `answer`.
    """
    with answer(url, "HEAD") as response:
        return _version(response)


def bring(url: str, part: Path, size: int | None) -> Version:
    """Makes `part` the whole file at `url`, going on from what is there of the same version.

    Gives up after a number of tries that brought nothing; a try that brought something does not
    count, however often the connection is cut.

    Args:
        url: With scheme http or https.
        part: In a folder of its own, which holds what is known of the part.
        size: What the file must have, in bytes, if that is known.

    Raises:
        BrewlineError: see `answer`; or the server's file has another size.
    """
    tries, longest = _patience(), _size(part)
    while True:
        try:
            return _go_on(url, part, size)
        except HTTPError as error:
            if _size(part) >= longest + _CHUNK_BYTES:
                tries, longest = _patience(), _size(part)
            try:
                tries = tries.increment("GET", shown(url), error=error)
            except MaxRetryError:
                raise _explain(url, error) from None
            tries.sleep()


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _go_on(url: str, part: Path, size: int | None) -> Version:
    """One transfer: the rest of the part's version, or else the whole of the present one.

    Raises:
        HTTPError: cut, or what came does not fit; another try may help.
        BrewlineError: see `bring`.
    """
    version_file = part.with_name("version.json")
    have, known = _size(part), None
    if have and version_file.exists():
        known = Version(**json.loads(version_file.read_text()))
        if known.size == have:
            return known
    headers = {}
    if known and known.tag:
        headers = {"Range": f"bytes={have}-", "If-Range": known.tag}
    with answer(url, headers=headers) as response:
        version = _version(response)
        if size is not None and version.size not in (None, size):
            raise BrewlineError(f"{shown(url)} has {version.size} bytes; expected are {size}")
        if response.status_code == 200:
            # In this order: what is killed in between leaves no part beside a wrong version.
            remove(part)
            have = 0
        elif known and _continues(response, version, known, have):
            version = replace(known, pieces=known.pieces + 1)
        else:
            remove(part)
            raise ProtocolError(f"HTTP {response.status_code} does not continue what is here")
        write_json(version_file, asdict(version))
        _save(response, part, have, version.size)
    got = _size(part)
    if version.size is None:
        version = replace(version, size=got)
        write_json(version_file, asdict(version))
    if got > (version.size or 0):
        remove(part)
    if got != version.size:
        raise ProtocolError(f"{got} bytes came where {version.size} were announced")
    return version


def _continues(response: requests.Response, version: Version, known: Version, have: int) -> bool:
    content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return (
        response.status_code == 206
        and content_range is not None
        and int(content_range[1]) == have
        and known.size in (None, version.size)
        and version.tag == known.tag
    )


def _save(response: requests.Response, part: Path, have: int, total: int | None) -> None:
    with (
        part.open("ab" if have else "wb") as file,
        tqdm(
            desc=PurePosixPath(urlsplit(response.url).path).name,
            initial=have,
            total=total,
            unit="B",
            unit_scale=True,
            disable=None,
        ) as progress,
    ):
        # Undecoded: the bytes are wanted as they lie on the server. A short body is an error.
        for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
            file.write(chunk)
            progress.update(len(chunk))


def bring_small(url: str, limit: int) -> bytes:
    """Returns the content of a small file, checked by its length and by the MD5 that Google's
    storage (`x-goog-hash`) and others (`Content-MD5`) send along.

    Args:
        url: With scheme http or https.
        limit: Bytes that the file may have at most; it is held in memory.

    Raises:
        BrewlineError: see `answer`; or the file is larger than `limit`.
    """
    tries = _patience()
    while True:
        try:
            return _bring_small(url, limit)
        except HTTPError as error:
            try:
                tries = tries.increment("GET", shown(url), error=error)
            except MaxRetryError:
                raise _explain(url, error) from None
            tries.sleep()


def _bring_small(url: str, limit: int) -> bytes:
    with answer(url) as response:
        if response.status_code != 200:
            raise ProtocolError(f"HTTP {response.status_code} to a request for the whole file")
        content = bytearray()
        for chunk in response.raw.stream(_CHUNK_BYTES, decode_content=False):
            content += chunk
            if len(content) > limit:
                raise BrewlineError(f"{shown(url)} is larger than {limit} bytes")
        announced = _md5(response.headers)
    if announced and hashlib.md5(content, usedforsecurity=False).digest() != announced:
        raise ProtocolError("the content does not match the MD5 that came with it")
    return bytes(content)


def _md5(headers: Mapping[str, str]) -> bytes | None:
    fields = [field.strip() for field in headers.get("x-goog-hash", "").split(",")]
    encoded = [field.removeprefix("md5=") for field in fields if field.startswith("md5=")]
    value = encoded[0] if encoded else headers.get("Content-MD5")
    return base64.b64decode(value) if value else None
