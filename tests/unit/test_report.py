"""The report: whole, self-contained, deterministic, and safe against hostile captions."""

import csv
import json
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import report_world
from report_world import probe_results

from brewline.config import Params
from brewline.config.experiments import TableParams
from brewline.config.synthetic import synthetic_notice
from brewline.core.errors import BrewlineError
from brewline.evaluation.outputs import read_metrics, read_model_metrics
from brewline.evaluation.recall_plot import recall_png
from brewline.pages import charts
from brewline.pages.album import Album, thumbnail
from brewline.pages.render import render
from brewline.pages.word_diff import compare_words
from brewline.probing.outputs import write_probe
from brewline.report.comparisons import kind_of, verdict
from brewline.report.emotion import ProbeFiles, emotion_section
from brewline.report.page import ReportInputs, write_report
from brewline.report.published import NOTHING
from brewline.report.tables import columns, further_columns, make_table, seed_rows
from brewline.report.text import results_table

LOADING_ATTRIBUTES = {"src", "href", "srcset", "poster", "data", "action"}
RECALLS = columns([1, 5, 10])
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What of a page matters here: tags in balance, what it would load, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._attributes(attrs)

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            assert not name.startswith("on"), f"event handler {name}"
            if name in LOADING_ATTRIBUTES:
                self.loads.append(value or "")
            if name == "id":
                self.ids.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def params() -> Params:
    return report_world.params()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, params: Params) -> ReportInputs:
    return report_world.make_world(tmp_path_factory.mktemp("world"), params)


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory: pytest.TempPathFactory, params: Params, world: ReportInputs) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    write_report(params, world, folder)
    return folder


@pytest.fixture(scope="module")
def page(out_dir: Path) -> Page:
    return Page((out_dir / "index.html").read_text(encoding="utf-8"))


def test_page_loads_nothing_and_is_well_formed(page: Page) -> None:
    assert page.open == []
    # Links lead to the pages that lie beside it.
    neighbours = ("validation/", "transcription/", "papers/", "figures/", "analysis/")
    assert all(load.startswith(("data:", "#", *neighbours)) for load in page.loads)
    assert len(page.ids) == len(set(page.ids))
    inside = {load[1:] for load in page.loads if load.startswith("#")}
    assert inside <= set(page.ids)


def test_page_has_every_row_picture_and_player(
    page: Page, params: Params, world: ReportInputs
) -> None:
    for name, table in params.tables.items():
        assert name in page.ids
        for row in table.rows:
            assert page.text.count(row) >= 4
    # Of each table: recordings, pictures, three groups of two, and what is attended to; and a
    # recording with its keywords.
    assert page.tags.count("audio") == (6 + 6 + 1 + 1) * len(params.tables)
    assert page.tags.count("article") == (6 + 2 + 6 + 1) * len(params.tables)
    assert "full is better than zero-shot by 17.0 points (12.5 to 21.5)" in page.text
    assert "no difference between full and prompted that these 12 pictures can show" in page.text
    assert f"Generated data. {synthetic_notice(params, params.measured_corpora)}" in page.text
    assert "Ogg page 12 needs 431 bytes more" in page.text
    assert "a" * 64 in page.text


def test_page_says_which_emotions_are_heard(
    page: Page, params: Params, out_dir: Path, world: ReportInputs
) -> None:
    assert "emotion-mini-ravdess" in page.ids
    text = " ".join(page.text.split())
    assert (
        "full: F_A, the acoustic channel, is above the majority class by its interval: calm" in text
    )
    chance = "is at chance, not above the majority class by its interval: calm counted as neutral"
    caption = "40.0–40.0 against 40.0 %, without calm"  # noqa: RUF001 - a range
    assert f"full: F_T of the human caption, {chance} {caption}" in text
    assert "90 recordings of 6 speakers" in text
    assert "Rows of vectors are a linear classifier's" in text
    assert "Fine-tuned rows" not in text
    assert "A random split, in which the speakers of the test are heard in training" in text
    for group in ("gender female", "gender male", "speaker 06"):
        assert group in text
    # Its last layer stands in the table, and its tenth one behind the second.
    assert text.count("Whisper, layer 11, mean") >= 4
    assert text.index("Whisper, layer 2, mean") < text.index("Whisper, layer 10, mean")
    # Nobody's numbers stand beside those of a generated corpus.
    assert "not measured here" not in text
    rows = list(csv.DictReader((out_dir / "results.csv").open()))
    metric = "by_speaker/paper4/accuracy"
    (row,) = [one for one in rows if (one["row"], one["metric"]) == ("full/acoustic", metric)]
    assert row["table"] == "mini-ravdess"
    assert float(row["low"]) <= float(row["value"]) <= float(row["high"])


