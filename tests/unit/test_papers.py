"""The papers' tables over all corpora, and the files of figures, from a made-up world."""

import csv
import json
import xml.dom.minidom
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import report_world
import yaml

from brewline.config import Params
from brewline.config.loading import parse_params
from brewline.config.published import load_published
from brewline.evaluation.outputs import Metrics
from brewline.pages import charts
from brewline.pages.figures import Figure, alone, line_rows, write_figures
from brewline.report.page import write_report
from brewline.report.paper_tables import paper_tables
from brewline.report.papers import PaperTable

PUBLISHED = load_published(report_world.PROJECT / "published.yaml")
FLICKR, LN = "mini-flickr8k", "mini-lncoco"


def given(**changes: Any) -> dict[str, Any]:
    """The shipped parameters with further experiments and rows."""
    values: dict[str, Any] = yaml.safe_load((report_world.PROJECT / "params.yaml").read_text())
    further = {
        f"{LN}-e2e": (LN, LN, "e2e", "mini-e2e", "none", "e2e"),
        f"{LN}-full-of-flickr8k": (LN, LN, "full", "none", f"{FLICKR}-full", "moved"),
        f"{FLICKR}-prompted-captions": (FLICKR, "none", "prompted-captions", "mini", "none", "gt"),
        f"{FLICKR}-again": (FLICKR, FLICKR, "full", "none", f"{FLICKR}-full", "again"),
    }
    for name, (data, states, variant, recipe, init, row) in further.items():
        one = {"data": data, "states": states, "variant": variant, "recipe": recipe, "init": init}
        values["experiments"][name] = {"task": "retrieval"} | one
        values["tables"][data]["rows"][row] = name
    values["evaluate"]["recall_at"] = [1, 5]
    return values | changes


def measured(params: Params) -> Metrics:
    """Another number everywhere, and galleries of other sizes."""
    number = 0
    metrics: Metrics = {}
    for place, (name, table) in enumerate(params.tables.items()):
        metrics[name] = {}
        for row in table.rows:
            values = {"num_seeds": 2.0}
            for direction, kind in (("speech_to_image", ""), ("image_to_speech", "any_hit_")):
                for k in params.evaluate.recall_at:
                    number += 1
                    key = f"test/{direction}/{kind}recall_at_{k}"
                    values |= {key: number / 1000, f"{key}_low": 0.0, f"{key}_high": 0.9}
                values[f"test/{direction}/num_queries"] = 1_000 + place
                values[f"test/{direction}/gallery_size"] = 100 + place
            metrics[name][row] = values
    return metrics


def tables_of(values: dict[str, Any]) -> tuple[Metrics, dict[int, PaperTable]]:
    params = parse_params(values)
    metrics = measured(params)
    found = paper_tables(params, metrics, {}, PUBLISHED)
    return metrics, {table.number: table for table in found}


def lines(table: PaperTable) -> dict[str, dict[tuple[str, str], float]]:
    """By line, corpus and metric, its numbers."""
    return {
        line.name: {
            (column.corpus, column.metric): cell.value
            for column, cell in zip(table.columns, line.cells, strict=True)
            if cell is not None
        }
        for line in table.lines
    }


def expected(metrics: Metrics, rows: Mapping[str, str], *ks: int) -> dict[tuple[str, str], float]:
    """The numbers of one row in each table."""
    return {
        (corpus, metric): metrics[corpus][row][metric]
        for corpus, row in rows.items()
        for metric in metrics[corpus][row]
        if metric.endswith(tuple(f"recall_at_{k}" for k in ks))
    }


def test_a_row_stands_where_what_it_is_belongs() -> None:
    _, tables = tables_of(given())
    assert list(tables) == [1, 2, 4, 5]
    # In the order of `variants`.
    assert list(lines(tables[1])) == ["zero-shot", "prompted", "e2e", "full", "again"]
    assert list(lines(tables[2])) == ["prompted", "gt", "e2e", "full"]
    assert list(lines(tables[4])) == ["zero-shot", "zero-shot-captions"]
    assert list(lines(tables[5])) == [f"full, trained on {one}" for one in (FLICKR, LN)]


