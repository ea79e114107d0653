"""What others published: as printed, read strictly, and beside real corpora alone."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import report_world
import yaml

from brewline.config import Params
from brewline.config.published import PublishedRetrieval, load_published, parse_published
from brewline.core.errors import BrewlineError
from brewline.report.page import ReportInputs, write_report

PATH = report_world.PROJECT / "published.yaml"
PUBLISHED = load_published(PATH)

# Copied by hand from the paper and from mteb's results: system, gallery, table; S2I, I2S.
PRINTED: dict[tuple[str, str, int], tuple[list[float], list[float]]] = {
    ("SpeechCLIP-P (large)", "lncoco", 1): ([5.9, 18.2, 27.1], [9.5, 24.7, 34.8]),
    ("SpeechCLIP-C", "spokencoco", 1): ([6.4, 20.7, 31.0], [9.6, 27.7, 39.7]),
    ("ResDAVEnet", "spokencoco", 1): ([17.3, 41.9, 55.0], [22.0, 50.6, 65.2]),
    ("MILAN", "flickr8k", 1): ([33.2, 62.7, 73.9], [49.6, 79.2, 87.5]),
    ("FaST-VGS-co", "flickr8k", 1): ([26.6, 56.4, 68.8], [36.2, 66.1, 76.5]),
    ("FaST-VGS-ctf", "spokencoco", 1): ([35.9, 66.3, 77.9], [48.8, 78.2, 87.0]),
    ("BrewCLIP, pipeline, zero-shot", "flickr8k", 1): ([58.8, 83.9, 90.5], [77.4, 93.4, 97.0]),
    ("BrewCLIP, pipeline, zero-shot", "lncoco", 4): ([16.3, 33.0, 42.0], [23.6, 41.5, 50.8]),
    ("BrewCLIP, pipeline, prompted", "spokencoco", 2): ([42.2, 67.0, 76.3], [53.6, 77.9, 85.7]),
    ("BrewCLIP", "lncoco", 2): ([40.3, 68.1, 78.7], [42.3, 67.6, 77.6]),
    ("BrewCLIP, end-to-end", "spokencoco", 2): ([22.8, 50.6, 64.4], [35.2, 65.8, 77.8]),
    ("BrewCLIP, pipeline, prompted on captions", "lncoco", 2): (
        [48.1, 72.8, 81.3],
        [47.5, 71.3, 79.7],
    ),
    ("BrewCLIP, pipeline, zero-shot on captions", "spokencoco", 4): (
        [36.1, 60.8, 71.1],
        [56.2, 78.8, 86.9],
    ),
    ("CLIP ViT-L/14", "coco-captions", 4): ([36.2, 61.0, 71.1], [55.9, 79.1, 86.5]),
    ("SigLIP-so400m-384", "coco-captions", 4): ([54.2, 77.0, 84.4], [72.4, 89.9, 94.3]),
}
# Table 5, rows are what was trained on: recall@5, S2I and I2S.
TRANSFER = {
    ("lncoco", "lncoco"): (68.1, 78.6),
    ("lncoco", "spokencoco"): (38.8, 58.2),
    ("lncoco", "flickr8k"): (53.6, 76.1),
    ("spokencoco", "lncoco"): (47.3, 41.9),
    ("spokencoco", "spokencoco"): (67.1, 79.6),
    ("spokencoco", "flickr8k"): (87.8, 93.8),
    ("flickr8k", "lncoco"): (38.9, 40.4),
    ("flickr8k", "spokencoco"): (61.3, 75.3),
    ("flickr8k", "flickr8k"): (89.1, 95.9),
}


@pytest.mark.parametrize("key", PRINTED)
def test_a_number_is_the_one_that_was_printed(key: tuple[str, str, int]) -> None:
    system, gallery, table = key
    (one,) = [
        one
        for one in PUBLISHED.retrieval
        if (one.system, one.gallery) == (system, gallery) and table in one.tables
    ]
    s2i, i2s = PRINTED[key]
    assert one.speech_to_image == dict(zip((1, 5, 10), s2i, strict=True))
    assert one.image_to_speech == dict(zip((1, 5, 10), i2s, strict=True))


def test_rows_of_table_five_are_what_was_trained_on() -> None:
    found = {
        (str(one.trained_on), one.gallery): (one.speech_to_image[5], one.image_to_speech[5])
        for one in PUBLISHED.retrieval
        if one.tables == [5]
    }
    assert found == TRANSFER
    # As the numbers show: on Flickr8k every model does well, whatever it was trained on.
    assert min(found[trained, "flickr8k"] for trained, _ in TRANSFER) > (50, 70)


def test_no_number_stands_twice_and_larger_k_finds_no_less() -> None:
    keys = [
        (one.system, one.gallery, one.trained_on, table)
        for one in PUBLISHED.retrieval
        for table in one.tables
    ]
    assert len(keys) == len(set(keys))
    for one in PUBLISHED.retrieval:
        for found in (one.speech_to_image, one.image_to_speech):
            assert list(found.values()) == sorted(found.values()), one.system


def test_what_was_chosen_how_follows_from_what_was_trained() -> None:
    by_name: dict[str, list[PublishedRetrieval]] = {}
    for one in PUBLISHED.retrieval:
        by_name.setdefault(one.system, []).append(one)
    for name, found in by_name.items():
        if "zero-shot" in name or name.startswith(("CLIP", "SigLIP")):
            assert {one.chosen for one in found} == {"nothing"}
        elif name.startswith("BrewCLIP"):
            assert {one.chosen for one in found} == {"test"}


def changed(**values: Any) -> dict[str, Any]:
    given: dict[str, Any] = yaml.safe_load(PATH.read_text())
    given["retrieval"][0] |= values
    return given


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (changed(gallery="flick8k"), "retrieval.0.gallery: 'flick8k' is none of galleries: flickr"),
        (changed(trained_on="coco"), "retrieval.0.trained_on: 'coco' is none of galleries"),
        (changed(sources="x"), "retrieval.0.sources: unknown key; did you mean 'source'?"),
        (changed(chosen="dev"), "retrieval.0.chosen: 'dev': input should be 'test', 'nothing'"),
        (changed(reads="audio"), "retrieval.0.reads: 'audio'"),
        (changed(speech_to_image={1: 391.0}), "less than or equal to 100"),
        (changed(speech_to_image={0: 39.1}), "greater than or equal to 1"),
        (changed(tables=[3]), "retrieval.0.tables.0: 3"),
        ({"galleries": {}, "retrieval": []}, "emotion: is missing"),
    ],
)
def test_a_bad_entry_is_named(values: Any, words: str) -> None:
    with pytest.raises(BrewlineError) as found:
        parse_published(values)
    assert words in str(found.value)
    assert str(found.value).startswith("published.yaml")


@pytest.mark.parametrize(
    ("place", "values", "words"),
    [
        (("galleries", "lncoco"), {"options": {"sub": ["coco"]}}, "has no option 'sub'"),
        # Of another reader.
        (("sounds", 0), {"options": {"split": ["own"]}}, "'audiocaps' has no option 'split'"),
        (("sounds", 0), {"reader": "audiocap"}, "unknown reader 'audiocap'; did you mean 'audioc"),
    ],
)
def test_what_no_corpus_can_be_is_named(
    place: tuple[str, Any], values: dict[str, Any], words: str
) -> None:
    section, key = place
    given = yaml.safe_load(PATH.read_text())
    given[section][key] |= values
    with pytest.raises(BrewlineError, match=words) as found:
        parse_published(given)
    assert str(found.value).startswith(f"published.yaml: {section}.{key}.")


def test_every_number_of_audiocaps_says_of_which_release() -> None:
    of_audiocaps = [one for one in PUBLISHED.sounds if one.reader == "audiocaps"]
    assert of_audiocaps and all(len(one.options["release"]) == 1 for one in of_audiocaps)


def real(params: Params, **changes: Any) -> Params:
    """As if the miniature corpora had been recorded."""
    sources = {
        name: source.model_copy(update={"synthetic": False, **changes})
        for name, source in params.sources.items()
    }
    return params.model_copy(update={"sources": sources})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> ReportInputs:
    return report_world.make_world(tmp_path_factory.mktemp("world"))


def everything(params: Params, world: ReportInputs, folder: Path) -> dict[str, str]:
    write_report(params, world, folder)
    paths = [path for path in folder.rglob("*") if path.suffix in (".html", ".md", ".csv")]
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def test_nothing_that_others_published_stands_beside_generated_data(
    world: ReportInputs, tmp_path: Path
) -> None:
    found = everything(report_world.params(), world, tmp_path)
    systems = {one.system for one in (*PUBLISHED.retrieval, *PUBLISHED.emotion)} - {"BrewCLIP"}
    for name, text in found.items():
        assert not [one for one in systems if one in text], name
        assert "not measured here:" not in text


def test_it_stands_beside_a_real_corpus_of_the_same_reader(
    world: ReportInputs, tmp_path: Path
) -> None:
    found = everything(real(report_world.params()), world, tmp_path)
    for name in ("index.html", "results.md", "papers/table-1.md"):
        assert "SpeechCLIP-P (large)" in found[name], name
        assert (
            "not measured here: BrewCLIP, table 1, from Shih et al., 2023, from speech"
            in (found[name])
        )
    # The galleries of this made-up world have a dozen pictures.
    assert "another gallery than ours, so not comparable" in found["results.md"]
    # There is no corpus of SpokenCOCO.
    assert "SigLIP" not in "".join(found.values())
    rows = list(csv.DictReader((tmp_path / "papers/table-5.csv").open()))
    (one,) = [
        row
        for row in rows
        if (row["line"], row["corpus"], row["metric"])
        == (
            "BrewCLIP, trained on lncoco",
            "mini-flickr8k",
            "test/image_to_speech/any_hit_recall_at_5",
        )
    ]
    assert (one["measured_here"], one["value"], one["published_gallery"]) == ("no", "0.761", "5000")
    assert (one["low"], one["num_seeds"], one["measured_on"]) == ("", "", "")
    # What is measured keeps to itself: no published number is among the results.
    assert "SpeechCLIP" not in found["results.csv"]


def test_another_split_is_another_gallery() -> None:
    (source,) = [one for name, one in report_world.params().sources.items() if name == "spokencoco"]
    assert PUBLISHED.galleries_of(source) == ["spokencoco", "coco-captions"]
    assert not PUBLISHED.galleries_of(source.model_copy(update={"split": "own"}))
    (source,) = [one for name, one in report_world.params().sources.items() if name == "lncoco"]
    assert PUBLISHED.galleries_of(source) == ["lncoco"]
    assert PUBLISHED.galleries_of(source.model_copy(update={"subset": "coco"})) == ["lncoco"]
    assert not PUBLISHED.galleries_of(source.model_copy(update={"subset": "ade20k"}))


def test_the_gallery_is_ours_where_it_has_its_size(world: ReportInputs, tmp_path: Path) -> None:
    """Less what did not open."""
    params, root = real(report_world.params()), tmp_path / "metrics"
    for name in params.tables:
        values = json.loads((world.metrics_dir / f"{name}.json").read_text())
        for row in values:
            for split in ("dev", "test"):
                for direction, counts in (
                    ("speech_to_image", (4_990, 998)),
                    ("image_to_speech", (998, 4_990)),
                ):
                    start = f"{split}/{direction}"
                    values[row] |= dict(
                        zip((f"{start}/num_queries", f"{start}/gallery_size"), counts, strict=True)
                    )
        root.mkdir(exist_ok=True)
        (root / f"{name}.json").write_text(json.dumps(values))
    for name in ("probe", "sounds"):
        (root / name).symlink_to(world.metrics_dir / name)
    given = ReportInputs(**{**vars(world), "metrics_dir": root})
    text = everything(params, given, tmp_path / "out")["results.md"]
    flickr8k, lncoco = text.split("## mini-lncoco")
    assert "1,000 pictures and 5,000 recordings (test)" in flickr8k
    assert "so not comparable" not in flickr8k
    assert "so not comparable" in lncoco
