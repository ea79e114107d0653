"""Archives in an object store, read where they lie, against an S3 service on loopback."""

import gzip
import io
import itertools
import json
import logging
import multiprocessing
import os
import random
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import fsspec
import local_s3
import pyarrow
import pyarrow.parquet
import pytest
import s3fs
import yaml
from local_s3 import ACCESS_KEY, BUCKET, SECRET_KEY, Service
from world import encode_audio, make_flickr8k, tone, tone_limits, write_tar

from brewline.config import load_params
from brewline.config.sources import FileParams, SourceParams
from brewline.core.engine import Processes
from brewline.core.errors import BrewlineError
from brewline.core.files import fingerprint, sha256_tree, stamps
from brewline.download.corpus import download_corpus, make_plan
from brewline.media import objects, tars
from brewline.media.archives import MediaStore
from brewline.media.containers import PlacedFile
from brewline.media.file_runs import PlacedFiles
from brewline.media.objects import StoredObject, list_below, look
from brewline.pages.players import Players
from brewline.quality.inspection import Inspector, MediaTask, inspect_files, join_runs, list_files
from brewline.stages import download, inspect
from brewline.tables.listing import Listing
from brewline.tables.parquet import read_table

PROJECT = Path(__file__).parents[2]
ROOT = f"s3://{BUCKET}/"
RAW = Path("data/raw/x")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The service; we are in an empty folder, with its address and keys in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    settings = {
        "ACCESS_KEY_ID": ACCESS_KEY,
        "SECRET_ACCESS_KEY": SECRET_KEY,
        "DEFAULT_REGION": "us-east-1",
        "CONFIG_FILE": "none",
        "SHARED_CREDENTIALS_FILE": "none",
        "EC2_METADATA_DISABLED": "true",
        # An outage that lasts is not waited for; see `patiently`.
        "MAX_ATTEMPTS": "1",
    }
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    service = Service()
    with local_s3.serve(service) as address:
        for name, value in (settings | {"ENDPOINT_URL": address}).items():
            monkeypatch.setenv(f"AWS_{name}", value)
        # Other tests put something else in its place.
        fsspec.register_implementation("s3", s3fs.S3FileSystem, clobber=True)
        forget()
        yield service


def patiently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the packages try again as often as they do for everybody."""
    monkeypatch.delenv("AWS_MAX_ATTEMPTS")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 5)
    forget()


def forget() -> None:
    """Forgets what this process has read, and with which keys."""
    objects._blocks_of.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()


def source(files: dict[str, dict[str, Any]], **more: Any) -> SourceParams:
    values = {"reader": "folder", "licence": "mine", "index": "index.csv", **more}
    return SourceParams.model_validate(
        {**values, "files": {name: {"sha256": None, **file} for name, file in files.items()}}
    )


def publish(service: Service, folder: Path) -> SourceParams:
    """Puts the files of a folder into the bucket; what is below `below/` is named by a prefix."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    service.objects = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    files = {
        key: {"url": ROOT + key, "in_place": True}
        for key in service.objects
        if not key.startswith("below/")
    }
    if len(files) < len(service.objects):
        files["below"] = {"url": f"{ROOT}below/"}
    return source(files)


def write_targz(path: Path, files: dict[str, bytes]) -> None:
    write_tar(path, files)
    path.write_bytes(gzip.compress(path.read_bytes()))


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def write_table(path: Path, files: dict[str, bytes]) -> None:
    rows = [{"bytes": content, "path": None} for content in files.values()]
    table = pyarrow.table({"id": list(files), "audio": rows, "text": list(files)})
    pyarrow.parquet.write_table(table, path, row_group_size=2)


WRITERS = {
    "a.tar": write_tar,
    "a.tar.gz": write_targz,
    "a.zip": write_zip,
    "a.parquet": write_table,
}


def noise(prefix: str, count: int = 5, size: int = 100_000) -> dict[str, bytes]:
    draw = random.Random(prefix)
    return {f"{prefix}{number}": draw.randbytes(size + number) for number in range(count)}


@pytest.fixture
def world(service: Service) -> SourceParams:
    """A corpus with one of each container in the bucket; `local/` has the same files."""
    folder = Path("local")
    (folder / "below/deep").mkdir(parents=True)
    for name, write in WRITERS.items():
        write(folder / name, noise(name.replace(".", "-")))
    write_tar(folder / "below/b.tar", noise("inner"))
    (folder / "below/deep/größe.txt").write_text("loose, and below a prefix")
    (folder / "below/empty.wav").write_bytes(b"")
    (folder / "index.csv").write_text("audio,split\n")
    return publish(service, folder)


