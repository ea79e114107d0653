"""WebDataset shards: one sample is one utterance; encoder states travel in a parallel set.

`data/shards/<corpus>/<split>-000000.tar` holds `<key>.jpg` and `<key>.json` for every utterance;
`data/states/<corpus>/<split>-000000.tar` holds `<key>.npy` for the same keys in the same order. A
reader that needs no acoustic channel never opens the second set. A clip has `<key>.flac` and the
frames `<key>.0.jpg`, `<key>.1.jpg` ... instead of a picture, and no states.

The files of each set stand in its `index.json` with their counts and hashes: a tar that was cut
between two members reads without an error, and whoever asks whether the data are those of before
opens no shard for it.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, sha256_file, write_json
from brewline.samples.augmented import AUGMENTATIONS, member_of
from brewline.samples.utterance import (
    BadSampleError,
    Event,
    Frame,
    Utterance,
    confidence_in,
)
from brewline.tables.listing import SPLITS

INDEX_FILE = "index.json"
OnBad = Callable[[BadSampleError], None]
# Bytes; ours take 128.
_MAX_NPY_HEADER = 4096


def shard_name(split: str, number: int) -> str:
    """The file name of a shard; the same in both sets."""
    return f"{split}-{number:06d}.tar"


def plan_shards(
    splits: Iterable[str], utterances_per_shard: int
) -> Iterator[tuple[str, int, slice]]:
    """Cuts rows that are sorted by split into shards.

    Args:
        splits: The split of each row, all rows of a split together.
        utterances_per_shard: The most rows in one shard.

    Yields:
        (split, number of the shard in its split, the rows it holds).
    """
    names = list(splits)
    for split in SPLITS:
        if split not in names:
            continue
        first, size = names.index(split), names.count(split)
        for number, start in enumerate(range(0, size, utterances_per_shard)):
            stop = min(start + utterances_per_shard, size)
            yield split, number, slice(first + start, first + stop)


def write_shard(path: Path, samples: Iterable[dict[str, Any]]) -> int:
    """Writes one tar; equal samples give equal bytes.

    Args:
        path: The file to write.
        samples: WebDataset samples with `__key__` and encoded (bytes) fields.

    Returns:
        The number of samples.
    """
    # Late, here and below: it imports torch, which who only plans shards has no use for.
    import webdataset

    count = 0
    # The clock in a member's header would make the same data stale on every run.
    with webdataset.TarWriter(str(path), mtime=0.0, encoder=False) as writer:
        for sample in samples:
            writer.write(sample)
            count += 1
    return count


def holds_samples(path: Path, keys: Sequence[str]) -> bool:
    """Whether a tar that holds one member a sample is whole, and holds these in this order."""
    try:
        with tarfile.open(path, "r:") as archive:
            return [Path(name).stem for name in archive.getnames()] == list(keys)
    except tarfile.TarError:
        return False


def write_index(folder: Path, num_utterances: dict[str, int]) -> None:
    """Writes `index.json`: for every shard of `folder`, in order, its count and hash."""
    entries = [
        {"file": name, "num_utterances": count, "sha256": sha256_file(folder / name)}
        for name, count in num_utterances.items()
    ]
    write_json(folder / INDEX_FILE, entries)


def index_digest(folder: Path) -> str:
    """The SHA-256 of a folder's index, which names its shards by theirs; opens none of them.

    Raises:
        BrewlineError: the index is missing.
    """
    return sha256_file(_index(folder))


def _index(folder: Path) -> Path:
    path = folder / INDEX_FILE
    if not path.exists():
        # `data/states/<corpus>` is made by one stage, `data/shards/<corpus>` by another.
        stage = "transcribe" if folder.parent.name == "states" else "shard"
        raise BrewlineError(f"{path} is missing; run `dvc repro {stage}` or `dvc checkout`")
    return path


def encode_states(states: NDArray[np.float16]) -> bytes:
    """Packs encoder states (T, width) as the content of an `.npy` file."""
    buffer = io.BytesIO()
    np.save(buffer, states, allow_pickle=False)
    return buffer.getvalue()


def decode_states(
    sample: dict[str, Any], states_dir: Path | None, member: str = "npy"
) -> NDArray[np.float16]:
    """What `encode_states` packed into a member of a sample, where it lies.

    Nothing is copied, and nothing unpickled.

    Raises:
        BadSampleError: the sample of `states_dir` holds none, or damaged ones.
    """
    try:
        header = io.BytesIO(sample[member][:_MAX_NPY_HEADER])
        version = np.lib.format.read_magic(header)
        if version != (1, 0):
            raise ValueError(f"an .npy of version {version}")
        shape, by_column, dtype = np.lib.format.read_array_header_1_0(header)
        numbers = np.frombuffer(sample[member], dtype, offset=header.tell())
        states: NDArray[np.float16] = numbers.reshape(shape, order="F" if by_column else "C")
    except (KeyError, ValueError, EOFError, OSError) as error:
        raise BadSampleError(
            sample["__key__"],
            f"{states_dir} holds no encoder states for {sample['__key__']!r} ({error}); run "
            "`dvc checkout --force`, or `dvc repro`",
        ) from None
    return states


def shards_of(folder: Path, split: str) -> list[dict[str, Any]]:
    """The entries of a split's shards in the index of `folder`, in order.

    Raises:
        BrewlineError: the index is missing.
    """
    entries = read_json(_index(folder))
    return [entry for entry in entries if entry["file"].startswith(f"{split}-")]


def split_size(shards_dir: Path, split: str) -> int:
    """The number of utterances in a split."""
    return sum(entry["num_utterances"] for entry in shards_of(shards_dir, split))


def require_captions(shards_dir: Path, splits: Sequence[str] = SPLITS) -> None:
    """Makes sure that every utterance has a caption; reads the facts alone.

    Before a training those of test too: what cannot be measured is not worth it.

    Raises:
        BrewlineError: some have none, and how many of each split.
    """
    missing = []
    for split in splits:
        shards = [shards_dir / entry["file"] for entry in shards_of(shards_dir, split)]
        count = sum(facts["caption"] is None for path in shards for facts in _facts(path))
        if count:
            missing.append(f"{count:,} of {split_size(shards_dir, split):,} in {split}")
    if missing:
        raise BrewlineError(
            f"utterances of {shards_dir.name} have no caption: {', '.join(missing)}; use a variant "
            "with `text: asr`, or add the file that has the captions to the corpus",
            "settings",
        )


def _facts(path: Path) -> Iterator[dict[str, Any]]:
    """Yields what a shard says of each sample, and skips its pictures."""
    with explained(path), tarfile.open(path, "r:") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.endswith(".json") else None
            if content:
                yield json.load(content)


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the samples of a tar as WebDataset has them: `__key__`, and fields as bytes.

    Raises:
        BrewlineError: it is missing or damaged.
    """
    import webdataset

    # WebDataset raises another error of the same kind again, with the name of the shard.
    with explained(path):
        # No decoder of WebDataset is used: some of them execute what they find in the data.
        yield from webdataset.WebDataset(
            [str(path)], shardshuffle=False, empty_check=False, nodesplitter=None
        )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns what is wrong with a shard into one sentence."""
    if not path.exists():
        raise BrewlineError(f"shard {path} is missing; run `dvc repro` or `dvc checkout`")
    try:
        yield
    except (tarfile.TarError, EOFError, ValueError, OSError) as error:
        raise BrewlineError(
            f"{path} is no whole shard ({error}); run `dvc checkout --force`, or `dvc repro`"
        ) from None


def require_parallel(key: str, parallel: str | None, states: Path | str) -> None:
    """Makes sure that the states at the place of an utterance are its own.

    Args:
        key: Of the utterance.
        parallel: Of the states, if there are any.
        states: The tar of the states.

    Raises:
        BrewlineError: they are another's.
    """
    if key != parallel:
        raise BrewlineError(
            f"{states} does not run parallel to the shard of the same name at {key!r}; run "
            "`dvc repro` to make both again"
        )


def make_utterance(
    key: str, fields: Mapping[str, bytes], states: NDArray[np.float16] | None, shards_dir: Path
) -> Utterance:
    """An utterance from the fields of its sample, and its states.

    Raises:
        BadSampleError: its facts are damaged, or it lacks a frame of which they give the time.
    """
    try:
        facts = json.loads(fields["json"])
        if "flac" in fields:
            return _make_clip(key, facts, fields)
        image = fields.get("jpg")
        return Utterance(
            utterance_id=key,
            image_id=facts["image_id"],
            image=image,
            transcript=facts["transcript"],
            caption=facts["caption"],
            num_frames=facts["num_frames"],
            states=states,
            confidence=confidence_in(facts["transcript"], facts["avg_logprob"]),
            speaker_id=facts.get("speaker_id"),
            emotion=facts.get("emotion"),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BadSampleError(
            key,
            f"{shards_dir} has a damaged sample {key!r} ({type(error).__name__}: {error}); run "
            "`dvc checkout --force`",
        ) from None


def _make_clip(key: str, facts: dict[str, Any], fields: Mapping[str, bytes]) -> Utterance:
    return Utterance(
        utterance_id=key,
        image_id=None,
        image=None,
        transcript="",
        caption=None,
        num_frames=0,
        speaker_id=facts["speaker_id"],
        sound=fields["flac"],
        frames=tuple(
            Frame(time_s, fields[f"{number}.jpg"]) for number, time_s in enumerate(facts["times_s"])
        ),
        captions=tuple(facts["captions"]),
        events=tuple(Event(**event) for event in facts["events"]),
    )


def _augmented(sample: dict[str, Any], states_dir: Path | None) -> tuple[NDArray[np.float16], ...]:
    members = [member_of(one) for one in AUGMENTATIONS]
    if not sample.keys() & {*members}:
        return ()
    return tuple(decode_states(sample, states_dir, one) for one in members)


def refuse(bad: BadSampleError) -> None:
    """Ends the reading at the first sample that cannot be read."""
    raise bad


def _read_shard(
    shards_dir: Path, states_dir: Path | None, entry: dict[str, Any], on_bad: OnBad
) -> Iterator[Utterance]:
    states = read_samples(states_dir / entry["file"]) if states_dir else None
    count = 0
    for sample in read_samples(shards_dir / entry["file"]):
        if "json" not in sample:
            break  # cut inside a sample; the count below says so
        parallel = None
        if states is not None:
            parallel = next(states, None)
            beside = parallel["__key__"] if parallel else None
            require_parallel(sample["__key__"], beside, f"{states_dir}/{entry['file']}")
        count += 1
        try:
            one = _decode(sample, parallel, shards_dir, states_dir)
        except BadSampleError as bad:
            on_bad(bad)
        else:
            yield one
    if count != entry["num_utterances"]:
        raise BrewlineError(
            f"{shards_dir / entry['file']} holds {count} utterances instead of "
            f"{entry['num_utterances']}; it is damaged, run `dvc checkout --force`"
        )


def _decode(
    sample: dict[str, Any],
    parallel: dict[str, Any] | None,
    shards_dir: Path,
    states_dir: Path | None,
) -> Utterance:
    """An utterance of a sample and, where states were asked for, that of its states."""
    key = sample["__key__"]
    if parallel is None:
        return make_utterance(key, sample, None, shards_dir)
    one = make_utterance(key, sample, decode_states(parallel, states_dir), shards_dir)
    return replace(one, augmented=_augmented(parallel, states_dir))


def read_split(
    shards_dir: Path, split: str, states_dir: Path | None = None, on_bad: OnBad = refuse
) -> Iterator[Utterance]:
    """Yields the utterances of a split in the order of their keys.

    Args:
        shards_dir: `data/shards/<corpus>`.
        split: train, dev or test.
        states_dir: `data/states/<corpus>`, to get the encoder states too.
        on_bad: Is told of samples that cannot be read, which are left out unless it raises.

    Raises:
        BrewlineError: the split is empty; a shard is missing, cut short, or not parallel to its
            states; a `BadSampleError` if only a sample cannot be read.
    """
    entries = shards_of(shards_dir, split)
    if not entries:
        raise BrewlineError(
            f"{shards_dir} has no {split} utterances, and experiments need train, dev and test: "
            f"set sources.{shards_dir.name}.dev_fraction, or take the corpus out of experiments "
            "and tables"
        )
    for entry in entries:
        yield from _read_shard(shards_dir, states_dir, entry, on_bad)


def find_utterances(shards_dir: Path, split: str, ids: Iterable[str]) -> list[Utterance]:
    """Some utterances of a split, in the order of their keys; reads the whole split."""
    wanted = {*ids}
    return [one for one in read_split(shards_dir, split) if one.utterance_id in wanted]


def read_corpus(
    shards_dir: Path, states_dir: Path | None = None, on_bad: OnBad = refuse
) -> Iterator[Utterance]:
    """Yields the utterances of every split there is, as `read_split` does those of one."""
    for split in SPLITS:
        for entry in shards_of(shards_dir, split):
            yield from _read_shard(shards_dir, states_dir, entry, on_bad)
