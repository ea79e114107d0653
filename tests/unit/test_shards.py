"""Shards: equal data gives equal bytes, damage is noticed, and training order can be resumed."""

import importlib
import io
import itertools
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from brewline.core.errors import BrewlineError
from brewline.core.files import write_json
from brewline.samples.augmented import AUGMENTATIONS, member_of
from brewline.samples.shards import (
    encode_states,
    index_digest,
    plan_shards,
    read_samples,
    read_split,
    require_captions,
    shard_name,
    split_size,
    write_index,
    write_shard,
)
from brewline.samples.training_reader import TrainingReader
from brewline.samples.utterance import BadSampleError

PROJECT = Path(__file__).parents[2]


def make_shards(folder: Path, sizes: list[int], *, other_keys: bool = False) -> None:
    """Train shards of these sizes in `folder/shards`, their states in `folder/states`."""
    number = 0
    counts = {}
    for kind in ("shards", "states"):
        (folder / kind).mkdir(parents=True)
    for shard, size in enumerate(sizes):
        keys = [f"u{number + i:03d}" for i in range(size)]
        number += size
        facts = {"image_id": "i", "transcript": "t", "caption": None, "num_frames": 2}
        facts["avg_logprob"] = -0.5
        samples = [
            {"__key__": key, "jpg": b"jpeg", "json": json.dumps(facts).encode()} for key in keys
        ]
        counts[shard_name("train", shard)] = write_shard(
            folder / "shards" / shard_name("train", shard), samples
        )
        states = [
            {
                "__key__": f"x{key}" if other_keys else key,
                "npy": encode_states(np.full((2, 3), int(key[1:]), np.float16)),
            }
            for key in keys
        ]
        write_shard(folder / "states" / shard_name("train", shard), states)
    for kind in ("shards", "states"):
        write_index(folder / kind, counts)


def test_plan_cuts_each_split_by_itself() -> None:
    splits = ["train"] * 5 + ["dev"] + ["test"] * 2
    assert list(plan_shards(splits, 2)) == [
        ("train", 0, slice(0, 2)),
        ("train", 1, slice(2, 4)),
        ("train", 2, slice(4, 5)),
        ("dev", 0, slice(5, 6)),
        ("test", 0, slice(6, 8)),
    ]


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_shards(tmp_path / name, [3])
    name = shard_name("train", 0)
    first, second = ((tmp_path / side / "shards" / name).read_bytes() for side in "ab")
    assert first == second


def test_reads_back_with_states_in_order(tmp_path: Path) -> None:
    make_shards(tmp_path, [3, 2])
    utterances = list(read_split(tmp_path / "shards", "train", tmp_path / "states"))
    assert [u.utterance_id for u in utterances] == ["u000", "u001", "u002", "u003", "u004"]
    assert utterances[4].states is not None
    assert utterances[4].states.tolist() == [[4, 4, 4], [4, 4, 4]]
    assert utterances[0].image == b"jpeg"
    assert split_size(tmp_path / "shards", "train") == 5


def test_a_split_without_utterances_says_what_to_do(tmp_path: Path) -> None:
    make_shards(tmp_path, [2])
    with pytest.raises(BrewlineError, match=r"no dev utterances.*sources\.shards\.dev_fraction"):
        list(read_split(tmp_path / "shards", "dev"))


def test_states_of_changed_recordings_lie_beside_those_of_the_recording(tmp_path: Path) -> None:
    make_shards(tmp_path, [2])
    folder, samples = tmp_path / "augmented", []
    plain = tmp_path / "states" / shard_name("train", 0)
    for sample in read_samples(plain):
        further = {
            member_of(name): encode_states(np.full((2 + way, 3), way, np.float16))
            for way, name in enumerate(AUGMENTATIONS)
        }
        samples.append({"__key__": sample["__key__"], "npy": sample["npy"], **further})
    folder.mkdir()
    shutil.copy(tmp_path / "states/index.json", folder)
    write_shard(folder / plain.name, samples)
    before = list(read_split(tmp_path / "shards", "train", tmp_path / "states"))
    found = list(read_split(tmp_path / "shards", "train", folder))
    assert [one.augmented for one in before] == [(), ()]
    for one, same in zip(found, before, strict=True):
        assert np.array_equal(one.states, same.states)
        assert [way.tolist() for way in one.augmented] == [[[w] * 3] * (2 + w) for w in range(3)]
    # One that is missing is no recording without changes.
    del samples[1][member_of("stretch")]
    write_shard(folder / plain.name, samples)
    with pytest.raises(BrewlineError, match="holds no encoder states for 'u001'"):
        list(read_split(tmp_path / "shards", "train", folder))


