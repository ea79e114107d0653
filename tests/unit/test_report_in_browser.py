"""The report in a browser: nothing sticks out, nothing fails, every table sorts.

It needs the extra `browser`, and Chromium where Debian has it; without them it is skipped.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import report_world
import yaml

from brewline.config.loading import parse_params
from brewline.report.page import write_report
from brewline.report.published import NOTHING

CHROMIUM = Path("/usr/bin/chromium")
# A phone, and a small laptop.
WIDTHS = (390, 1280)
TABLE = "mini-flickr8k"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all that there may be: vectors of others, and what others published too."""
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}")
    values = yaml.safe_load((report_world.PROJECT / "params.yaml").read_text())
    values["sources"][TABLE]["synthetic"] = False
    values["external"] = {"peer": {"data": TABLE, "utterances": "u.parquet", "images": "i.parquet"}}
    values["tables"][TABLE]["rows"]["somebody-elses-vectors"] = "peer"
    params = parse_params(values)
    root = tmp_path_factory.mktemp("world")
    write_report(params, report_world.make_world(root, params), root / "reports")
    return root / "reports"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(folder: Path, browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The report with everything unfolded; whatever the browser complains of fails the test."""
    opened = browser.new_page(viewport={"width": getattr(request, "param", 1280), "height": 900})
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("requestfailed", lambda one: complaints.append(one.url))
    opened.goto((folder / "index.html").as_uri())
    opened.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    yield opened
    opened.close()
    assert not complaints


@pytest.mark.parametrize("page", WIDTHS, indirect=True)
def test_nothing_sticks_out_of_the_page(page: Any) -> None:
    """Wide tables scroll by themselves; all else has its place on the page."""
    out = page.evaluate("""() => {
      const scrolls = (one) => one.closest(".scroll, nav div, pre, svg.defs");
      return [...document.body.querySelectorAll("*")]
        .filter((one) => !scrolls(one) && one.getBoundingClientRect().right > innerWidth + 1)
        .map((one) => one.outerHTML.slice(0, 120));
    }""")
    assert out == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("page", WIDTHS, indirect=True)
def test_no_text_is_smaller_than_one_can_read(page: Any) -> None:
    sizes = page.evaluate("""() => [...document.querySelectorAll("main *")]
      .filter((one) => !one.closest("svg") && one.textContent.trim() && one.offsetParent)
      .map((one) => parseFloat(getComputedStyle(one).fontSize))""")
    assert min(sizes) >= 10


def column(table: Any, place: int) -> list[str]:
    """What the cells of a column begin with, from top to bottom."""
    found: list[str] = table.evaluate(
        """(table, place) => [...table.tBodies[0].rows]
          .map((row) => row.cells[place].firstChild.textContent.trim())""",
        place,
    )
    return found


def test_every_table_sorts(page: Any) -> None:
    kinds = page.evaluate("[...document.querySelectorAll('table')].map((one) => one.className)")
    assert len(kinds) > 20
    assert [one for one in kinds if "sortable" not in one.split()] == []
    # The second line of the head, whose first column is the table's second one.
    table = page.locator(f"#{TABLE} table").first
    head = table.locator("thead tr").nth(1).locator("th").first
    assert head.inner_text() == "R@1"
    before = column(table, 1)
    for direction in (-1, 1):
        head.click()
        found = [float(one) for one in column(table, 1) if one != NOTHING]
        assert found == sorted(found, key=lambda one: direction * one)
        # What has no number stands at the foot.
        assert NOTHING not in column(table, 1)[: len(found)]
    assert column(table, 1) != before


def test_odds_are_sorted_by_their_number(page: Any) -> None:
    (place,) = [
        number
        for number, one in enumerate(page.locator("table").all())
        if "odds" in one.locator("thead").inner_text()
    ][:1]
    table = page.locator("table").nth(place)
    table.locator("thead th").nth(1).click()
    found = [float(one.removeprefix("× ")) for one in column(table, 1)]  # noqa: RUF001
    assert found == sorted(found, reverse=True)


def test_texts_are_sorted_as_texts(page: Any) -> None:
    """A hash that begins with digits is no number."""
    table = page.locator("#provenance table")
    table.locator("thead th").nth(1).click()
    found = column(table, 1)
    assert found == sorted(found, reverse=True)


def test_every_figure_is_a_file_of_lines_and_one_of_numbers(page: Any, folder: Path) -> None:
    figures = page.evaluate("""() => [...document.querySelectorAll("figure.figure")]
      .map((one) => [...one.querySelectorAll("a")].map((link) => link.getAttribute("href")))""")
    assert len(figures) > 10
    for links in figures:
        assert [Path(one).suffix for one in links] == [".svg", ".csv"]
        drawn, numbers = ((folder / one).read_text() for one in links)
        assert "<svg" in drawn
        # Below the names of its columns.
        assert len(numbers.splitlines()) > 1
    assert len({one for links in figures for one in links}) == 2 * len(figures)


def test_rows_of_others_say_what_they_are(page: Any) -> None:
    text = page.locator(f"#{TABLE} table").first.inner_text()
    assert "computed by others, from speech" in text
    # Of mini-flickr8k's reader and split, though not of its size.
    assert "SpeechCLIP-P (large)" in text
    assert "not measured here" in page.locator(f"#{TABLE}").inner_text()
