"""Videos of all kinds, from files to samples: facts, reasons, frames at their times."""

import io
import json
import shutil
import tarfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from brewline.config import load_params
from brewline.config.shard import ShardParams
from brewline.config.sources import SourceParams
from brewline.config.validate import ValidateParams
from brewline.core.engine import Processes
from brewline.core.errors import BrewlineError
from brewline.corpora.readers import READERS
from brewline.media.archives import MediaStore
from brewline.media.video import VideoError, middle_times, open_video
from brewline.quality.explain import explain
from brewline.quality.inspection import inspect_files, join_runs, list_files
from brewline.quality.results import write_tables
from brewline.quality.verdicts import Judge
from brewline.samples.packing import pack_corpus
from brewline.samples.shards import read_split
from brewline.samples.training_reader import TrainingReader
from brewline.speech.clips import write_of_clips
from brewline.tables.parquet import read_table

RATE_HZ, SIDE = 16_000, (64, 48)
SHARD = ShardParams(
    utterances_per_shard=4, image_short_side_px=48, jpeg_quality=95, frames_per_clip=4
)
LIMITS: ValidateParams = load_params(Path(__file__).parents[2] / "params.yaml").validation


def grey_at(time_s: float) -> int:
    """What a picture of `video` shows: its time, 60 greys a second."""
    return round(10 + 60 * time_s)


