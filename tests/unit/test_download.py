"""Transfers are whole and verified, or there is one clear sentence and the old file stays."""

import base64
import gzip
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import yaml
from flaky_server import HONEST_FAULTS, LIES, Content, act_as_hub, serve
from fsspec.implementations.memory import MemoryFileSystem

from brewline.config import load_params
from brewline.config.sources import FileParams, SourceParams
from brewline.core.errors import BrewlineError
from brewline.core.survey import files_at, survey
from brewline.download import corpus as corpus_module
from brewline.download import web
from brewline.download.checksums import CHECKSUMS_DIR
from brewline.download.corpus import download_corpus
from brewline.download.fetching import alone, fetch
from brewline.download.recordings import listed_recordings, stored_path
from brewline.download.troubles import shown
from brewline.download.whole import check_whole
from brewline.stages import download as stage

PROJECT = Path(__file__).parents[2]


def tar_of(**members: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


CONTENT = tar_of(a=random.Random(1).randbytes(900_000))
OTHER = tar_of(b=random.Random(2).randbytes(700_000))


@pytest.fixture(autouse=True)
def _in_a_folder_without_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(web, "_BACKOFF_S", 0)
    web._session.cache_clear()
    yield
    web._session.cache_clear()


@pytest.fixture
def content() -> Content:
    return Content({"/corpus.tar": CONTENT}, {"/corpus.tar": OTHER})


@pytest.fixture
def server(content: Content) -> Iterator[str]:
    with serve(content) as address:
        yield address


def params(url: str | Path, content: bytes | None = None, **more: Any) -> FileParams:
    return FileParams(url=str(url), sha256=sha256(content) if content else None, **more)


def source(files: dict[str, FileParams], **more: Any) -> SourceParams:
    return SourceParams.model_validate(
        {"reader": "localized_narratives", "licence": "CC BY 4.0", "files": files, **more}
    )


def sequence(*faults: str | None) -> Any:
    """These faults one after another, then none."""
    return iter([*faults, *[None] * 1000]).__next__


# One file


def test_a_path_is_copied_and_verified(tmp_path: Path) -> None:
    path, target = tmp_path / "a b", tmp_path / "target"
    path.write_bytes(CONTENT)
    for url in (path, f"file://{tmp_path}/a%20b"):
        assert fetch(params(url, CONTENT), target, "x") == sha256(CONTENT)
        assert target.read_bytes() == CONTENT


def test_a_damaged_file_is_named_with_both_hashes_and_the_old_one_stays(tmp_path: Path) -> None:
    path, target = tmp_path / "a", tmp_path / "b"
    path.write_bytes(OTHER)
    target.write_text("old")
    with pytest.raises(BrewlineError) as error:
        fetch(params(path, CONTENT), target, "x")
    for part in (str(path), sha256(CONTENT), sha256(OTHER)):
        assert part in str(error.value)
    assert target.read_text() == "old"


def test_an_unknown_scheme_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match="known are paths, file://, http://, https://, hf://"):
        fetch(params("ftp://host/x"), tmp_path / "b", "x")


def test_a_cut_transfer_goes_on_where_it_stopped(server: str, content: Content) -> None:
    content.faults = sequence("cut", "cut", "drop")
    fetch(params(f"{server}/corpus.tar", CONTENT), Path("b"), "x")
    assert Path("b").read_bytes() == CONTENT
    starts = [int(r.removeprefix("bytes=").rstrip("-")) if r else 0 for r in content.ranges()]
    assert starts == sorted(starts)
    assert starts[-1] > 0.7 * len(CONTENT)
    assert content.bytes_sent < len(CONTENT) + (1 << 17)