def test_states_are_not_opened_when_not_asked_for(tmp_path: Path) -> None:
    make_shards(tmp_path, [2])
    (tmp_path / "states" / shard_name("train", 0)).unlink()
    assert [u.states for u in read_split(tmp_path / "shards", "train")] == [None, None]


def test_states_of_other_utterances_are_refused(tmp_path: Path) -> None:
    make_shards(tmp_path, [2], other_keys=True)
    with pytest.raises(BrewlineError, match="does not run parallel"):
        list(read_split(tmp_path / "shards", "train", tmp_path / "states"))


def test_a_tar_cut_between_two_members_is_noticed(tmp_path: Path) -> None:
    make_shards(tmp_path, [3])
    path = tmp_path / "shards" / shard_name("train", 0)
    with tarfile.open(path) as archive:
        starts = [member.offset for member in archive]
    content = path.read_bytes()
    for cut, left in ((starts[2], 1), (starts[3], 1), (starts[4], 2)):
        path.write_bytes(content[:cut] + bytes(1024))
        with pytest.raises(BrewlineError, match=f"holds {left} utterances instead of 3"):
            list(read_split(tmp_path / "shards", "train"))


@pytest.mark.parametrize("kept", [0.1, 0.35, 0.5])
def test_a_cut_shard_is_one_sentence(tmp_path: Path, kept: float) -> None:
    make_shards(tmp_path, [3])
    path = tmp_path / "shards" / shard_name("train", 0)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(BrewlineError, match="dvc checkout --force"):
        list(read_split(tmp_path / "shards", "train"))


def test_pickled_states_are_refused(tmp_path: Path) -> None:
    make_shards(tmp_path, [1])
    pickled = io.BytesIO()
    np.save(pickled, np.array([Path("/")], dtype=object), allow_pickle=True)
    path = tmp_path / "states" / shard_name("train", 0)
    write_shard(path, [{"__key__": "u000", "npy": pickled.getvalue()}])
    with pytest.raises(BrewlineError, match="holds no encoder states for 'u000'"):
        list(read_split(tmp_path / "shards", "train", tmp_path / "states"))


def test_a_missing_index_names_the_stage(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match="dvc repro shard"):
        split_size(tmp_path, "train")
    with pytest.raises(BrewlineError, match="dvc repro transcribe"):
        index_digest(tmp_path / "states/corpus")


def test_the_digest_of_the_data_names_every_shard_and_opens_none(tmp_path: Path) -> None:
    for name, sizes in {"a": [3, 2], "b": [3, 2], "c": [3, 1]}.items():
        make_shards(tmp_path / name, sizes)
        for path in (tmp_path / name).rglob("*.tar"):
            path.unlink()
    for kind in ("shards", "states"):
        one, same, other = (index_digest(tmp_path / name / kind) for name in "abc")
        assert one == same != other


def make_captioned(folder: Path, captions: dict[str, list[str | None]]) -> None:
    """Shards of one sample each, with these captions by split."""
    folder.mkdir(parents=True)
    counts = {}
    for split, texts in captions.items():
        for number, caption in enumerate(texts):
            facts = {"image_id": "i", "transcript": "t", "caption": caption, "num_frames": 2}
            facts["avg_logprob"] = None
            content = json.dumps(facts).encode()
            sample = {"__key__": f"u{number}", "jpg": b"j" * 700, "json": content}
            name = shard_name(split, number)
            counts[name] = write_shard(folder / name, [sample])
    write_index(folder, counts)