def test_numbers_are_those_of_the_rows() -> None:
    metrics, tables = tables_of(given())
    both = {FLICKR: "full", LN: "full"}
    for number in (1, 2):
        found = lines(tables[number])
        assert found["full"] == expected(metrics, both, 1, 5)
        assert found["e2e"] == expected(metrics, {FLICKR: "e2e", LN: "e2e"}, 1, 5)
    assert lines(tables[1])["prompted"] == expected(metrics, {LN: "prompted"}, 1, 5)
    assert lines(tables[4])["zero-shot-captions"] == expected(
        metrics, {LN: "zero-shot-captions"}, 1, 5
    )


def test_lines_of_table_five_are_what_was_trained_and_columns_what_is_measured() -> None:
    metrics, tables = tables_of(given())
    found = lines(tables[5])
    # Of the same models twice, the first row.
    assert found[f"full, trained on {FLICKR}"] == expected(
        metrics, {FLICKR: "full", LN: "moved"}, 5
    )
    assert found[f"full, trained on {LN}"] == expected(
        metrics, {FLICKR: "full-of-lncoco", LN: "full"}, 5
    )
    assert [line.what for line in tables[5].lines] == [
        f"{one}-full: transcripts and voice, 4 prompts" for one in (FLICKR, LN)
    ]
    assert {column.label for column in tables[5].columns} == {"R@5"}
    assert "has them the other way round" in tables[5].said
    assert "not measured here" not in tables[5].said


def test_every_column_says_of_how_many_it_is() -> None:
    _, tables = tables_of(given())
    assert tables[1].groups == [
        (f"{FLICKR}, speech → image", "100 pictures, 1,000 recordings", 2),
        (f"{FLICKR}, image → speech", "100 pictures, 1,000 recordings", 2),
        (f"{LN}, speech → image", "101 pictures, 1,001 recordings", 2),
        (f"{LN}, image → speech", "101 pictures, 1,001 recordings", 2),
    ]
    for table in tables.values():
        # What was counted, on what, how it was chosen, and what the interval is over.
        assert "R@K in %: queries of test with a right answer" in table.said
        assert "Checkpoints were chosen on dev." in table.said
        assert "95 % interval, over pictures and over seeds" in table.said


def test_rows_of_one_name_and_another_variant_are_two_lines() -> None:
    values = given()
    values["tables"][LN]["rows"]["full"] = f"{LN}-e2e"
    del values["tables"][LN]["rows"]["e2e"]
    _, tables = tables_of(values)
    names = [line.name for line in tables[2].lines]
    assert names.count("full") == 2
    cells = [line.cells for line in tables[2].lines if line.name == "full"]
    # e2e comes before full, and the two share no column.
    assert [[cell is not None for cell in line] for line in cells] == [
        [False] * 4 + [True] * 4,
        [True] * 4 + [False] * 4,
    ]


def test_two_tables_on_a_corpus_have_columns_of_their_own() -> None:
    values = given()
    values["tables"]["ablation"] = {"data": LN, "rows": {"full": f"{LN}-full"}}
    metrics, tables = tables_of(values)
    groups = [group for group, _, _ in tables[1].groups]
    assert f"{LN}, speech → image (ablation)" in groups
    (full,) = [line for line in tables[1].lines if line.name == "full"]
    last = metrics["ablation"]["full"]["test/image_to_speech/any_hit_recall_at_5"]
    assert full.cells[-1] is not None
    assert full.cells[-1].value == last


def test_a_table_without_rows_is_not_there() -> None:
    values = given()
    values["tables"] = {LN: {"data": LN, "rows": {"full": f"{LN}-full"}}}
    _, tables = tables_of(values)
    assert list(tables) == [1, 2]
    values["tables"] = {}
    assert tables_of(values)[1] == {}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_report(report_world.params(), report_world.make_world(folder), folder / "out")
    return folder


