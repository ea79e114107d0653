"""Files on the Hugging Face Hub: `hf://[datasets/]<owner>/<name>[@<revision>]/<path>`.

huggingface_hub does the transfer: it continues after a cut, keys a part by its ETag, reads
HF_TOKEN, HF_ENDPOINT and the proxies from the environment, and sends the token to the Hub alone.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brewline.core.errors import BrewlineError, FailureKind, outages_explained
from brewline.core.files import link, remove
from brewline.download.troubles import PASSING_STATUSES
from brewline.download.version import Version


def _place(url: str) -> dict[str, Any]:
    from huggingface_hub import parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        uri = parse_hf_uri(url)
    except HfUriError as error:
        raise BrewlineError(f"{url} names no file on the Hub: {error}", "settings") from None
    if uri.type not in ("model", "dataset", "space") or not uri.path_in_repo:
        raise BrewlineError(f"{url} names no file in a repository on the Hub", "settings")
    return {
        "repo_id": uri.id,
        "repo_type": uri.type,
        "revision": uri.revision,
        "filename": uri.path_in_repo,
    }


def is_repository(url: str) -> bool:
    """Whether a URL names a whole repository: `hf://<owner>/<name>[@<revision>]`."""
    return re.fullmatch(r"hf://[^/@]+/[^/@]+(@[^/]+)?", url) is not None


def file_names(url: str) -> list[str]:
    """The names of all files of a repository of a model; see `is_repository`.

    Raises:
        BrewlineError: there is no such repository, it is not open to this token, or the Hub is
            away.
    """
    from huggingface_hub import HfApi, parse_hf_uri

    uri = parse_hf_uri(url)
    with _explained(url):
        return sorted(HfApi().list_repo_files(uri.id, revision=uri.revision))


@contextmanager
def _explained(url: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    with outages_explained(url):
        try:
            yield
        except GatedRepoError:
            raise BrewlineError(
                f"{url}: accept the terms on the repository's page, and set HF_TOKEN", "settings"
            ) from None
        except RepositoryNotFoundError:
            raise BrewlineError(
                f"{url}: no such repository, or it is private and HF_TOKEN does not open it",
                "settings",
            ) from None
        # Raised for want of a connection; a subclass of the next one.
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            raise BrewlineError(f"{url}: the repository has no such file") from None
        except HfHubHTTPError as error:
            status = error.response.status_code
            kind: FailureKind = "network" if status in PASSING_STATUSES else "data"
            raise BrewlineError(f"{url}: HTTP {status}", kind) from None


def look(url: str) -> Version:
    """Asks for the size and the version of a file, without its content.

    Raises:
        BrewlineError: there is no such file, it is not open to this token, or the Hub is away.
    """
    version, _ = _look(url)
    return version


def _look(url: str) -> tuple[Version, str | None]:
    """The version, and the commit that has it."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with _explained(url):
        facts = get_hf_file_metadata(hf_hub_url(**_place(url)), timeout=30, retry_on_errors=True)
    # The ETag of a large file is its SHA-256, of a small one its git hash.
    sha256 = facts.etag if facts.etag and len(facts.etag) == 64 else None
    return Version(url=url, size=facts.size, tag=facts.etag, sha256=sha256), facts.commit_hash


def bring(url: str, part: Path) -> Version:
    """Makes `part` the file at `url`, going on from what is there of the same version.

    Raises:
        BrewlineError: see `look`.
    """
    from huggingface_hub import hf_hub_download

    version, commit = _look(url)
    # From that commit, whatever the branch points to by the time that the bytes come.
    place = {**_place(url), "revision": commit}
    with _explained(url):
        arrived = Path(hf_hub_download(**place, local_dir=part.with_name("hub")))
    # The library knows its own file by its name; under another one it would be fetched again.
    remove(part)
    link(arrived, part)
    return version