MISSING = {"train": [None, "a", None], "dev": ["a", "b"], "test": ["", None]}


def test_missing_captions_are_counted_by_split(tmp_path: Path) -> None:
    make_captioned(tmp_path / "tiny", MISSING)
    # An empty one is a caption, of which validation says that it is empty.
    require_captions(tmp_path / "tiny", ["dev"])
    with pytest.raises(BrewlineError) as caught:
        require_captions(tmp_path / "tiny")
    assert str(caught.value) == (
        "utterances of tiny have no caption: 2 of 3 in train, 1 of 2 in test; use a variant with "
        "`text: asr`, or add the file that has the captions to the corpus"
    )
    whole = (tmp_path / "tiny/train-000000.tar").read_bytes()
    (tmp_path / "tiny/train-000000.tar").write_bytes(whole[:700])
    with pytest.raises(BrewlineError, match="is no whole shard"):
        require_captions(tmp_path / "tiny", ["train"])


@pytest.mark.parametrize(
    ("stage", "experiment", "counted"),
    [
        ("train", "mini-lncoco-captions", "2 of 3 in train, 1 of 2 in test"),
        ("embed", "mini-lncoco-zero-shot-captions", "1 of 2 in test"),
    ],
)
def test_a_variant_that_reads_captions_says_how_many_are_missing_before_it_works(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    experiment: str,
    counted: str,
) -> None:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    values["experiments"]["mini-lncoco-captions"] = {
        **values["experiments"]["mini-lncoco-prompted"],
        "variant": "prompted-captions",
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "versions.yaml").write_text((PROJECT / "versions.yaml").read_text())
    hashes = {name: {"name": name, "sha256": "a" * 64} for name in ("whisper", "clip")}
    write_json(tmp_path / "models/backbones/backbones.json", hashes)
    make_captioned(tmp_path / "data/shards/mini-lncoco", MISSING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [stage, experiment])
    with pytest.raises(SystemExit):
        importlib.import_module(f"brewline.stages.{stage}").main()
    assert f"utterances of mini-lncoco have no caption: {counted}" in capsys.readouterr().err
    assert not (tmp_path / "work").exists() or not [*(tmp_path / "work").glob("train/*")]
    assert not (tmp_path / "models/mini-lncoco-captions").exists()


def test_training_order_is_seeded_and_whole(tmp_path: Path) -> None:
    make_shards(tmp_path, [4, 3, 2])
    reader = TrainingReader(tmp_path / "shards", tmp_path / "states")

    def ids(seed: int, start: int, stop: int) -> list[str]:
        return [utterance.utterance_id for utterance in reader.read(seed, start, stop)]

    three_epochs = ids(1, 0, 27)
    for epoch in range(3):
        assert sorted(three_epochs[9 * epoch : 9 * epoch + 9]) == [f"u{i:03d}" for i in range(9)]
    assert three_epochs[:9] != three_epochs[9:18]
    assert three_epochs != ids(2, 0, 27)
    # However it is cut, and whoever reads it.
    for cut in range(27):
        assert ids(1, 0, cut) + ids(1, cut, 27) == three_epochs
    assert ids(1, 7, 12) == three_epochs[7:12]
    # One shard after another.
    shard_of = [0] * 4 + [1] * 3 + [2] * 2
    for epoch in range(3):
        shards = [shard_of[int(name[1:])] for name in three_epochs[9 * epoch : 9 * epoch + 9]]
        assert len(list(itertools.groupby(shards))) == 3


def test_training_reads_what_a_pass_over_the_split_reads(tmp_path: Path) -> None:
    make_shards(tmp_path, [4, 3, 2])
    folders = tmp_path / "shards", tmp_path / "states"
    by_id = {one.utterance_id: one for one in read_split(folders[0], "train", folders[1])}
    for one in TrainingReader(*folders).read(0, 0, 9):
        same = by_id[one.utterance_id]
        assert one.states is not None and same.states is not None
        assert np.array_equal(one.states, same.states)
        assert replace(one, states=None) == replace(same, states=None)