def test_the_next_run_goes_on_after_one_that_gave_up(server: str, content: Content) -> None:
    file = params(f"{server}/corpus.tar", CONTENT)
    content.faults = sequence("cut", *["drop"] * 100)
    with pytest.raises(BrewlineError, match="run it again to continue") as error:
        fetch(file, Path("b"), "x")
    assert error.value.kind == "network"
    assert not Path("b").exists()
    content.faults = sequence()
    fetch(file, Path("b"), "x")
    assert Path("b").read_bytes() == CONTENT
    assert content.bytes_sent < len(CONTENT) + (1 << 17)
    assert not any(path.is_file() for path in Path("work/download/x").rglob("*"))


def test_two_versions_are_never_mixed(server: str, content: Content) -> None:
    content.faults = sequence("cut", "switch")
    fetch(params(f"{server}/corpus.tar"), Path("b"), "x")
    assert Path("b").read_bytes() == OTHER


def test_a_part_of_a_version_with_the_same_name_is_fetched_again(
    server: str, content: Content
) -> None:
    content.faults = sequence("cut", "same_tag")
    fetch(params(f"{server}/corpus.tar", CONTENT), Path("b"), "x")
    assert Path("b").read_bytes() == CONTENT


def test_a_wrong_file_in_pieces_is_an_error_in_the_end(server: str, content: Content) -> None:
    content.files["/corpus.tar"] = OTHER
    content.faults = iter(["cut", None] * 100).__next__
    with pytest.raises(BrewlineError, match=sha256(OTHER)):
        fetch(params(f"{server}/corpus.tar", CONTENT), Path("b"), "x")
    assert len(content.seen) == 4


@pytest.mark.parametrize("seed", range(60))
def test_whatever_the_server_does_the_file_is_right_or_the_error_clear(
    server: str, content: Content, seed: int
) -> None:
    draw = random.Random(seed)
    # Without a hash, a lie can be told from the truth only by the form of the file.
    known = draw.random() < 0.5
    faults = [*HONEST_FAULTS, *(LIES if known else ("too_short", "wrong_file"))]
    mild = draw.random()
    content.faults = lambda: draw.choice(faults) if draw.random() > mild else None
    content.cut_at = draw.random
    file = params(f"{server}/corpus.tar", CONTENT if known else None)
    right = [CONTENT] if known else [CONTENT, OTHER]
    for _ in range(5):
        try:
            fetch(file, Path("corpus.tar"), "x")
        except BrewlineError as error:
            assert "corpus.tar" in str(error)
            assert not Path("corpus.tar").exists()
        else:
            break
    content.faults = sequence()
    if content.files["/corpus.tar"] != CONTENT and known:
        content.files = {"/corpus.tar": CONTENT}
    if not Path("corpus.tar").exists():
        fetch(file, Path("corpus.tar"), "x")
    assert Path("corpus.tar").read_bytes() in right


@pytest.mark.parametrize("fault", ["too_short", "wrong_file", "page"])
def test_a_wrong_file_is_refused_by_its_form_where_no_hash_is_known(
    server: str, content: Content, fault: str
) -> None:
    content.faults = lambda: fault
    with pytest.raises(BrewlineError):
        fetch(params(f"{server}/corpus.tar"), Path("corpus.tar"), "x")
    assert not Path("corpus.tar").exists()


def test_a_wrong_size_is_refused_before_the_content(server: str, content: Content) -> None:
    with pytest.raises(BrewlineError, match=f"has {len(CONTENT)} bytes; expected are 5"):
        fetch(params(f"{server}/corpus.tar", size=5), Path("b"), "x")


def test_a_file_without_an_end_needs_a_hash(server: str, content: Content) -> None:
    content.faults, content.cut_at = lambda: "no_length", lambda: 1.0
    with pytest.raises(BrewlineError, match=r"does not say where the file ends.*params.yaml"):
        fetch(params(f"{server}/corpus.tar"), Path("b"), "x")
    fetch(params(f"{server}/corpus.tar", CONTENT), Path("b"), "x")
    assert Path("b").read_bytes() == CONTENT