def video(
    container: str = "mp4",
    duration_s: float = 3.0,
    picture_s: float | None = None,
    times_s: list[float] | None = None,
    with_sound: bool = True,
    with_picture: bool = True,
    layout: str = "mono",
    frozen: bool = False,
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> bytes:
    """A video whose pictures have a grey that tells their time, the left half of them black."""
    buffer = io.BytesIO()
    is_webm = container == "webm"
    with av.open(buffer, "w", format=container, options=options or {}) as file:
        if with_picture:
            track: Any = file.add_stream("libvpx" if is_webm else "libx264", rate=10)
            track.width, track.height, track.pix_fmt = *SIDE, "yuv420p"
            # Several pictures that stand by themselves, and some that refer to later ones.
            track.options = {"g": "8"} if is_webm else {"g": "8", "bf": "2", "crf": "10"}
            track.codec_context.time_base = Fraction(1, 1000)
            if rotation:
                track.set_display_rotation(rotation)
        if with_sound:
            sound: Any = file.add_stream("libopus" if is_webm else "aac", rate=48_000)
            sound.layout = layout
        if with_picture:
            end_s = duration_s if picture_s is None else picture_s
            for time_s in times_s or [n / 10 for n in range(round(10 * end_s))]:
                pixels = np.full((SIDE[1], SIDE[0], 3), grey_at(0 if frozen else time_s), np.uint8)
                pixels[:, : SIDE[0] // 2] = 16
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts, frame.time_base = round(1000 * time_s), Fraction(1, 1000)
                file.mux(track.encode(frame))
            file.mux(track.encode())
        if with_sound:
            file.mux([*tone(sound, duration_s), *sound.encode()])
    return buffer.getvalue()


def tone(track: Any, duration_s: float) -> list[Any]:
    channels = track.layout.nb_channels
    time_s = np.arange(round(48_000 * duration_s)) / 48_000
    wave = (0.3 * np.sin(2 * np.pi * 440 * time_s) * (1 + np.sin(6 * time_s))).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(np.tile(wave, (channels, 1)), "fltp", track.layout.name)
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    return list(track.encode(frame))


def greys(content: bytes, times_s: list[float]) -> list[float]:
    with open_video(content) as opened:
        seen = list(opened.seen_at(times_s))
    return [float(np.asarray(one.image.convert("L"))[:, -16:].mean()) for one in seen]


UNEVEN = [0.0, 0.1, 0.2, 1.1, 1.15, 1.2, 2.0, 2.9]


@pytest.mark.parametrize("container", ["mp4", "webm", "mov", "matroska"])
@pytest.mark.parametrize("shown", [None, UNEVEN], ids=["even", "uneven"])
def test_a_frame_is_the_last_one_that_was_shown(container: str, shown: list[float] | None) -> None:
    content = video(container, times_s=shown)
    begins = shown or [n / 10 for n in range(30)]
    asked = [0.02, 0.13, 0.55, 0.56, 1.13, 1.99, 2.55]
    expected = [grey_at(max(one for one in begins if one <= time_s)) for time_s in asked]
    assert greys(content, asked) == pytest.approx(expected, abs=3)
    # The same as when one of them alone is asked for.
    assert greys(content, [1.13]) == pytest.approx([expected[4]], abs=3)


def test_frames_are_upright() -> None:
    with open_video(video(rotation=90)) as opened:
        (seen,) = opened.seen_at([1.0])
    assert seen.rotation == 90 and seen.image.size == SIDE[::-1]
    pixels = np.asarray(seen.image.convert("L")).astype(int)
    # The black left half is below after a quarter turn anticlockwise.
    assert pixels[-8:].mean() < 25 < pixels[:8].mean()


def test_the_middles_of_equal_parts() -> None:
    assert middle_times(10.0, 4) == [1.25, 3.75, 6.25, 8.75]


def test_what_is_no_video_has_a_reason() -> None:
    for content, reason in (
        (b"", "no_picture_track"),
        (b"GIF89a" + bytes(100), "no_picture_track"),
        (video(with_picture=False), "no_picture_track"),
        (video()[:-2000], "truncated"),
    ):
        with pytest.raises(VideoError) as caught, open_video(content):
            pass
        assert caught.value.reason == reason


def odd_files() -> dict[str, tuple[bytes, str | None]]:
    """More than a dozen files, and why each is dropped."""
    whole = video(options={"movflags": "frag_keyframe+empty_moov+delay_moov"})
    ahead = video("mov", options={"moov_size": "20000"})
    webm = video("webm")
    return {
        "plain.mp4": (video(), None),
        "plain.webm": (webm, None),
        "plain.mov": (video("mov"), None),
        "stereo.mp4": (video(layout="stereo"), None),
        "parts.mp4": (whole, None),
        "CAPITALS.MOV": (ahead, None),
        "uneven.mp4": (video(times_s=UNEVEN), None),
        "uneven.webm": (video("webm", times_s=UNEVEN), None),
        "-rotated.mov": (video("mov", rotation=90), None),
        "silent.mp4": (video(with_sound=False), "no_audio_track"),
        "silent.webm": (video("webm", with_sound=False), "no_audio_track"),
        "blind.mp4": (video(with_picture=False), "no_picture_track"),
        "blind.webm": (video("webm", with_picture=False), "no_picture_track"),
        "surround.mp4": (video(layout="5.1"), "too_many_channels"),
        "frozen.webm": (video("webm", frozen=True), "frozen_picture"),
        "ends.mp4": (video(picture_s=1.2), "pictures_end"),
        "cut.mp4": (video()[: len(video()) // 2], "truncated"),
        "cut_parts.mp4": (whole[: len(whole) // 2], "truncated"),
        # Its index is at the beginning, and whole.
        "cut_ahead.mov": (ahead[: len(ahead) // 2], "truncated"),
        "cut.webm": (webm[: len(webm) // 2], "truncated"),
        "empty.mp4": (b"", "empty_file"),
        "page.mp4": (b"<html>not found</html>", "not_audio"),
    }


def source(index: str | None = "clips.csv", **options: Any) -> SourceParams:
    return SourceParams(reader="videos", licence="", files={}, index=index, **options)


def judge(folder: Path, listed: SourceParams) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Inspects and validates; the manifest's rows, and the reason of each that is dropped."""
    raw, work = folder / "raw", folder / "work"
    store = MediaStore(raw)
    listings = READERS[listed.reader](store, listed)
    files = list_files(store, listings, work)
    inspect_files(Processes(1), raw, files, work / "rows", 20.0, 100.0)
    join_runs(files, work / "rows", folder / "facts")
    verdicts = Judge(store, folder / "facts", LIMITS).corpus(listings)
    write_tables(verdicts, "v", folder / "manifest.parquet", folder / "quarantine.parquet")
    bad = read_table(folder / "quarantine.parquet")
    good = read_table(folder / "manifest.parquet")
    return good, {Path(row["audio_path"]).name: row["reason"] for row in bad}


def packed(folder: Path) -> Path:
    """Goes on from what `judge` wrote: empty transcripts, then shards, whose folder it returns."""
    manifest, heard = folder / "manifest.parquet", folder / "heard.parquet"
    assert write_of_clips(manifest, heard, folder / "states")
    return pack_corpus(Processes(1), manifest, heard, folder / "raw", SHARD, 20.0, folder / "pack")


def write_world(folder: Path, files: dict[str, bytes], table: str, events: str = "") -> None:
    raw = folder / "raw"
    raw.mkdir()
    for name, content in files.items():
        (raw / name).write_bytes(content)
    (raw / "clips.csv").write_text(table)
    (raw / "events.csv").write_text("video,start,end,label\n" + events)


def test_odd_files_end_in_the_manifest_or_with_a_true_reason(tmp_path: Path) -> None:
    """Without an index: all that are there, and one more that the captions name."""
    odd = odd_files()
    captions = 'video,caption\nplain.mp4,A tone.\nmissing.mp4,Nothing.\nplain.mp4,"Again, one."\n'
    write_world(tmp_path, {name: content for name, (content, _) in odd.items()}, "")
    (tmp_path / "raw/captions.csv").write_text(captions)
    listed = source(None, captions="captions.csv", dev_fraction=0.25)
    good, bad = judge(tmp_path, listed)
    assert bad == {name: reason for name, (_, reason) in odd.items() if reason} | {
        "missing.mp4": "missing_audio"
    }
    said = {row["audio_path"]: row["captions"] for row in good if row["captions"]}
    assert said == {"plain.mp4": ["A tone.", "Again, one."]}
    assert {row["audio_path"] for row in good} == {name for name, (_, r) in odd.items() if not r}
    facts = {row["path"]: row for row in read_table(tmp_path / "facts/videos.parquet")}
    rotated = facts["-rotated.mov"]
    assert (rotated["rotation"], rotated["width_px"], rotated["height_px"]) == (90, 48, 64)
    assert facts["plain.mp4"]["num_found"] == 8 and facts["ends.mp4"]["num_found"] < 8
    assert facts["plain.webm"]["frames_per_s"] == pytest.approx(10, abs=0.5)


def test_clips_go_from_a_table_into_samples_and_back(tmp_path: Path) -> None:
    table = (
        "video,split,caption,start,end\n"
        'whole.mp4,train,A tone.,,\nwhole.mp4,train,"A tone, loud.",,\n'
        "long.webm,test,The first half.,0,2\nlong.webm,test,The second half.,2,4\n"
    )
    events = "long.webm,0.5,1.0,low\nlong.webm,1.5,2.5,middle\nwhole.mp4,1,2,beep\n"
    files = {"whole.mp4": video(), "long.webm": video("webm", duration_s=4.0)}
    write_world(tmp_path, files, table, events)
    good, bad = judge(tmp_path, source(events="events.csv", dev_fraction=0.0))
    assert not bad and len(good) == 3
    folder = packed(tmp_path)
    (whole,) = read_split(folder, "train")
    assert whole.captions == ("A tone.", "A tone, loud.")
    assert [(one.start_s, one.end_s, one.label) for one in whole.events] == [(1.0, 2.0, "beep")]
    assert TrainingReader(folder, None).read(0, 0, 1) == [whole]
    assert json.loads((tmp_path / "states/index.json").read_text()) == []
    halves = {one.captions[0]: one for one in read_split(folder, "test")}
    second = halves["The second half."]
    samples, rate_hz = soundfile.read(io.BytesIO(second.sound or b""))
    assert rate_hz == RATE_HZ and samples.shape == (2 * RATE_HZ,)
    assert [frame.time_s for frame in second.frames] == [0.25, 0.75, 1.25, 1.75]
    shown = [Image.open(io.BytesIO(frame.image)).convert("L") for frame in second.frames]
    found = [float(np.asarray(one)[:, -16:].mean()) for one in shown]
    assert found == pytest.approx([grey_at(2 + t) for t in (0.2, 0.7, 1.2, 1.7)], abs=8)
    # An event that lies in both is in each in part.
    events_of = {c: [(e.start_s, e.end_s, e.label) for e in u.events] for c, u in halves.items()}
    assert events_of == {
        "The first half.": [(0.5, 1.0, "low"), (1.5, 2.0, "middle")],
        "The second half.": [(0.0, 0.5, "middle")],
    }


def test_a_folder_of_videos_has_splits(tmp_path: Path) -> None:
    paths = [f"a/{number}.mkv" for number in range(20)]
    for path in [*paths, "b/Test/x.mp4", "validation/y.AVI", "train/z.webm", "notes.txt", "s.wav"]:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()

    def splits(**options: Any) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for row in READERS["videos"](MediaStore(tmp_path), source(None, **options)):
            found.setdefault(row.split, set()).add(row.audio_path)
        return found

    assert splits() == {
        "train": {*paths, "train/z.webm"}, "dev": {"validation/y.AVI"}, "test": {"b/Test/x.mp4"}
    }  # fmt: skip
    with pytest.raises(BrewlineError, match="there is a test split already"):
        splits(test_fraction=0.1)
    shutil.rmtree(tmp_path / "b")
    shutil.rmtree(tmp_path / "validation")
    with pytest.raises(BrewlineError, match="set dev_fraction"):
        splits(test_fraction=0.2)
    found = splits(test_fraction=0.2, dev_fraction=0.25)
    assert {name: len(each) for name, each in found.items()} == {"train": 13, "dev": 4, "test": 4}
    assert splits(test_fraction=0.2, dev_fraction=0.25, dev_seed=1) != found
    with pytest.raises(BrewlineError, match="captions stand in the index"):
        READERS["videos"](MediaStore(tmp_path), source(captions="captions.csv"))
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    with pytest.raises(BrewlineError, match=r"has no video; known are \.mp4"):
        splits()


def test_a_video_of_which_there_is_the_sound_alone_is_dropped(tmp_path: Path) -> None:
    sound = video(with_picture=False)
    write_world(
        tmp_path, {"a.m4a": sound, "b.mp4": video()}, "video,split\na.mp4,test\nb.mp4,test\n"
    )
    good, bad = judge(tmp_path, source())
    assert [row["audio_path"] for row in good] == ["b.mp4"] and bad == {"a.mp4": "missing_video"}
    store = MediaStore(tmp_path / "raw")
    listings = READERS["videos"](store, source())
    told = "\n".join(explain(store, listings, listings[0].utterance_id, tmp_path / "facts", LIMITS))
    assert "FAIL" in told and "`missing_video`: a.mp4 is not in the archives" in told


def test_videos_in_an_archive_are_found_whatever_folder_it_lies_in(tmp_path: Path) -> None:
    """As in a corpus that is one folder, read in place; a loose file of that name goes first."""
    folder = tmp_path / "mine"
    folder.mkdir()
    with tarfile.open(folder / "videos.tar", "w") as archive:
        for name in ("videos/a.mp4", "b.mp4"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    (folder / "b.mp4").write_bytes(b"loose")
    (folder / "clips.csv").write_text("video,split\nvideos/a.mp4,test\nb.mp4,test\nc.mp4,test\n")
    (folder / "events.csv").write_text("video,start,end,label\nvideos/a.mp4,1,2,low\n")
    listings = READERS["videos"](MediaStore(tmp_path), source(events="events.csv"))
    paths = [one.video_path for one in listings]
    assert paths == ["videos/a.mp4", "mine/b.mp4", "mine/c.mp4"]
    assert [one.label for one in listings[0].events] == ["low"]


def test_a_clip_lies_inside_its_video(tmp_path: Path) -> None:
    table = "video,split,start,end\na.mp4,test,0,2\na.mp4,test,2,9\n"
    write_world(tmp_path, {"a.mp4": video()}, table)
    good, bad = judge(tmp_path, source())
    assert len(good) == 1 and bad == {"a.mp4": "clip_outside"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("a.mp4,all,,,,", "split must be train, dev or test, not 'all'"),
        ("a.mp4,test,,3,2,", "the end behind the start"),
        ("a.mp4,test,,nan,2,", "must be seconds"),
        ("a.mp4,test,,3,,", "need each other"),
        (",test,,,,", "video is missing"),
        ("../a.mp4,test,,,,", "leaves the folder"),
    ],
)
def test_a_bad_row_is_one_sentence(tmp_path: Path, line: str, told: str) -> None:
    header = "video,split,caption,start,end,id\n"
    write_world(tmp_path, {}, header + "b.mp4,test,,,,\n" + line + "\n")
    listings = READERS["videos"](MediaStore(tmp_path / "raw"), source())
    assert [row.fault is None for row in listings] == [True, False]
    assert told in (listings[1].fault or "")
    (tmp_path / "raw/events.csv").write_text("video,start,end,label\nb.mp4,1,x,bark\n")
    with pytest.raises(BrewlineError, match=r"events.csv, line 2: start and end must be seconds"):
        READERS["videos"](MediaStore(tmp_path / "raw"), source(events="events.csv"))