@pytest.mark.parametrize("kept", [0, 700, 2000, 4000])
def test_training_on_a_cut_shard_is_one_sentence(tmp_path: Path, kept: int) -> None:
    make_shards(tmp_path, [4])
    path = tmp_path / "shards" / shard_name("train", 0)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BrewlineError, match=r"train-000000.tar.*dvc checkout --force"):
        TrainingReader(tmp_path / "shards", None).read(0, 0, 4)


def test_training_refuses_states_of_others(tmp_path: Path) -> None:
    make_shards(tmp_path, [3], other_keys=True)
    with pytest.raises(BrewlineError, match="does not run parallel"):
        TrainingReader(tmp_path / "shards", tmp_path / "states").read(0, 0, 1)


def test_training_opens_a_few_shards_at_a_time(tmp_path: Path) -> None:
    """However many a corpus has, the system's limit of open files is not reached."""
    make_shards(tmp_path, [1] * 40)
    reader = TrainingReader(tmp_path / "shards", tmp_path / "states")
    reader.read(0, 0, 80)
    files = [Path(one.path) for one in psutil.Process().open_files()]
    assert 0 < sum(path.is_relative_to(tmp_path) for path in files) <= 8


def spoil(folder: Path, kind: str, number: int) -> None:
    """Damages the facts, or the states, of one utterance."""
    path = folder / kind / shard_name("train", 0)
    samples = list(read_samples(path))
    name = {"shards": "json", "states": "npy"}[kind]
    samples[number][name] = samples[number][name][:20]
    write_shard(path, samples)


@pytest.mark.parametrize("kind", ["shards", "states"])
def test_a_damaged_sample_is_known_by_its_name_and_the_others_are_read(
    tmp_path: Path, kind: str
) -> None:
    make_shards(tmp_path, [4])
    spoil(tmp_path, kind, 2)
    folders = tmp_path / "shards", tmp_path / "states"
    told: list[BadSampleError] = []
    found = read_split(folders[0], "train", folders[1], told.append)
    assert [one.utterance_id for one in found] == ["u000", "u001", "u003"]
    assert [one.utterance_id for one in told] == ["u002"]
    assert "`dvc checkout --force`" in str(told[0])
    with pytest.raises(BadSampleError, match="'u002'"):
        list(read_split(folders[0], "train", folders[1]))
    reader, ids = TrainingReader(*folders), set()
    for number in range(4):
        try:
            ids.add(reader.read(0, number, number + 1)[0].utterance_id)
        except BadSampleError as bad:
            assert bad.utterance_id == "u002"
            assert str(bad) == str(told[0])
    assert ids == {"u000", "u001", "u003"}


_READ_WHAT_IS_GONE = """
import os, sys
from pathlib import Path
from brewline.samples.training_reader import TrainingOrder, TrainingReader
from brewline.samples.utterance import BadSampleError
folder = Path(sys.argv[1])
reader = TrainingReader(folder / "shards", folder / "states")
first = [place.row for place in TrainingOrder([40], 0).places(0, 40)].index(0)
reader.read(0, first, first + 1)
os.truncate(folder / "states/train-000000.tar", 8192)
for number in range(40):
    try:
        reader.read(0, number, number + 1)
    except BadSampleError as bad:
        print(bad.utterance_id, bad)
"""


@pytest.mark.skipif(
    sys.platform != "linux" or tuple(map(int, os.uname().release.split(".")[:2])) < (5, 14),
    reason="only Linux 5.14 and later can be asked for a page that may be missing",
)
def test_what_the_disk_does_not_give_ends_no_process(tmp_path: Path) -> None:
    """A page that is gone is what one is that cannot be read: whoever touches it gets SIGBUS."""
    make_shards(tmp_path, [40])
    done = subprocess.run(
        [sys.executable, "-c", _READ_WHAT_IS_GONE, tmp_path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(done.stdout.splitlines())
    assert [line.split()[0] for line in lines] == [f"u{number:03d}" for number in range(4, 40)]
    assert "states/train-000000.tar cannot be read at 'u004'" in lines[0]