def test_a_fine_tuned_row_is_no_linear_classifier(
    params: Params, world: ReportInputs, tmp_path: Path
) -> None:
    """First of all rows, with one label set of three: of the others there is nothing to draw."""
    probe = params.probes["mini-ravdess"].model_copy(
        update={"rows": {"tuned": "mini-ravdess-full"}}
    )
    given = params.model_copy(update={"probes": {"mini-ravdess": probe}})
    files = ProbeFiles.of("mini-ravdess", tmp_path / "metrics", tmp_path / "emotion")
    write_probe(probe_results((), "tuned"), files.metrics, files.folder)
    section = emotion_section(given, world.published, "mini-ravdess", files)
    (table,) = section["tables"]
    assert table["rows"][0]["name"] == "tuned: fine-tuned"
    assert [cell["accuracy"] for cell in table["rows"][0]["cells"]] == ["100.0", NOTHING, NOTHING]
    drawn = [one.name for one in section["figures"] if "confusion-tuned" in one.name]
    assert drawn == ["mini-ravdess-confusion-tuned-fine-tuned-paper4"]
    assert section["is_tuned"]


def test_published_numbers_stand_beside_real_recordings_alone(
    params: Params, world: ReportInputs
) -> None:
    probe, published = params.probes["mini-ravdess"], world.published
    source = params.sources["mini-ravdess"].model_copy(update={"synthetic": False})
    real = params.model_copy(update={"sources": {**params.sources, "mini-ravdess": source}})
    files = ProbeFiles.of("mini-ravdess", world.metrics_dir, world.emotion_dir)
    # As if the same had come out under the paper's protocol.
    found = json.loads(files.metrics.read_text())
    renamed = {
        row: {key.replace("by_speaker", "paper"): one for key, one in values.items()}
        for row, values in found.items()
    }
    folder = world.metrics_dir.parent / "paper"
    shutil.copytree(files.folder, folder)
    for path in folder.glob("*.csv"):
        path.write_text(path.read_text().replace("by_speaker", "paper"))
    (folder / "metrics.json").write_text(json.dumps(renamed))
    probes = {"mini-ravdess": probe.model_copy(update={"protocols": ["paper"]})}
    other = ProbeFiles(folder / "metrics.json", folder)
    for chosen, count in ((real, 4), (params, 0)):
        given = chosen.model_copy(update={"probes": probes})
        (table,) = emotion_section(given, published, "mini-ravdess", other)["tables"]
        assert len(table["published"]) == count
    (table,) = emotion_section(
        real.model_copy(update={"probes": probes}), published, "mini-ravdess", other
    )["tables"]
    assert [row["cells"][0] for row in table["published"]] == ["56.0", "78.0", "33.0", "33.0"]


def test_hostile_texts_stay_text(page: Page) -> None:
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    # In the caption, word by word, and in the quarantine's detail.
    assert '</td><script>alert("x")</script><img' in page.text