def test_each_table_lies_beside_the_page_as_csv_and_markdown(out: Path) -> None:
    page = (out / "out/index.html").read_text()
    for number in range(1, 6):
        markdown = (out / f"out/papers/table-{number}.md").read_text()
        assert markdown.startswith(f"## Table {number}: ")
        assert "\n> A program made mini-" in markdown
        for suffix in ("csv", "md"):
            assert f'href="papers/table-{number}.{suffix}"' in page
    rows = list(csv.DictReader((out / "out/papers/table-1.csv").open()))
    metrics = json.loads((out / f"metrics/{LN}.json").read_text())
    for row in rows:
        if row["corpus"] == LN:
            values = metrics[row["line"]]
            assert float(row["value"]) == values[row["metric"]]
            assert float(row["low"]) == values[f"{row['metric']}_low"]
            assert row["measured_on"] == "12 pictures, 24 recordings"
            assert (row["measured_here"], row["published_gallery"]) == ("yes", "")
    assert {row["line"] for row in rows} == {"zero-shot", "prompted", "e2e", "full"}
    emotions = list(csv.DictReader((out / "out/papers/table-3.csv").open()))
    (name,) = report_world.params().probes
    heard = json.loads((out / f"metrics/probe/{name}.json").read_text())
    (one,) = [
        row
        for row in emotions
        if row["line"] == "full: the acoustic channel alone"
        and row["metric"] == "by_speaker/strict4/accuracy"
    ]
    assert float(one["value"]) == heard["full/acoustic"]["by_speaker/strict4/accuracy"]
    assert one["measured_on"] == "72 recordings, 6 speakers"
    markdown = (out / "out/papers/table-3.md").read_text()
    # Nothing of it was chosen on dev, and nobody drew pictures.
    assert "Accuracy in %, of recordings of speakers who were not heard in training" in markdown
    assert "were chosen on other speakers of training" in markdown
    assert "interval, over speakers and over runs" in markdown
    assert "dev" not in markdown
    assert f"\n- {one['corpus']}, by_speaker, strict4: {one['measured_on']}\n" in markdown


def test_every_figure_of_the_page_is_a_drawing_and_a_table_too(out: Path) -> None:
    page = (out / "out/index.html").read_text()
    names = {path.stem for path in (out / "out/figures").iterdir()}
    assert page.count('<figure class="figure">') == len(names)
    for name in names:
        assert page.count(f'href="figures/{name}.svg"') == 1
        text = (out / f"out/figures/{name}.svg").read_text()
        xml.dom.minidom.parseString(text)
        assert "var(" not in text
        rows = list(csv.DictReader((out / f"out/figures/{name}.csv").open()))
        assert rows, name
    recall = csv.DictReader((out / f"out/figures/{LN}-recall-speech_to_image.csv").open())
    drawn = {(row["line"], float(row["x"])): float(row["y"]) for row in recall}
    source = csv.DictReader((out / f"reports/evaluation/{LN}/recall.csv").open())
    assert drawn == {
        (row["row"], float(row["k"])): float(row["recall"])
        for row in source
        if row["direction"] == "speech_to_image"
    }
    buckets = list(csv.DictReader((out / f"out/figures/{LN}-buckets-speaker.csv").open()))
    # Those without a recall are in no chart.
    assert {row["bucket"] for row in buckets} == {"speaker 0", "speaker 2"}


def test_a_drawing_alone_has_its_legend_and_hostile_names_stay_text(tmp_path: Path) -> None:
    name = '<script>alert("x")</script>'
    series = [charts.Series(name, [(1.0, 0.5), (2.0, 0.7)], 3)]
    svg = charts.line_chart(series, name, "x", "y", True)
    figure = Figure.of(("a/b", "c+d"), name, svg, line_rows(series), {name: 3})
    assert figure.name == "a-b-c-d"
    text = alone(figure)
    root = xml.dom.minidom.parseString(text).documentElement
    assert root is not None
    assert not root.getElementsByTagName("script")
    texts = [one.firstChild for one in root.getElementsByTagName("text")]
    assert name in [one.data for one in texts if isinstance(one, xml.dom.minidom.Text)]
    write_figures([figure], tmp_path / "figures")
    with pytest.raises(ValueError, match="of one name"):
        write_figures([figure, figure], tmp_path / "figures")
    assert len(list((tmp_path / "figures").iterdir())) == 2


def test_values_stand_at_their_places() -> None:
    one = charts.Range("row", 0.25, 0.0, 0.5, 1)
    svg = charts.range_chart([("group", [one]), ("empty", [])], "title", "recall in %")
    # From 96 to 370, up to 50 %.
    assert 'cx="233.0"' in svg
    assert 'd="M96.0 15.5H370.0"' in svg
    assert svg.count("<circle") == 1
    assert ">empty</text>" in svg
