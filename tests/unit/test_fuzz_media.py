"""Whatever is done to a recording or a picture, it ends accepted, or dropped with a reason.

Mutated files are checked in worker processes, as in the stage, so that a decoder which crashes or
hangs shows as such and not as the end of the tests.
"""

import functools
import io
import os
import struct
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from sounds import FORMATS, sound
from world import tone_limits, write_facts, write_tar

from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.core.workers import Lost, Worker
from brewline.media.archives import MediaStore
from brewline.media.ogg import page_checksum
from brewline.quality.queries import Finding, check_audio, check_image
from brewline.quality.results import write_tables
from brewline.quality.verdicts import Judge
from brewline.tables.listing import Listing

LIMITS = ValidateParams(**tone_limits())

# Mutated files of a seed that are checked at once, and how often: 16,000 files in all.
BATCH = 12
NUM_BATCHES = 30
# Far above what any of these files needs, on a busy machine too.
LIMIT_S = 20.0

# What damages headers most: sizes and counts at the ends of their range.
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def image_seed(format: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((96, 80)).save(buffer, format)
    return buffer.getvalue()


AUDIO_SEEDS = {name: sound(name, 0.5) for name in FORMATS}
# Two files in one.
AUDIO_SEEDS |= {f"{name}-joined": 2 * sound(name, 0.3) for name in ("opus", "mp3", "wav")}
IMAGE_SEEDS = {name: image_seed(name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")}

Mutation = tuple[str, float, float, int]


def mend_checksums(content: bytes) -> bytes:
    """Gives damaged Ogg pages the checksum that they should have, so that they reach a decoder."""
    mended = bytearray(content)
    position = 0
    while (position := content.find(b"OggS", position)) >= 0:
        end = content.find(b"OggS", position + 4)
        end = len(content) if end < 0 else end
        if end - position >= 27:
            mended[position + 22 : position + 26] = bytes(4)
            checksum = page_checksum(bytes(mended[position:end]))
            mended[position + 22 : position + 26] = struct.pack("<I", checksum)
        position = end
    return bytes(mended)


def mutate(content: bytes, mutations: list[Mutation], early: bool) -> bytes:
    """Applies mutations; with `early`, to the first 200 bytes, where the headers are."""
    data = bytearray(content)
    for kind, where, how_much, value in mutations:
        reach = min(len(data), 200) if early else len(data)
        start = int(where * reach)
        end = min(start + 1 + int(how_much * 64), len(data))
        if kind == "cut":
            del data[start + 1 :]
        elif kind == "delete":
            del data[start:end]
        elif kind == "repeat":
            data[start:start] = data[start:end] * (1 + value % 8)
        elif kind == "noise":
            data[start:end] = np.random.default_rng(value).bytes(end - start)
        elif kind == "bit" and data:
            data[min(start, len(data) - 1)] ^= 1 << (value % 8)
        elif kind == "number":
            size = (1, 2, 4)[value % 3]
            number = EXTREMES[value % len(EXTREMES)] % (1 << (8 * size))
            data[start : start + size] = number.to_bytes(size, ("little", "big")[value // 16 % 2])
    return bytes(data)


mutation = st.tuples(
    st.sampled_from(("cut", "delete", "repeat", "noise", "bit", "number")),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 1),
    st.integers(0, 255),
)
batches = st.lists(
    st.tuples(st.lists(mutation, min_size=1, max_size=4), st.booleans(), st.booleans()),
    min_size=BATCH,
    max_size=BATCH,
)


@dataclass(frozen=True)
class ContentChecker:
    """Checks bytes in a worker."""

    limits: ValidateParams

    def __call__(self, task: tuple[str, bytes]) -> Finding:
        kind, content = task
        return (check_audio if kind == "audio" else check_image)(content, self.limits)


@dataclass(frozen=True)
class ContainerChecker:
    """Lists and reads what a container holds, in a worker, and says how that ends."""

    folder: Path

    def __call__(self, task: tuple[str, bytes]) -> str:
        suffix, content = task
        folder = self.folder / str(os.getpid())
        folder.mkdir(exist_ok=True)
        (folder / f"a{suffix}").write_bytes(content)
        try:
            store = MediaStore(folder)
            for table in store.tables():
                list(store.rows(table, ["id", "text"]))
            for name in store.names():
                store.read(name)
        except BrewlineError:
            return "a sentence"
        return "read"


Checker = Worker[tuple[str, bytes], Finding]


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    with Worker(functools.partial(ContentChecker, LIMITS), LIMIT_S) as worker:
        yield worker


def fuzz(kind: str, seed: bytes, checker: Checker) -> Counter[str]:
    """Checks a few hundred mutations of a file, and counts how they end."""
    ends: Counter[str] = Counter()

    @settings(
        max_examples=NUM_BATCHES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(batches)
    def run(batch: Any) -> None:
        contents = [mutate(seed, changes, early) for changes, early, _ in batch]
        if seed.startswith(b"OggS"):
            contents = [
                mend_checksums(content) if mend else content
                for content, (_, _, mend) in zip(contents, batch, strict=True)
            ]
        answers = list(checker.map((kind, content) for content in contents))
        assert len(answers) == len(contents)
        for answer in answers:
            if isinstance(answer, Lost):
                ends[f"decoder_{answer.how}"] += 1
            elif answer.fault is None:
                assert answer.facts
                ends["accepted"] += 1
            else:
                assert answer.fault.detail
                ends[answer.fault.reason] += 1

    run()
    return ends


@pytest.mark.parametrize("name", AUDIO_SEEDS)
def test_mutated_recordings_end_accepted_or_with_a_reason(name: str, checker: Checker) -> None:
    ends = fuzz("audio", AUDIO_SEEDS[name], checker)
    assert sum(ends.values()) >= NUM_BATCHES * BATCH
    # The mutations are neither all fatal nor all harmless.
    assert len(ends) > 2


@pytest.mark.parametrize("name", IMAGE_SEEDS)
def test_mutated_pictures_end_accepted_or_with_a_reason(name: str, checker: Checker) -> None:
    ends = fuzz("image", IMAGE_SEEDS[name], checker)
    assert sum(ends.values()) >= NUM_BATCHES * BATCH
    # A checksum in each part of a PNG lets no mutation pass.
    assert ends["bad_image"]
    assert ends["accepted"] or name == "PNG"


def parquet_seed(**options: Any) -> bytes:
    buffer = io.BytesIO()
    ids = [f"u{number}" for number in range(20)]
    media = [{"bytes": name.encode() * 9, "path": None} for name in ids]
    table = pyarrow.table({"id": ids, "text": ["one", "two"] * 10, "audio": media})
    pyarrow.parquet.write_table(table, buffer, row_group_size=10, **options)
    return buffer.getvalue()


def tar_seed(headers: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("a/é.wav", "b/" * 60 + "c.wav"):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 9, headers
            archive.addfile(member, io.BytesIO(b"some word"))
    return buffer.getvalue()


def zip_seed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a/é.wav", "b.wav", "c/"):
            archive.writestr(name, b"some words" * 9)
    return buffer.getvalue()


CONTAINER_SEEDS = {
    "dictionary.parquet": parquet_seed(),
    "prefixes.parquet": parquet_seed(
        use_dictionary=False, column_encoding={"id": "DELTA_BYTE_ARRAY", "text": "PLAIN"}
    ),
    "plain.parquet": parquet_seed(
        use_dictionary=False, data_page_version="2.0", compression="zstd"
    ),
    "comment.tar": tar_seed({"comment": "words"}),
    "sparse.tar": tar_seed({"GNU.sparse.map": "0,9", "GNU.sparse.size": "9"}),
    "a.zip": zip_seed(),
}


def mend_headers(content: bytes) -> bytes:
    """Gives the damaged headers of a tar the checksums that they should have."""
    mended = bytearray(content)
    for start in range(0, len(mended) - 511, 512):
        if mended[start + 257 : start + 262] == b"ustar":
            mended[start + 148 : start + 156] = b" " * 8
            checksum = sum(mended[start : start + 512])
            mended[start + 148 : start + 156] = f"{checksum:06o}\0 ".encode()
    return bytes(mended)


@pytest.mark.parametrize("name", CONTAINER_SEEDS)
def test_mutated_containers_are_read_or_end_in_a_sentence(name: str, tmp_path: Path) -> None:
    seed, suffix = CONTAINER_SEEDS[name], Path(name).suffix
    rng = np.random.default_rng(0)
    kinds = ("cut", "delete", "repeat", "noise", "bit", "bit", "number")
    contents = []
    for _ in range(600):
        changes = [
            (str(rng.choice(kinds)), rng.random(), rng.random() / 4, int(rng.integers(256)))
            for _ in range(rng.integers(1, 4))
        ]
        # What says where everything is stands at the end of tables and zips.
        step = 1 if suffix == ".tar" else -1
        mutated = mutate(seed[::step], changes, bool(rng.integers(2)))[::step]
        contents.append(mend_headers(mutated) if suffix == ".tar" else mutated)
    prepare = functools.partial(ContainerChecker, tmp_path)
    worker: Worker[tuple[str, bytes], str]
    with Worker(prepare, LIMIT_S) as worker:
        ends = Counter(worker.map((suffix, content) for content in contents))
    assert ends["a sentence"] > 5
    # Sparse files are refused whatever they say.
    assert ends["read"] > 5 or name == "sparse.tar"
    assert sum(ends.values()) == ends["read"] + ends["a sentence"]


def test_a_corpus_of_mutated_files_is_accounted_for(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = ("cut", "delete", "repeat", "noise", "bit", "number")
    files, listings = {}, []

    def damaged(seed: bytes) -> bytes:
        changes = [
            (str(rng.choice(kinds)), rng.random(), rng.random(), int(rng.integers(256)))
            for _ in range(2)
        ]
        return mend_checksums(mutate(seed, changes, bool(rng.integers(2))))

    for number in range(400):
        name = f"{number:03}"
        files[f"{name}.wav"] = damaged(list(AUDIO_SEEDS.values())[number % len(AUDIO_SEEDS)])
        files[f"{name}.jpg"] = damaged(list(IMAGE_SEEDS.values())[number % len(IMAGE_SEEDS)])
        listings.append(Listing(name, "train", f"{name}.wav", "1", name, f"{name}.jpg", "words"))
    write_tar(tmp_path / "raw/media.tar", files)
    good, bad = tmp_path / "good.parquet", tmp_path / "bad.parquet"
    store = MediaStore(tmp_path / "raw")
    write_facts(store, listings, tmp_path / "facts")
    write_tables(Judge(store, tmp_path / "facts", LIMITS).corpus(listings), "fuzzed", good, bad)
    accepted, dropped = pandas.read_parquet(good), pandas.read_parquet(bad)
    assert sorted([*accepted["utterance_id"], *dropped["utterance_id"]]) == [
        row.utterance_id for row in listings
    ]
    assert dropped["reason"].str.len().min() > 0
    assert len(accepted) > 20
    assert len(dropped) > 200