def test_same_inputs_give_the_same_bytes(
    tmp_path: Path, params: Params, world: ReportInputs, out_dir: Path
) -> None:
    again = report_world.make_world(tmp_path / "elsewhere", params)
    write_report(params, again, tmp_path / "out")
    for name in ("index.html", "results.md", "results.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (out_dir / name).read_bytes()


def test_csv_holds_every_metric_once(out_dir: Path, params: Params, world: ReportInputs) -> None:
    with (out_dir / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_key = {(row["table"], row["row"], row["metric"]): row for row in rows}
    assert len(by_key) == len(rows)
    wanted = "test/speech_to_image/recall_at_1"
    for table in params.tables:
        metrics = json.loads((world.metrics_dir / f"{table}.json").read_text())
        for name in params.tables[table].rows:
            row = by_key[table, name, wanted]
            assert float(row["value"]) == metrics[name][wanted]
            assert float(row["low"]) == metrics[name][f"{wanted}_low"]
    assert not any(row["metric"].endswith(("_low", "_high")) for row in rows)


def test_markdown_marks_the_best_and_generated_data(out_dir: Path, params: Params) -> None:
    text = (out_dir / "results.md").read_text(encoding="utf-8")
    notice = synthetic_notice(params, params.measured_corpora)
    assert notice.startswith("A program made mini-flickr8k and mini-lncoco: ")
    assert f"> {notice}" in text
    line = next(line for line in text.splitlines() if line.startswith("| full |"))
    assert "**59.0** (54.0" in line


def test_leftovers_are_ignored(tmp_path: Path, params: Params) -> None:
    inputs = report_world.make_world(tmp_path / "world", params)
    table = next(iter(params.tables))
    for name in ("examples.json", "models.json"):
        path = inputs.evaluation_dir / table / name
        values = json.loads(path.read_text())
        values["left-over"] = next(iter(values.values()))
        path.write_text(json.dumps(values))
    path = inputs.metrics_dir / f"{table}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "left-over": {}}))
    (inputs.metrics_dir / "gone.json").write_text("{}")
    write_report(params, inputs, tmp_path / "out")
    assert "left-over" not in (tmp_path / "out/index.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "part",
    [
        "metrics_dir/{table}.json",
        "evaluation_dir/{table}/comparisons.json",
        "evaluation_dir/{table}/examples.json",
        "evaluation_dir/{table}/picture_examples.json",
        "analysis_dir/{table}/word_errors.json",
        "analysis_dir/{table}/channels.json",
        "analysis_dir/{table}/crops.json",
        "analysis_dir/{table}/examples.json",
        "analysis_dir/{table}/attention.json",
        "analysis_dir/{table}/attention-1-sound.svg",
        "evaluation_dir/{table}/recall.csv",
        "evaluation_dir/{table}/buckets.csv",
        "evaluation_dir/{table}/models.json",
        "models_dir/{table}-full/seed-0/model.json",
        "models_dir/{table}-full/seed-0/history.jsonl",
        "models_dir/{table}-full-of-lncoco/seed-1/model.json",
        "manifest_dir/{table}.parquet",
        "quarantine_dir/{table}.parquet",
    ],
)
def test_missing_file_is_named(tmp_path: Path, params: Params, part: str) -> None:
    inputs = report_world.make_world(tmp_path / "world", params)
    field, _, rest = part.format(table=next(iter(params.tables))).partition("/")
    path = getattr(inputs, field) / rest
    path.unlink()
    with pytest.raises(BrewlineError, match=path.name):
        write_report(params, inputs, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_page_stays_small_however_long_recordings_are(
    tmp_path: Path, params: Params, world: ReportInputs
) -> None:
    """Each recording is shown; of those that there is no room for the player is left out."""

    def media(corpus: str, path: str) -> bytes:
        found = report_world.fake_media(corpus, path)
        return found if path.endswith(".jpg") else found.ljust(900_000, b"x")

    write_report(params, replace(world, media=media), tmp_path)
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert len(html) < 15_000_000
    page = Page(html)
    assert page.tags.count("article") == (6 + 2 + 6 + 1) * len(params.tables)
    # 2 MB for each of two tables.
    assert page.tags.count("audio") == 2 * 2


def test_of_pictures_that_there_is_no_room_for_the_place_is_kept() -> None:
    album = Album("p-", lambda name: report_world.drawing(int(name)), most_bytes=8_000)
    found = [album.picture(str(number)) for number in range(6)]
    assert found[0].uri and not found[-1].uri
    assert sum(len(one.uri) for one in found) < 8_000 * 4 / 3 + 6 * 30
    assert (found[-1].width, found[-1].height) == (found[0].width, found[0].height)
    page = Page(
        render("examples.html.j2", title="", synthetic_notice="", examples=[], images=found)
    )
    assert page.text.count("not in this page") == sum(not one.uri for one in found)
    assert page.ids == [f"p-{number}" for number in range(6)]


def test_missing_row_is_named(tmp_path: Path, params: Params, world: ReportInputs) -> None:
    for path in world.metrics_dir.glob("*.json"):
        values = json.loads(path.read_text())
        del values["full"]
        (tmp_path / path.name).write_text(json.dumps(values))
    with pytest.raises(BrewlineError, match=r"json lacks full; run `dvc repro score`"):
        write_report(params, replace(world, metrics_dir=tmp_path), tmp_path / "out")


def test_ceilings_do_not_compete(params: Params, world: ReportInputs) -> None:
    metrics = read_metrics(params, world.metrics_dir)
    name = next(name for name in metrics if "zero-shot-captions" in metrics[name])
    metrics[name]["full"]["test/speech_to_image/recall_at_1"] = 0.9
    metrics[name]["zero-shot-captions"]["test/speech_to_image/recall_at_1"] = 0.95
    table = make_table(params, metrics, name, "test", RECALLS)
    best = [row.name for row in table.rows if row.cells[0].best]
    assert best == ["full"]
    assert [row.name for row in table.rows if row.is_ceiling] == ["zero-shot-captions"]


def test_lowest_median_rank_is_best(params: Params, world: ReportInputs) -> None:
    metrics = read_metrics(params, world.metrics_dir)
    table = make_table(params, metrics, next(iter(params.tables)), "test", RECALLS)
    position = [column.label for column in table.columns].index("median rank")
    assert [row.cells[position].best for row in table.rows if row.name == "zero-shot"] == [False]
    assert all(row.cells[position].best for row in table.rows if row.name == "full")


@pytest.mark.parametrize(
    ("low", "difference", "high", "sentence"),
    [
        (0.012, 0.041, 0.07, "full is better than prompted by 4.1 points (1.2 to 7.0)"),
        (-0.07, -0.041, -0.012, "full is worse than prompted by 4.1 points (1.2 to 7.0)"),
        (
            -0.02,
            0.01,
            0.04,
            "no difference between full and prompted that these 200 pictures can show "
            "(+1.0 points, 95 % interval -2.0 to +4.0)",
        ),
        (
            0.0,
            0.01,
            0.04,
            "no difference between full and prompted that these 200 pictures can show "
            "(+1.0 points, 95 % interval +0.0 to +4.0)",
        ),
    ],
)
def test_verdicts(low: float, difference: float, high: float, sentence: str) -> None:
    entry = {"row": "full", "baseline": "prompted"}
    entry |= {"low": low, "difference": difference, "high": high}
    assert verdict(entry, [], 200, "95") == sentence


@pytest.mark.parametrize(
    ("alone", "ends", "sentence"),
    [
        (["full"], (0.012, 0.07), "higher than prompted (1.2 to 7.0), but full has one seed"),
        (["prompted"], (-0.07, -0.012), "lower than prompted (1.2 to 7.0), but prompted has one "),
        (["full", "prompted"], (0.012, 0.07), "but full and prompted have one seed each: only "),
        (["full"], (-0.01, 0.07), "no difference between full and prompted that these 200 "),
    ],
)
def test_nobody_is_better_on_one_seed(
    alone: list[str], ends: tuple[float, float], sentence: str
) -> None:
    """An interval over pictures alone does not say how another seed would do."""
    entry = {"row": "full", "baseline": "prompted", "difference": sum(ends) / 2}
    entry |= dict(zip(("low", "high"), ends, strict=True))
    said = verdict(entry, alone, 200, "95")
    assert sentence in said
    assert "better" not in said
    assert "worse" not in said
    assert kind_of(entry, alone) == "unclear"


def test_a_row_of_one_seed_is_better_than_none(tmp_path: Path, params: Params) -> None:
    recipes = {
        name: recipe and recipe.model_copy(update={"seeds": [0]})
        for name, recipe in params.recipes.items()
    }
    one = params.model_copy(update={"recipes": recipes})
    inputs = report_world.make_world(tmp_path / "world", one)
    write_report(one, inputs, tmp_path / "out")
    page = Page((tmp_path / "out/index.html").read_text(encoding="utf-8"))
    assert "full scored 17.0 points higher than zero-shot (12.5 to 21.5), but full has" in page.text
    for text in (page.text, (tmp_path / "out/results.md").read_text(encoding="utf-8")):
        for row in ("e2e", "full", "full-of-lncoco", "prompted"):
            assert f"{row} is " not in text
        # What nobody trained has no seed that could differ.
        assert "zero-shot-captions is better than zero-shot by 10.0 points" in text
    # With one seed a row is its seed.
    assert "Each seed" not in page.text


def test_each_seed_can_be_opened(page: Page, params: Params, world: ReportInputs) -> None:
    models = read_model_metrics(params, "mini-flickr8k", world.evaluation_dir)
    models["mini-flickr8k-full/seed-1"]["test/speech_to_image/recall_at_1"] = 0.777
    rows = seed_rows(params, models, "mini-flickr8k", "test", RECALLS)
    names = ["e2e", "full", "full-of-lncoco"]
    assert [row.name for row in rows] == [f"{row}, seed {seed}" for row in names for seed in (0, 1)]
    assert [row.cells[0].text for row in rows if row.name.startswith("full,")] == ["59.0", "77.7"]
    assert not any(cell.interval or cell.spread for row in rows for cell in row.cells)
    assert page.text.count("Each seed") == len(params.tables)
    assert "full, seed 1" in page.text


def test_recalls_cannot_be_confused(params: Params, world: ReportInputs) -> None:
    """R@K is any-hit, as in the papers, found@K the share, as in mteb; each says which."""
    metrics = read_metrics(params, world.metrics_dir)
    name = "mini-flickr8k"
    values = metrics[name]["full"]
    values["test/image_to_speech/any_hit_recall_at_1"] = 0.8
    values["test/image_to_speech/recall_at_1"] = 0.2
    shown = {}
    for shown_columns in (RECALLS, further_columns([1, 5, 10])):
        table = make_table(params, metrics, name, "test", shown_columns)
        row = next(row for row in table.rows if row.name == "full")
        for cell in row.cells:
            shown[cell.column.direction, cell.column.label] = cell.text
            assert cell.interval or cell.column.label == "R@1"
    assert shown["image_to_speech", "R@1"] == "80.0"
    assert shown["image_to_speech", "found@1"] == "20.0"
    assert shown["image_to_speech", "mean rank"] == "3.1"
    assert shown["speech_to_image", "nDCG@10"] == "77.0"
    # Nothing is shown twice.
    assert len(shown) == len(RECALLS) + len(further_columns([1, 5, 10]))


def test_buckets_show_counts_and_where_they_are_too_few(page: Page, out_dir: Path) -> None:
    html = (out_dir / "index.html").read_text(encoding="utf-8")
    assert "By length, noise, caption, word errors and speaker" in page.text
    assert '<th scope="row">speaker 0</th><td>20</td><td>3</td><td>31.0<small>25.0–36.0' in html  # noqa: RUF001
    assert '<th scope="row">speaker 1</th><td>3</td><td>3</td><td>too few</td>' in html


def test_further_metrics_stand_in_the_markdown(out_dir: Path) -> None:
    text = (out_dir / "results.md").read_text(encoding="utf-8")
    assert text.count("Further metrics:") == 2
    heads = next(line for line in text.splitlines() if "nDCG@10" in line)
    assert "| speech to image mean rank |" in heads
    assert "| image to speech found@5 |" in heads


def test_compare_words_by_hand() -> None:
    caption, transcript, num_errors = compare_words(
        "A small, red dog runs.", "a small bread dog runs so"
    )
    assert [(token.text, token.tag) for token in caption] == [
        ("A", ""),
        ("small,", ""),
        ("red", "mark"),
        ("dog", ""),
        ("runs.", ""),
    ]
    assert [(token.text, token.tag) for token in transcript][-4:] == [
        ("bread", "mark"),
        ("dog", ""),
        ("runs", ""),
        ("so", "ins"),
    ]
    assert num_errors == 2


def test_compare_words_without_one_side() -> None:
    assert compare_words(None, "a dog")[2] is None
    assert compare_words("...", "a dog")[0] == []
    caption, transcript, num_errors = compare_words("a dog", "")
    assert [token.tag for token in caption] == ["del", "del"]
    assert transcript == []
    assert num_errors == 2


def test_terminal_table_is_aligned(params: Params, world: ReportInputs) -> None:
    text = results_table(params, world.metrics_dir)
    lines = text.splitlines()
    for start in (n for n, line in enumerate(lines) if "median rank" in line):
        # Every column of numbers ends where its head ends, but for the star's place.
        end = lines[start].index("median rank") + len("median rank")
        assert lines[start + 1][end - 1 : end + 1].strip(" *") == ""
        assert lines[start + 1][end - 2].isdigit()
    assert max(map(len, lines)) <= 100
    assert "* best" in text


def test_thumbnail_refuses_what_is_no_picture() -> None:
    with pytest.raises(BrewlineError, match="picture 'x' cannot be read"):
        thumbnail(b"nonsense", "x")
    content, width, height = thumbnail(report_world.drawing(3), "x")
    assert content.startswith(b"\xff\xd8")
    assert (width, height) == (260, 195)


def test_charts_escape_and_survive_flat_lines() -> None:
    lines = [charts.Series("<b>", [(5, 0.0), (10, 0.0)], 0), charts.Series("one", [(5, 2.0)], 9)]
    svg = charts.line_chart(lines, "a & b", "x<y", "y", in_percent=False)
    assert "&lt;b&gt;" in svg
    assert "<b>" not in svg
    assert "nan" not in svg.lower()
    flat = charts.line_chart([charts.Series("flat", [(1, 3.0), (2, 3.0)], 0)], "t", "x", "y")
    assert "nan" not in flat.lower()


def test_recall_png_is_deterministic() -> None:
    curves = {("full", "speech_to_image"): [(1.0, 0.4), (5.0, 0.8)]}
    first, second = (recall_png(curves, "title") for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG")


def test_without_a_table_everything_says_so(
    tmp_path: Path, params: Params, world: ReportInputs
) -> None:
    """The guide's corpus without pictures; nothing has made the folders of stage `score`."""
    inputs = replace(world, metrics_dir=tmp_path / "none", evaluation_dir=tmp_path / "none")
    without = params.model_copy(update={"tables": {}, "sound_tables": {}, "probes": {}})
    sentence = "Nothing is measured on pictures: tables in params.yaml names no table."
    # No legend of a table that is not there.
    assert results_table(without, inputs.metrics_dir) == f"{sentence}\n"
    write_report(without, inputs, tmp_path / "reports")
    assert sentence in (tmp_path / "reports/results.md").read_text()
    page = Page((tmp_path / "reports/index.html").read_text())
    assert not page.open
    assert sentence in page.text
    assert "can do." in page.text
    assert all(corpus in page.text for corpus in params.corpora)
    assert len((tmp_path / "reports/results.csv").read_text().splitlines()) == 1


def with_table(params: Params, name: str, rows: dict[str, str], **others: str) -> Params:
    """Parameters with one table, on mini-flickr8k."""
    table = TableParams.model_construct(data="mini-flickr8k", rows=rows, baseline=None, compare=[])
    return params.model_copy(update={"tables": {name: table.model_copy(update=others)}})


def test_a_model_of_another_corpus_says_where_it_was_trained(
    page: Page, params: Params, world: ReportInputs
) -> None:
    metrics = read_metrics(params, world.metrics_dir)
    rows = {
        row.name: row for row in make_table(params, metrics, "mini-flickr8k", "test", RECALLS).rows
    }
    what = "transcripts and voice, 4 prompts"
    assert rows["full"].what == what
    assert rows["full-of-lncoco"].what == f"{what}, trained on mini-lncoco"
    assert rows["full-of-lncoco"].num_seeds == 2
    assert rows["zero-shot"].what == "transcripts, nothing trained"
    assert f"full-of-lncoco{what}, trained on mini-lncoco" in page.text


def test_the_curves_of_a_model_stand_where_it_was_trained(out_dir: Path) -> None:
    html = (out_dir / "index.html").read_text(encoding="utf-8")
    assert "full, seed-0" in html
    assert "full-of-lncoco, seed-0" not in html


def test_a_table_of_another_name_says_which_corpus_it_is_of(tmp_path: Path, params: Params) -> None:
    one = with_table(params, "far", {"full": "mini-flickr8k-full"})
    inputs = report_world.make_world(tmp_path / "world", one)
    write_report(one, inputs, tmp_path / "out")
    page = Page((tmp_path / "out/index.html").read_text(encoding="utf-8"))
    assert "far" in page.ids
    assert "far (mini-flickr8k)" in page.text
    assert "pipeline can do, on mini-flickr8k." in page.text
    assert results_table(one, inputs.metrics_dir).startswith("far (mini-flickr8k), test: 24 rec")
    text = (tmp_path / "out/results.md").read_text(encoding="utf-8")
    what = "- full: transcripts and voice, 4 prompts"
    assert f"## far\n\n{what}\n\n**mini-flickr8k, test**: 24 recordings" in text
    # Without a baseline there is nothing to compare with.
    assert "Differences" not in page.text
    assert "By lot: from a recording to its picture" in page.text


def test_hostile_names_stay_text(tmp_path: Path, params: Params) -> None:
    """The settings allow none; a page does not rely on that."""
    rows = {"zero-shot": "mini-flickr8k-zero-shot", report_world.HOSTILE: "mini-flickr8k-full"}
    one = with_table(params, "<img src=x>", rows, baseline="zero-shot")
    inputs = report_world.make_world(tmp_path / "world", one)
    write_report(one, inputs, tmp_path / "out")
    page = Page((tmp_path / "out/index.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert page.tags.count("script") == 1
    assert "img" not in page.tags
    assert "<img src=x> (mini-flickr8k)" in page.text
    assert f"{report_world.HOSTILE} is better than zero-shot by" in page.text