def contents(store: MediaStore) -> dict[str, bytes]:
    return {name: store.read(name) for name in store.names()}


# Reading


def test_a_bucket_is_read_as_a_folder_is(service: Service, world: SourceParams) -> None:
    lines = download_corpus("x", world, 2)
    assert f"a.tar  in place at {ROOT}a.tar" in lines
    assert [path.name for path in RAW.iterdir()] == ["links.json"]
    store, local = MediaStore(RAW), MediaStore(Path("local"))
    assert contents(store) == contents(local)
    assert len(store.names()) == 5 * 5 + 3
    assert store.in_stored_order(store.names()) == local.in_stored_order(local.names())
    assert store.tables() == ["a.parquet"]
    assert list(store.rows("a.parquet", ["text"])) == list(local.rows("a.parquet", ["text"]))
    assert list(store.lines("index.csv")) == ["audio,split\n"]
    # Nothing was written but what is kept of archives that have to be gone through.
    assert {path.name for path in Path("work/archives").rglob("*")} >= {"seek-points"}
    assert service.gets("a.tar")


def read_placed(file: PlacedFile) -> bytes:
    return PlacedFiles(RAW).read(file)


@pytest.mark.parametrize("how", ["spawn", "fork"])
def test_what_was_read_is_read_in_another_process_too(world: SourceParams, how: str) -> None:
    download_corpus("x", world, 2)
    store = MediaStore(RAW)
    expected = contents(store)
    names = ["a-tar0", "a-tar-gz3", "a-zip1", "audio/a-parquet4", "inner2", "below/deep/größe.txt"]
    with multiprocessing.get_context(how).Pool(1) as pool:
        found = pool.map_async(read_placed, [store.placed(name) for name in names]).get(60)
    assert found == [expected[name] for name in names]


@pytest.mark.slow
def test_an_archive_is_read_in_few_requests(service: Service) -> None:
    """1,000 recordings of captions in their order, of 30 MB in all."""
    files = noise("r", 1000, 30_000)
    Path("local").mkdir()
    for name, write in WRITERS.items():
        write(Path("local") / name, files)
    # With row groups as they are published.
    table = pyarrow.parquet.read_table("local/a.parquet")
    pyarrow.parquet.write_table(table, "local/a.parquet", row_group_size=100)
    most = {"a.tar": 15, "a.tar.gz": 15, "a.zip": 15, "a.parquet": 60}
    local = {path.name: path.read_bytes() for path in Path("local").iterdir()}
    for key in WRITERS:
        service.objects = {key: local[key]}
        download_corpus("x", source({key: {"url": ROOT + key, "in_place": True}}), 1)
        store = MediaStore(RAW)
        forget()
        service.seen.clear()
        for name, content in files.items():
            assert store.read(store.find(f"audio/{name}") or name) == content
        assert 4 <= len(service.seen) <= most[key], key
        sent = [range_.removeprefix("bytes=").split("-") for range_ in service.gets(key) if range_]
        num_bytes = sum(int(end) + 1 - int(start) for start, end in sent)
        assert num_bytes < 1.5 * len(local[key]), key