def test_what_looks_like_an_archive_must_be_whole(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a", b"x" * 5000)
    path = tmp_path / "part"
    for name, whole in {
        "a.tar": CONTENT,
        "a.zip": packed.getvalue(),
        "a.tar.gz": gzip.compress(CONTENT),
    }.items():
        path.write_bytes(whole)
        check_whole(path, name)
        for damaged in (whole[: len(whole) // 2], b"<html>", b""):
            path.write_bytes(damaged)
            with pytest.raises(BrewlineError, match=f"{name} is damaged"):
                check_whole(path, name)


# Mirrors, records, secrets


def test_mirrors_are_tried_in_order(server: str, content: Content) -> None:
    content.files["/wrong.tar"] = OTHER
    urls = [f"{server}/gone.tar", f"{server}/wrong.tar", f"{server}/corpus.tar"]
    fetch(params(urls[0], CONTENT, mirrors=urls[1:]), Path("b"), "x")
    assert Path("b").read_bytes() == CONTENT
    assert [request.path for request in content.seen] == ["/gone.tar", "/wrong.tar", "/corpus.tar"]
    with pytest.raises(BrewlineError, match="none of its 2 sources") as error:
        fetch(params(urls[0], CONTENT, mirrors=[urls[1]]), Path("b"), "x")
    assert "404" in str(error.value)
    assert sha256(OTHER) in str(error.value)
    assert error.value.kind == "data"


def test_the_hash_of_the_first_download_is_kept_and_holds(server: str, content: Content) -> None:
    file = params(f"{server}/corpus.tar?signature=secret")
    fetch(file, Path("b.tar"), "x")
    (record,) = json.loads((CHECKSUMS_DIR / "x.json").read_text()).values()
    assert record["sha256"] == sha256(CONTENT)
    assert record["size"] == len(CONTENT)
    assert record["url"] == f"{server}/corpus.tar"
    content.faults = sequence("switch")
    with pytest.raises(BrewlineError, match=r"take 'b.tar' out of checksums/x.json") as error:
        fetch(file, Path("b.tar"), "x")
    assert sha256(CONTENT) in str(error.value)
    assert sha256(OTHER) in str(error.value)
    assert Path("b.tar").read_bytes() == CONTENT


def test_a_token_goes_to_its_host_alone(
    server: str, content: Content, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(web.TOKEN_VARIABLE, "127.0.0.1=secret")
    content.redirects["/moved"] = server.replace("127.0.0.1", "localhost") + "/corpus.tar"
    fetch(params(f"{server}/moved", CONTENT), Path("b"), "x")
    assert [request.authorization for request in content.seen] == ["Bearer secret", None]
    content.seen.clear()
    fetch(params(content.redirects["/moved"], CONTENT), Path("b"), "x")
    assert [request.authorization for request in content.seen] == [None]


def test_no_secret_is_shown(server: str, content: Content) -> None:
    assert shown("https://me:word@host/a?key=1#b") == "https://host/a"
    for url in (f"{server}/gone?key=hidden", "http://127.0.0.1:9/x?key=hidden"):
        with pytest.raises(BrewlineError) as error:
            fetch(params(url), Path("b"), "x")
        assert "hidden" not in str(error.value)


def test_an_unreachable_server_is_a_network_failure() -> None:
    with pytest.raises(BrewlineError) as error:
        fetch(params("http://127.0.0.1:9/x"), Path("b"), "x")
    assert error.value.kind == "network"


def test_two_downloads_do_not_write_one_part(server: str) -> None:
    with alone(Path("work/download/x")), pytest.raises(BrewlineError) as error:
        fetch(params(f"{server}/corpus.tar"), Path("b"), "x")
    assert error.value.kind == "busy"


@pytest.mark.parametrize("fault", ["busy", "unavailable"])
def test_the_server_says_how_long_to_wait_but_not_for_ever(
    server: str, content: Content, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", waits.append)
    for asked in ("7", "86400"):
        content.faults, content.retry_after = sequence(fault), asked
        fetch(params(f"{server}/corpus.tar", CONTENT), Path("b"), "x")
    assert waits == [7, 300]


def test_what_lies_at_a_path_may_change(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    fetch(params(tmp_path / "a"), Path("b"), "x")
    (tmp_path / "a").write_bytes(OTHER)
    fetch(params(tmp_path / "a"), Path("b"), "x")
    assert Path("b").read_bytes() == OTHER
    assert not CHECKSUMS_DIR.exists()


# Other kinds of sources


def test_a_file_from_the_hub(
    server: str, content: Content, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    act_as_hub(server, content, monkeypatch, tmp_path / "cache")
    monkeypatch.setenv("HF_TOKEN", "secret")
    for revision in ("main", "0" * 40):
        content.files[f"/datasets/o/n/resolve/{revision}/a/corpus.tar"] = CONTENT
    content.faults = sequence("cut")
    fetch(params("hf://datasets/o/n/a/corpus.tar"), Path("b"), "x")
    assert Path("b").read_bytes() == CONTENT
    assert {request.authorization for request in content.seen} == {"Bearer secret"}
    with pytest.raises(BrewlineError, match="names no file"):
        fetch(params("hf://datasets/o/n"), Path("b"), "x")
    with pytest.raises(BrewlineError):
        fetch(params("hf://datasets/o/n/gone"), Path("b"), "x")


class Bucket(MemoryFileSystem):
    """What s3fs looks like from outside."""

    protocol = "s3"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("s3://", "memory://"))


def test_a_file_from_an_object_store() -> None:
    fsspec.register_implementation("s3", Bucket, clobber=True)
    store = fsspec.filesystem("s3")
    store.pipe_file("/bucket/corpus.tar", CONTENT)
    fetch(params("s3://bucket/corpus.tar", CONTENT), Path("b"), "x")
    assert Path("b").read_bytes() == CONTENT
    with pytest.raises(BrewlineError, match=r"s3://bucket/gone is not there"):
        fetch(params("s3://bucket/gone"), Path("b"), "x")


def test_an_object_that_changes_meanwhile_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("s3", Bucket, clobber=True)
    store = fsspec.filesystem("s3")
    store.pipe_file("/bucket/corpus.tar", CONTENT)
    original = Bucket.open

    def replaced(self: Bucket, *arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(Bucket, "open", original)
        self.pipe_file("/bucket/corpus.tar", OTHER)
        return io.BytesIO(CONTENT)

    monkeypatch.setattr(Bucket, "open", replaced)
    with pytest.raises(BrewlineError, match="changed while it was read") as error:
        fetch(params("s3://bucket/corpus.tar"), Path("b.tar"), "x")
    assert error.value.kind == "network"
    fetch(params("s3://bucket/corpus.tar"), Path("b.tar"), "x")
    assert Path("b.tar").read_bytes() == OTHER


# A corpus


def published(corpus: str) -> dict[str, bytes]:
    root = Path("data/raw") / corpus
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_a_corpus_is_published_when_all_of_it_is_right(server: str, content: Content) -> None:
    content.files["/b.txt"] = b"text"
    files = {
        "a/corpus.tar": params(f"{server}/corpus.tar"),
        "b.txt": params(f"{server}/b.txt", b"text"),
        "c.txt": params(f"{server}/c.txt", b"later"),
    }
    with pytest.raises(BrewlineError, match="HTTP 404"):
        download_corpus("x", source(files), 2)
    assert not Path("data").exists()
    content.files["/c.txt"] = b"later"
    sent = content.bytes_sent
    assert len(download_corpus("x", source(files), 2)) == 3
    assert published("x") == {"a/corpus.tar": CONTENT, "b.txt": b"text", "c.txt": b"later"}
    # What the first run brought is not brought again, and neither by a third one.
    assert content.bytes_sent == sent + len(b"later")
    download_corpus("x", source(files), 2)
    assert content.bytes_sent == sent + len(b"later")
    assert json.loads((CHECKSUMS_DIR / "x.json").read_text()).keys() == {"a/corpus.tar"}


def test_a_licence_has_to_be_accepted(server: str) -> None:
    files = {"corpus.tar": params(f"{server}/corpus.tar")}
    with pytest.raises(BrewlineError, match=r"CC BY 4.0.*sources.x.accept_licence: true"):
        download_corpus("x", source(files, accept_licence=False), 1)
    download_corpus("x", source(files, accept_licence=True), 1)


def test_folders_and_files_in_place_are_linked_not_copied(tmp_path: Path) -> None:
    images = tmp_path / "elsewhere/Images"
    images.mkdir(parents=True)
    (images / "1.jpg").write_bytes(b"12345")
    (images.parent / "audio.tar").write_bytes(CONTENT)
    (images.parent / "text.txt").write_bytes(b"text")
    files = {
        "Images": params(images),
        "audio.tar": params(f"file://{images.parent}/audio.tar", CONTENT, in_place=True),
        "text.txt": params(images.parent / "text.txt", b"text"),
    }
    download_corpus("x", source(files), 1)
    found = published("x")
    assert found.keys() == {"links.json", "text.txt"}
    assert json.loads(found["links.json"]) == {
        name: {"path": str(path), **survey(files_at(path))}
        for name, path in {"Images": images, "audio.tar": images.parent / "audio.tar"}.items()
    }
    (images.parent / "audio.tar").write_bytes(OTHER)
    with pytest.raises(BrewlineError, match=sha256(OTHER)):
        download_corpus("x", source(files), 1)


def run_stage(monkeypatch: pytest.MonkeyPatch, files: dict[str, FileParams], *more: str) -> None:
    write_params(files)
    monkeypatch.setattr(sys, "argv", ["download", "real", *more])
    stage.main()


def write_params(files: dict[str, FileParams], **more: Any) -> None:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    values["sources"]["real"] = {
        "reader": "localized_narratives",
        "licence": "CC BY 4.0",
        "files": {name: file.model_dump() for name, file in files.items()},
        **more,
    }
    Path("params.yaml").write_text(yaml.safe_dump(values))


def test_in_place_contradicts_another_machine() -> None:
    write_params({"a": params("http://127.0.0.1:9/x", in_place=True)})
    with pytest.raises(BrewlineError, match=r"sources.real.files.a: in_place needs a path"):
        load_params()


def test_a_dry_run_shows_what_would_come_and_fetches_nothing(
    server: str,
    content: Content,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "Images").mkdir()
    files = {
        "corpus.tar": params(f"{server}/corpus.tar"),
        "gone.tar": params(f"{server}/gone.tar"),
        "Images": params(tmp_path / "Images"),
    }
    run_stage(monkeypatch, files, "--dry-run")
    lines = capsys.readouterr().out.splitlines()
    assert "3 files, licence CC BY 4.0" in lines[0]
    assert any("corpus.tar  911.4 kB" in line and "to fetch" in line for line in lines)
    assert any("gone.tar" in line and "unknown" in line and "404" in line for line in lines)
    assert any("Images" in line and "used in place" in line for line in lines)
    assert "still to come at least 911.4 kB" in lines[-1]
    assert content.bytes_sent == 0
    assert not Path("data").exists()


def test_a_short_disk_is_one_sentence(
    server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(corpus_module.shutil, "disk_usage", lambda _: usage)
    for more in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as end:
            run_stage(monkeypatch, {"corpus.tar": params(f"{server}/corpus.tar")}, *more)
        assert end.value.code == 1
        error = capsys.readouterr().err
        assert error == (
            "error: the disk is short: 911.4 kB have still to come, and 1.0 kB are free\n"
        )
    assert not Path("data").exists()


def stage_process() -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(PROJECT / "src")}
    return subprocess.Popen(
        [sys.executable, "-m", "brewline.stages.download", "real"], env=environment
    )


def test_an_interrupted_download_ends_at_once(server: str, content: Content) -> None:
    content.bytes_per_s = 1e5
    write_params({"corpus.tar": params(f"{server}/corpus.tar", CONTENT)})
    process = stage_process()
    while content.bytes_sent < 50_000:
        time.sleep(0.01)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=5) == 130


def test_a_killed_download_goes_on(server: str, content: Content) -> None:
    big = tar_of(a=random.Random(3).randbytes(8_000_000))
    content.files = {"/corpus.tar": big}
    content.bytes_per_s = 4e6
    write_params({"corpus.tar": params(f"{server}/corpus.tar", big)})
    for share in (0.2, 0.6):
        process = stage_process()
        while content.bytes_sent < share * len(big):
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not Path("data").exists()
    content.bytes_per_s = None
    assert stage_process().wait() == 0
    assert published("real") == {"corpus.tar": big}
    assert content.bytes_sent < len(big) + 2 * (1 << 20)


# Recordings that are published one by one

NAMES = [f"coco_train/coco_train_{number}_{number % 7}.ogg" for number in range(25)]


def annotations(names: list[str]) -> bytes:
    lines = [json.dumps({"image_id": "1", "voice_recording": name}) for name in names]
    return ("\n".join(reversed(lines)) + "\n").encode()


@pytest.fixture
def narratives(server: str, content: Content) -> SourceParams:
    for name in NAMES:
        content.files[f"/voice/{name}"] = name.encode() * 100
    content.files["/a.jsonl"] = annotations([*NAMES, NAMES[3]])
    return source(
        {"coco_train_localized_narratives.jsonl": params(f"{server}/a.jsonl")},
        recordings={
            "base_url": f"{server}/voice/",
            "path_rule": "as_listed",
            "files_per_archive": 10,
            "max_failed_fraction": 0.1,
        },
    )


def archived(corpus: str = "x") -> list[tuple[str, bytes]]:
    found = []
    for path in sorted((Path("data/raw") / corpus).glob("voice-recordings-*.tar")):
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                found.append((member.name, file.read()))
    return found


def expected(names: list[str] = NAMES) -> list[tuple[str, bytes]]:
    return [(name, name.encode() * 100) for name in sorted(names)]


@pytest.mark.parametrize("seed", range(5))
def test_recordings_are_archived_in_order_whatever_the_server_does(
    content: Content, narratives: SourceParams, seed: int
) -> None:
    draw = random.Random(seed)
    faults = [fault for fault in HONEST_FAULTS if fault not in ("switch", "no_length")]
    content.faults = lambda: draw.choice(faults) if draw.random() < 0.3 else None
    for _ in range(20):
        try:
            download_corpus("x", narratives, 4)
        except BrewlineError:
            continue
        break
    record = json.loads(Path("data/raw/x/voice-recordings.json").read_text())
    kept = [name for name in NAMES if name not in record["failed"]]
    assert archived() == expected(kept)
    assert record["archived"] == len(kept)
    # Once more, without faults: what was missing comes, and the bytes are those of a clean run.
    content.faults = sequence()
    download_corpus("x", narratives, 4)
    assert archived() == expected()
    digests = [sha256(value) for value in published("x").values()]
    content.seen.clear()
    download_corpus("x", narratives, 1)
    assert [sha256(value) for value in published("x").values()] == digests
    assert not [request for request in content.seen if request.path.startswith("/voice")]


def test_a_missing_recording_is_recorded_and_tried_again_by_the_next_run(
    content: Content, narratives: SourceParams
) -> None:
    lost = content.files.pop(f"/voice/{NAMES[4]}")
    (*_, summary) = download_corpus("x", narratives, 4)
    assert summary == "recordings  24 of 25 in 3 archives"
    record = json.loads(Path("data/raw/x/voice-recordings.json").read_text())
    assert list(record["failed"]) == [NAMES[4]]
    assert "404" in record["failed"][NAMES[4]]
    content.files[f"/voice/{NAMES[4]}"] = lost
    content.seen.clear()
    download_corpus("x", narratives, 4)
    assert archived() == expected()
    fetched = [request.path for request in content.seen if request.path.startswith("/voice")]
    assert fetched == [f"/voice/{NAMES[4]}"]


def test_too_many_missing_recordings_fail_the_stage(
    content: Content, narratives: SourceParams
) -> None:
    for name in NAMES[10:14]:
        del content.files[f"/voice/{name}"]
    with pytest.raises(BrewlineError, match=r"3 of 25 recordings .* allows 2") as error:
        download_corpus("x", narratives, 1)
    assert error.value.kind == "data"


def test_an_outage_is_not_recorded_as_the_files_trouble(
    content: Content, narratives: SourceParams
) -> None:
    answers = iter([None] * 8)
    content.faults = lambda: next(answers, "unavailable")
    with pytest.raises(BrewlineError, match="503") as error:
        download_corpus("x", narratives, 2)
    assert error.value.kind == "network"
    content.faults = sequence()
    content.seen.clear()
    download_corpus("x", narratives, 2)
    assert archived() == expected()
    assert len(content.seen) < len(NAMES)


def test_a_recording_that_does_not_match_its_md5_is_fetched_again(
    content: Content, narratives: SourceParams
) -> None:
    name = NAMES[0]
    content.files = {k: v for k, v in content.files.items() if "voice" not in k or name in k}
    content.files["/a.jsonl"] = annotations([name])
    md5 = base64.b64encode(hashlib.md5(content.files[f"/voice/{name}"]).digest()).decode()
    content.faults = sequence(None, "wrong_file", None)
    download_corpus("x", narratives.model_copy(update={"recordings": None}), 1)
    content.headers["x-goog-hash"] = f"crc32c=AAAAAA==, md5={md5}"
    content.faults = sequence("wrong_file")
    download_corpus("x", narratives, 1)
    assert archived() == expected([name])


def test_killed_recordings_go_on_with_nothing_missing_and_nothing_twice(
    content: Content, narratives: SourceParams
) -> None:
    content.bytes_per_s = 30_000
    write_params(narratives.files, recordings=narratives.recordings.model_dump())  # type: ignore[union-attr]
    for count in (8, 20):
        process = stage_process()
        while len(content.seen) < count:
            time.sleep(0.01)
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    content.bytes_per_s = None
    assert stage_process().wait() == 0
    assert archived("real") == expected()
    fetched = [request.path for request in content.seen if request.path.startswith("/voice")]
    # Four workers, killed twice.
    assert len(fetched) <= len(NAMES) + 2 * 4


def test_where_a_recording_lies_follows_from_its_field() -> None:
    assert stored_path("coco_val/coco_val_1_93.ogg", "as_listed") == "coco_val/coco_val_1_93.ogg"
    assert (
        stored_path("flickr30k_train/flickr30k_train_1000092795_5.ogg", "by_image")
        == "flickr30k_train/flickr30k_train_0000001000092795_5.ogg"
    )
    with pytest.raises(BrewlineError, match="is not <split>"):
        stored_path("a.ogg", "by_image")


def test_a_listed_name_stays_in_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(annotations(["../a.ogg"]))
    with pytest.raises(BrewlineError, match="would leave its folder"):
        listed_recordings([path])
    path.write_bytes(annotations(["a.ogg"]) + b'[]\n{"voice_recording": "\xe9"}\n' + b"[" * 200_000)
    assert listed_recordings([path]) == ["a.ogg"]
    path.write_text("{}")
    with pytest.raises(BrewlineError, match="line 1 names no voice_recording"):
        listed_recordings([path])