def test_a_tar_is_gone_through_once(
    service: Service, world: SourceParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    download_corpus("x", world, 2)
    expected = contents(MediaStore(RAW))
    forget()
    service.seen.clear()
    monkeypatch.setattr(tars, "_list_tar", None)
    store = MediaStore(RAW)
    # Whether it is still the same is asked; of its content, nothing.
    assert service.gets("a.tar") == service.gets("a.tar.gz") == []
    assert contents(store) == expected


def test_who_jumps_about_pays_for_a_block_each_time(service: Service) -> None:
    service.objects = {"big": random.Random(0).randbytes(40 << 20)}
    file = look(f"{ROOT}big").open()
    places = [37 << 20, 3 << 20, 21 << 20, 1, 30 << 20, (40 << 20) - 3]
    for place in places:
        file.seek(place)
        assert file.read(5) == service.objects["big"][place : place + 5]
    assert file.read() == b""
    ranges = [range_.removeprefix("bytes=").split("-") for range_ in service.gets("big") if range_]
    assert [int(end) + 1 - int(start) for start, end in ranges] == [256 << 10] * len(places)


def test_a_file_in_a_store_is_a_file(service: Service) -> None:
    service.objects = {"x": random.Random(1).randbytes(1_000_000)}
    file, local = look(f"{ROOT}x").open(), io.BytesIO(service.objects["x"])
    draw = random.Random(2)
    for _ in range(200):
        whence = draw.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
        offset = draw.randrange(1_000_000) * (-1 if whence == os.SEEK_END else 1)
        assert file.seek(offset, whence) == local.seek(offset, whence)
        size = draw.choice([0, 1, 5000, 400_000])
        assert file.read(size) == local.read(size)
    with pytest.raises(ValueError, match="negative"):
        file.seek(-1)


# What does not last


@pytest.mark.parametrize("key", [*WRITERS, "index.csv"])
@pytest.mark.parametrize("fault", ["cut", "drop", "unavailable"])
def test_a_request_that_fails_is_made_again(
    service: Service, world: SourceParams, fault: str, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    patiently(monkeypatch)
    service.objects = {key: service.objects[key]}
    one = world.model_copy(update={"files": {key: world.files[key]}})
    download_corpus("x", one, 1)
    faults = [fault] if key == "index.csv" else [fault, None, fault]
    service.faults = lambda: faults.pop(0) if faults else None
    found = contents(MediaStore(RAW))
    local = contents(MediaStore(Path("local")))
    assert found == {name: local[name] for name in found} != {}
    # Each of them was met, in listing or in reading.
    assert not faults


def test_an_outage_is_no_fault_of_a_recording(service: Service, world: SourceParams) -> None:
    download_corpus("x", world, 2)
    store = MediaStore(RAW)
    # What listing has brought is not there to be read.
    forget()
    inspector, players = Inspector(store, 100.0), Players(store, 1)
    service.faults = lambda: "cut"
    for name in ("a-tar0", "a-tar-gz0", "a-zip0", "audio/a-parquet0", "index.csv"):
        for read in (
            lambda: store.read(name),  # noqa: B023 - called at once
            lambda: inspector(MediaTask("recordings", name)),  # noqa: B023
            lambda: players.player(name),  # noqa: B023
        ):
            with pytest.raises(BrewlineError, match="run it again to continue") as error:
                read()
            assert error.value.kind == "network", name
    service.faults = lambda: None
    assert contents(store) == contents(MediaStore(Path("local")))


@pytest.mark.parametrize("key", ["a.tar.gz", "a.tar", "a.zip", "a.parquet"])
def test_an_outage_while_an_archive_is_listed_is_one(
    service: Service, world: SourceParams, key: str
) -> None:
    one = world.model_copy(update={"files": {key: world.files[key]}})
    download_corpus("x", one, 1)
    # After the first request, which finds that it is an archive.
    faults = itertools.chain([None], itertools.repeat("cut"))
    service.faults = lambda: next(faults)
    with pytest.raises(BrewlineError, match=r"s3://corpora/.*run it again") as error:
        contents(MediaStore(RAW))
    assert error.value.kind == "network"


def test_a_service_that_is_away_is_a_failure_of_the_network(
    world: SourceParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    forget()
    with pytest.raises(BrewlineError, match=r"s3://corpora/.*run it again to continue") as error:
        download_corpus("x", world, 1)
    assert error.value.kind == "network"


def test_a_service_that_does_not_answer_is_waited_for_so_long(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.objects = {"x": b"12345"}
    file = look(f"{ROOT}x").open()
    service.faults = lambda: "late"
    monkeypatch.setattr(objects, "PATIENCE_S", 0.5)
    with pytest.raises(BrewlineError, match=r"s3://corpora/x: no answer for 0.5 s") as error:
        file.read()
    assert error.value.kind == "network"
    service.faults = lambda: None
    assert file.read() == b"12345"


def test_a_slow_service_is_not_taken_for_a_slow_decoder(service: Service) -> None:
    service.objects = {"x.wav": encode_audio(tone(1), "WAV", "PCM_16")}
    download_corpus("x", source({"x.wav": {"url": f"{ROOT}x.wav", "in_place": True}}), 1)
    files = list_files(MediaStore(RAW), [Listing("x", "test", "x.wav", "1")], Path("files"))
    service.faults = lambda: "late"
    inspect_files(Processes(1), RAW, files, Path("rows"), 0.5, 100.0)
    join_runs(files, Path("rows"), Path("facts"))
    (row,) = read_table(Path("facts/recordings.parquet"))
    assert (row["reason"], row["num_samples"]) == (None, 9600)


# What changes


@pytest.mark.parametrize("key", ["a.tar", "below/deep/größe.txt", "below/new.wav"])
def test_an_object_that_changed_is_told_of_and_found_by_a_new_download(
    service: Service, world: SourceParams, key: str
) -> None:
    def name() -> str:
        return fingerprint(1, stamps(RAW), [])

    download_corpus("x", world, 2)
    store, before, hash_before = MediaStore(RAW), name(), sha256_tree(RAW)
    write_tar(Path("other.tar"), {"new": b"1"})
    # Of the same size, where there was one.
    other = bytes(reversed(service.objects.get(key, b"new")))
    service.objects[key] = Path("other.tar").read_bytes() if key == "a.tar" else other
    shown = f"{ROOT}{'below/' if key.startswith('below/') else key}"
    told = f"{shown} has changed since the download; run `dvc repro download --force`"
    with pytest.raises(BrewlineError) as error:
        MediaStore(RAW)
    assert (str(error.value), error.value.kind) == (told, "data")
    if key in world.files:
        objects._blocks_of.cache_clear()
        with pytest.raises(BrewlineError) as error:
            store.read("a-tar0")
        assert str(error.value) == told
    download_corpus("x", world, 2)
    assert name() != before
    # By which DVC knows it.
    assert sha256_tree(RAW) != hash_before
    assert MediaStore(RAW).read("new" if key == "a.tar" else key) in (b"1", other)


def test_an_object_that_is_replaced_while_it_is_read_is_told_of(service: Service) -> None:
    service.objects = {"x": random.Random(0).randbytes(3_000_000)}
    file = look(f"{ROOT}x").open()
    assert file.read(10) == service.objects["x"][:10]
    service.objects["x"] = random.Random(1).randbytes(3_000_000)
    with pytest.raises(BrewlineError, match="x has changed since the download"):
        file.read()
    del service.objects["x"]
    with pytest.raises(BrewlineError, match="x is not there"):
        file.read()


def test_an_object_that_is_gone_is_named(service: Service, world: SourceParams) -> None:
    download_corpus("x", world, 2)
    del service.objects["a.zip"]
    with pytest.raises(BrewlineError, match=r"s3://corpora/a.zip is not there"):
        MediaStore(RAW)


# What is hostile or damaged


def test_what_guards_local_archives_guards_these(service: Service) -> None:
    def refusal(key: str, content: bytes) -> str:
        service.objects = {key: content}
        download_corpus("x", source({key: {"url": ROOT + key, "in_place": True}}), 1)
        with pytest.raises(BrewlineError) as error:
            contents(MediaStore(RAW))
        assert error.value.kind == "data"
        return str(error.value)

    write_tar(Path("a.tar"), {"../x": b"1"})
    climbing = Path("a.tar").read_bytes()
    assert refusal("a.tar", climbing) == (
        f"{ROOT}a.tar is refused: its member '../x' would leave its folder"
    )
    assert "would leave its folder" in refusal("a.tar.gz", gzip.compress(climbing))
    with zipfile.ZipFile("a.zip", "w") as archive:
        archive.writestr("/etc/x", b"1")
    assert "would leave its folder" in refusal("a.zip", Path("a.zip").read_bytes())
    with tarfile.open("a.tar", "w") as tar:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    assert "is a link or a device" in refusal("a.tar", Path("a.tar").read_bytes())
    write_tar(Path("a.tar"), {"x": bytes(300 << 20)})
    bomb = gzip.compress(Path("a.tar").read_bytes(), 1)
    assert "swells it to more than" in refusal("a.tar.gz", bomb)
    whole = random.Random(0).randbytes(200_000)
    write_targz(Path("a.tar.gz"), {"x": whole})
    cut = Path("a.tar.gz").read_bytes()[:-100_000]
    assert "is not a whole tar" in refusal("a.tar.gz", cut)
    assert "is not a whole zip archive" in refusal("a.zip", whole)
    assert "is not a whole Parquet file" in refusal("a.parquet", whole)


@pytest.mark.parametrize("key", ["p/../../x", "p/a\\..\\..\\x"])
def test_a_key_that_would_leave_its_prefix_is_refused(service: Service, key: str) -> None:
    service.objects = {key: b"1", "p/ok": b"2"}
    download_corpus("x", source({"p": {"url": f"{ROOT}p/"}}), 1)
    with pytest.raises(BrewlineError, match="would leave its folder"):
        MediaStore(RAW)


def test_keys_are_taken_as_they_are(service: Service) -> None:
    """No key is a pattern, a chain of file systems or a query."""
    keys = ["p/a::file:///etc/passwd", "p/take#1.wav", "p/*.wav", "p/50%25.wav", "p/a b+c.wav"]
    service.objects = {key: key.encode() for key in keys} | {"p/": b"", "pq/x": b"other"}
    assert [each.url for each in list_below(f"{ROOT}p/")] == sorted(ROOT + key for key in keys)
    download_corpus("x", source({"p": {"url": f"{ROOT}p/"}}), 1)
    assert contents(MediaStore(RAW)) == {key.replace("///", "/"): key.encode() for key in keys}


# Settings


def test_what_is_missing_is_one_sentence(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.objects = {"p/x": b"1"}

    def trouble(url: str) -> tuple[str, str]:
        forget()
        with pytest.raises(BrewlineError) as error:
            download_corpus("x", source({"x": {"url": url, "in_place": True}}), 1)
        assert "\n" not in str(error.value)
        return error.value.kind, str(error.value)

    assert trouble(f"{ROOT}gone") == ("data", f"{ROOT}gone is not there")
    assert trouble(f"{ROOT}gone/") == ("data", f"{ROOT}gone/ is not there")
    assert trouble("s3://nobody/x") == ("data", "s3://nobody/x is not there")
    assert trouble(f"{ROOT}p") == (
        "settings",
        f"{ROOT}p is no object, but others lie below it; with a / at its end, they are read in "
        "place",
    )
    for module, url in (("gcsfs", "gs://b/x"), ("adlfs", "az://b/x")):
        monkeypatch.setitem(sys.modules, module, None)
        told = f"{url} needs one more package: uv pip install {module}"
        assert trouble(url) == ("settings", told)
    kind, told = trouble(f"s3://{ACCESS_KEY}:{SECRET_KEY}@{BUCKET}/p/x")
    assert kind == "settings" and "come from the environment" in told
    assert SECRET_KEY not in told and ACCESS_KEY not in told
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFSOMEBODYELSE")
    assert trouble(f"{ROOT}p/x") == (
        "settings",
        f"{ROOT}p/x is not open to these credentials: Forbidden",
    )
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert trouble(f"{ROOT}p/x") == (
        "settings",
        f"{ROOT}p/x cannot be opened with what s3fs finds in the environment: Unable to locate "
        "credentials",
    )


def test_no_credentials_are_kept_or_shown(
    world: SourceParams, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    lines = download_corpus("x", world, 2)
    contents(MediaStore(RAW))
    kept = [
        path for folder in ("data", "work") for path in Path(folder).rglob("*") if path.is_file()
    ]
    assert RAW / "links.json" in kept
    said = "".join([*lines, caplog.text, *capfd.readouterr()]).encode()
    for secret in (ACCESS_KEY.encode(), SECRET_KEY.encode()):
        assert secret not in said
        assert not [path for path in kept if secret in path.read_bytes()]


def test_size_and_hash_are_checked(service: Service) -> None:
    service.objects = {"x": b"12345", "p/y": b"1"}
    wrong, right = "0" * 64, "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"

    def fetch(**file: Any) -> None:
        download_corpus("x", source({"x": {"url": f"{ROOT}x", "in_place": True, **file}}), 1)

    fetch(sha256=right, size=5)
    assert json.loads((RAW / "links.json").read_text()) == {"x": asdict(look(f"{ROOT}x"))}
    with pytest.raises(BrewlineError, match=f"expected SHA-256 {wrong}, found {right}"):
        fetch(sha256=wrong)
    with pytest.raises(BrewlineError, match=r"s3://corpora/x has 5 bytes; expected are 6"):
        fetch(size=6)
    with pytest.raises(BrewlineError, match="of what lies below a prefix no sha256 can be checked"):
        fetch(url=f"{ROOT}p/", sha256=right)


def test_only_what_is_read_in_place_is_a_prefix(service: Service) -> None:
    service.objects = {"p/y": b"1"}
    one = source({"x": {"url": str(Path("gone").resolve()), "mirrors": [f"{ROOT}p/"]}})
    with pytest.raises(BrewlineError, match="read in place and not copied"):
        download_corpus("x", one, 1)


def test_annotations_that_name_recordings_are_copied(service: Service) -> None:
    service.objects = {"a.jsonl": b"{}"}
    recordings = {
        "base_url": "http://127.0.0.1:9/",
        "path_rule": "as_listed",
        "files_per_archive": 10,
        "max_failed_fraction": 0.0,
    }
    files = {"a.jsonl": {"url": f"{ROOT}a.jsonl", "in_place": True}}
    with pytest.raises(BrewlineError, match=r"take `in_place` from sources.x.files.a.jsonl"):
        download_corpus("x", source(files, recordings=recordings), 1)


def test_a_plan_says_what_is_read_in_place(service: Service, world: SourceParams) -> None:
    plan = {file.name: file for file in make_plan("x", world, 2).files}
    assert plan["a.tar"].state == plan["below"].state == "read in place"
    assert plan["below"].size == sum(
        len(content) for key, content in service.objects.items() if key.startswith("below/")
    )
    assert make_plan("x", world, 2).needed == 0
    service.objects.clear()
    plan = {file.name: file for file in make_plan("x", world, 2).files}
    assert plan["a.tar"].state == f"{ROOT}a.tar is not there"


def test_the_store_may_be_of_any_kind_but_has_no_mirrors(service: Service) -> None:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())

    def check(**file: Any) -> None:
        files = {"a": {"sha256": None, "in_place": True, **file}}
        values["sources"]["mine"] = source(files).model_dump(exclude_unset=True)
        Path("params.yaml").write_text(yaml.safe_dump(values))
        load_params()

    for url in ("/data/a", "file:///data/a", "s3://b/a", "gs://b/a", "az://b/a"):
        check(url=url)
        with pytest.raises(BrewlineError, match=r"in_place needs a path.*and no mirrors"):
            check(url=url, mirrors=["s3://b/c"])
    check(url="s3://b/p/", in_place=False)
    with pytest.raises(BrewlineError, match=r"in_place needs a path.*and no mirrors"):
        check(url="s3://b/p/", in_place=False, mirrors=["s3://b/c"])
    with pytest.raises(BrewlineError, match="in_place needs a path"):
        check(url="hf://datasets/a/b/c")


def test_a_copy_still_comes_from_the_same_service(service: Service) -> None:
    service.objects = {"x.txt": random.Random(0).randbytes(9_000_000)}
    download_corpus("x", source({"x.txt": {"url": f"{ROOT}x.txt"}}), 1)
    assert (RAW / "x.txt").read_bytes() == service.objects["x.txt"]


# The line


@pytest.mark.slow
def test_download_and_inspect_are_the_same_from_a_bucket(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_flickr8k(Path("published"))
    service.objects = {
        path.relative_to("published").as_posix(): path.read_bytes()
        for path in Path("published").rglob("*")
        if path.is_file()
    }
    values = yaml.safe_load((PROJECT / "params.yaml").read_text()) | {"validate": tone_limits()}
    facts = {}
    for root in (f"{Path('published').resolve()}/", ROOT):
        values["sources"]["mini-flickr8k"]["files"] = {
            key: FileParams(url=root + key, sha256=None, in_place=key.endswith(".tar")).model_dump()
            for key in service.objects
        }
        values["watched"] = [] if root == ROOT else ["mini-flickr8k"]
        Path("params.yaml").write_text(yaml.safe_dump(values))
        Path("versions.yaml").write_text((PROJECT / "versions.yaml").read_text())
        for stage in (download, inspect):
            monkeypatch.setattr(sys, "argv", ["stage", "mini-flickr8k"])
            stage.main()
        raw = {path.name for path in Path("data/raw/mini-flickr8k").iterdir()}
        assert "links.json" in raw and "Images.tar" not in raw
        facts[root] = sha256_tree(Path("data/facts/mini-flickr8k"))
    assert len(set(facts.values())) == 1
    assert service.gets("flickr_audio.tar")
    assert (
        pyarrow.parquet.read_metadata("data/facts/mini-flickr8k/recordings.parquet").num_rows == 24
    )


def test_what_is_in_links_is_an_object_again(service: Service) -> None:
    service.objects = {"x": b"1"}
    found = look(f"{ROOT}x")
    assert StoredObject(**json.loads(json.dumps(asdict(found)))) == found
