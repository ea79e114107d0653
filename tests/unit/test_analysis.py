"""Why models find what they find: hand-made values, and slow computations of their own."""

import csv
import itertools
import json
import xml.etree.ElementTree
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from analysis_world import write_made_analysis
from sklearn.linear_model import LogisticRegression

from brewline.analysis.attention_queries import choose_queries
from brewline.analysis.channels import (
    describe_channels,
    find_disagreements,
    measure_channels,
    outcome_of,
)
from brewline.analysis.crops import crop_failures
from brewline.analysis.groups import choose_groups
from brewline.analysis.inputs import TableInputs, TableRow
from brewline.analysis.logistic import fit_logistic, has_end
from brewline.analysis.map_figures import draw_picture_map, draw_sound_map
from brewline.analysis.rates import recall_between
from brewline.analysis.spectrogram import spectrogram
from brewline.analysis.word_errors import (
    HeardQueries,
    curve_points,
    find_repairs,
    recall_over_wer,
    select_queries,
)
from brewline.config import Params, load_params
from brewline.config.analyse import AnalyseParams
from brewline.core.errors import BrewlineError
from brewline.evaluation.bootstrap import Bootstrap
from brewline.evaluation.ranks import rank_both_ways
from brewline.evaluation.vectors import ACOUSTIC, TEXT, Embeddings, SplitEmbeddings
from brewline.models.crop_box import CropBox
from brewline.report.analysis import AnalysedTable, analysis_section, slopes_verdict
from brewline.report.analysis_figures import word_error_figure
from brewline.report.examples import ExampleArranger

BOOTSTRAP = Bootstrap(200, 3, 0.9)


# --- Logistic regression


def test_two_values_give_the_slope_by_hand() -> None:
    """Nine of twelve hit at 0.2, two of eight at 0.7: the log-odds go from log 3 to -log 3."""
    intercept, slope = fit_logistic(
        np.array([[9.0, 2.0]]), np.array([[12.0, 8.0]]), np.array([0.2, 0.7])
    )
    assert slope[0] == pytest.approx(-2 * np.log(3) / 0.5, abs=1e-9)
    assert intercept[0] == pytest.approx(np.log(3) * (1 + 0.4 / 0.5), abs=1e-9)


def test_slopes_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    values = np.linspace(0, 1, 15)
    compared = 0
    for _ in range(40):
        place = rng.integers(0, 15, 150)
        odds = rng.normal() + 6 * rng.normal() * values[place]
        hit = rng.random(150) < 1 / (1 + np.exp(-odds))
        hits, counts = np.bincount(place, hit, 15), np.bincount(place, minlength=15)
        (intercept,), (slope,) = fit_logistic(hits[None], counts[None].astype(float), values)
        if not np.isfinite(slope) or abs(slope) > 40:
            continue
        other = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000)
        other.fit(values[place][:, None], hit)
        assert slope == pytest.approx(other.coef_[0, 0], abs=1e-5, rel=1e-5)
        assert intercept == pytest.approx(other.intercept_[0], abs=1e-5, rel=1e-5)
        compared += 1
    assert compared > 30


@pytest.mark.parametrize(
    ("hits", "misses", "slope"),
    [
        ([3, 3, 0, 0], [0, 0, 2, 2], -1),
        ([0, 0, 1, 1], [4, 4, 0, 0], 1),
        # One value has both; beyond it there are hits or misses alone.
        ([3, 1, 0, 0], [0, 2, 2, 0], -1),
        ([0, 0, 1, 1], [1, 1, 1, 0], 1),
        ([1, 1, 1, 1], [0, 0, 0, 0], None),
        ([0, 0, 0, 0], [1, 0, 2, 0], None),
        ([0, 2, 0, 0], [0, 3, 0, 0], None),
    ],
)
def test_what_one_value_parts_has_no_slope(
    hits: list[int], misses: list[int], slope: int | None
) -> None:
    counts = np.array(hits, float) + np.array(misses, float)
    intercepts, found = fit_logistic(np.array([hits], float), counts[None], np.linspace(0, 1, 4))
    assert np.isnan(intercepts[0])
    assert not has_end(found)[0]
    # Neither is a mean with one that has an end.
    assert not has_end((found + 4 * np.array([-6.0])) / 5)[0]
    assert np.isnan(found[0]) if slope is None else np.sign(found[0]) == slope


def test_a_steep_slope_that_has_an_end_is_told() -> None:
    counts = np.array([[5000.0, 1.0, 1.0, 5000.0]])
    values = np.array([0.0, 0.499, 0.501, 1.0])
    _, (slope,) = fit_logistic(np.array([[4999.0, 0.0, 1.0, 1.0]]), counts, values)
    assert has_end(np.array(slope))
    assert slope == pytest.approx(-2 * np.log(4999), rel=0.01)


def test_samples_are_fitted_one_by_one() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 9, (30, 6)).astype(float)
    hits = rng.binomial(counts.astype(int), 0.5).astype(float)
    values = np.linspace(0, 0.8, 6)
    together = fit_logistic(hits, counts, values)
    for row in range(30):
        alone = fit_logistic(hits[row : row + 1], counts[row : row + 1], values)
        np.testing.assert_allclose([one[0] for one in alone], [one[row] for one in together])


# --- Word errors

WER = {"a1": 0.0, "a2": 0.5, "b1": 0.25, "b2": 1.0, "c1": 0.25, "d1": 1.5}
IMAGE = {"a1": "a", "a2": "a", "b1": "b", "b2": "b", "c1": "c", "d1": "d", "e1": "e"}


def test_queries_have_a_rate_of_one_at_most() -> None:
    found = select_queries({**WER, "train-1": 0.0}, IMAGE)
    assert set(found.wer_of) == {"a1", "a2", "b1", "b2", "c1"}
    assert (found.num_without_caption, found.num_beyond) == (1, 1)
    assert found.images == ["a", "a", "b", "b", "c"]


def made_queries(rng: np.random.Generator, number: int) -> HeardQueries:
    names = [f"u{n}" for n in range(number)]
    wer_of = {
        name: round(float(rate), 1) for name, rate in zip(names, rng.random(number), strict=True)
    }
    return HeardQueries(wer_of, {name: f"i{n // 2}" for n, name in enumerate(names)}, 0, 0)


def made_ranks(queries: HeardQueries, rng: np.random.Generator, slope: float) -> dict[str, int]:
    chance = {
        name: 1 / (1 + np.exp(-(1.5 + slope * rate))) for name, rate in queries.wer_of.items()
    }
    return {name: 1 if rng.random() < one else 9 for name, one in chance.items()}


def test_slopes_and_intervals_are_those_of_a_slow_bootstrap() -> None:
    """Images are drawn with their recordings, seeds too, and scikit-learn fits each sample."""
    rng = np.random.default_rng(5)
    queries = made_queries(rng, 120)
    models = [made_ranks(queries, rng, -4), made_ranks(queries, rng, -3)]
    bootstrap = Bootstrap(20, 7, 0.9)
    found = recall_over_wer({"row": models}, queries, [], 5, 2, bootstrap)
    x = np.array(list(queries.wer_of.values()))

    def slope(rank_of: Mapping[str, int], weights: Any) -> float:
        hit = np.array([rank_of[name] <= 5 for name in queries.wer_of])
        fit = LogisticRegression(C=np.inf, tol=1e-9, max_iter=5000)
        return float(fit.fit(x[:, None], hit, sample_weight=weights).coef_[0, 0])

    (fit,) = found["fits"]
    slopes = [slope(one, np.ones(120)) for one in models]
    assert fit["slope"] == pytest.approx(np.mean(slopes), abs=1e-4)
    assert fit["odds_ratio"] == pytest.approx(np.exp(np.mean(slopes) / 10), abs=1e-5)
    images = sorted(set(queries.images))
    drawn = []
    for weights in bootstrap.weights(len(images)):
        times = dict(zip(images, weights, strict=True))
        of_query = np.array([times[image] for image in queries.images])
        drawn.append([slope(one, of_query) for one in models])
    over_seeds = bootstrap.over_seeds([np.array(one) for one in zip(*drawn, strict=True)])
    assert (fit["low"], fit["high"]) == pytest.approx(bootstrap.interval(over_seeds), abs=1e-3)
    assert fit["odds_ratio_low"] == pytest.approx(np.exp(fit["low"] / 10))
    # The curve is the mean over seeds too, and falls.
    curve = curve_points(found["curves"]["row"])
    assert [rate for rate, _ in curve] == pytest.approx(np.linspace(0, 1, 21))
    assert all(one > two for (_, one), (_, two) in itertools.pairwise(curve))


def test_a_row_that_word_errors_cost_less_is_told_apart() -> None:
    rng = np.random.default_rng(2)
    queries = made_queries(rng, 1500)
    ranks = {
        "full": [made_ranks(queries, rng, -0.5) for _ in range(2)],
        "prompted": [made_ranks(queries, rng, -4) for _ in range(2)],
    }
    pairs = [("full", "prompted"), ("prompted", "full")]
    found = recall_over_wer(ranks, queries, pairs, 5, 2, BOOTSTRAP)
    one, other = found["differences"]
    assert 0 < one["low"] < one["difference"] < one["high"]
    assert other["difference"] == pytest.approx(-one["difference"])
    assert other["high"] < 0
    slopes = {fit["row"]: fit["slope"] for fit in found["fits"]}
    assert one["difference"] == pytest.approx(slopes["full"] - slopes["prompted"])


def test_seeds_of_two_rows_are_drawn_apart() -> None:
    """A row against itself has no difference, and seeds that differ leave doubt about it."""
    rng = np.random.default_rng(2)
    queries = made_queries(rng, 400)
    models = [made_ranks(queries, rng, -1), made_ranks(queries, rng, -5)]
    ranks = {"one": models, "same": models}
    (found,) = recall_over_wer(ranks, queries, [("one", "same")], 5, 2, BOOTSTRAP)["differences"]
    assert found["difference"] == 0
    assert found["low"] < -2 and found["high"] > 2


def test_rates_are_counted_between_error_rates() -> None:
    queries = select_queries(WER, IMAGE)
    ranks = {"row": [{"a1": 1, "a2": 9, "b1": 2, "b2": 9, "c1": 9}]}
    found = recall_over_wer(ranks, queries, [], 5, 2, BOOTSTRAP)["rates"]
    by_end = {one["to"]: one for one in found}
    assert [one["from"] for one in found] == [0.0, 0.2, 0.3, 0.5]
    # One picture is too few.
    assert by_end[0.0]["recall"] is None and by_end[0.0]["num_queries"] == 1
    assert by_end[0.3]["recall"] == pytest.approx(1 / 2)
    assert (by_end[0.3]["mean"], by_end[0.3]["num_images"]) == (0.25, 2)
    assert by_end[0.3]["low"] <= 0.5 <= by_end[0.3]["high"]


def test_nothing_is_said_where_nobody_misses() -> None:
    queries = select_queries(WER, IMAGE)
    ranks = {"row": [dict.fromkeys(WER, 1)], "other": [{**dict.fromkeys(WER, 1), "b2": 9}]}
    found = recall_over_wer(ranks, queries, [("row", "other")], 5, 2, BOOTSTRAP)
    fit, parted = found["fits"]
    assert fit["slope"] is None and fit["odds_ratio"] is None and fit["low"] is None
    assert curve_points(found["curves"]["row"]) == []
    drawn = word_error_figure("tiny", found, {"row": 0, "other": 1})
    assert drawn and "<polyline" not in drawn.svg and drawn.svg.count("<circle") == 2
    assert [row["row"] for row in drawn.rows] == ["row", "other"]
    few = recall_over_wer(ranks, queries, [], 5, 9, BOOTSTRAP)
    assert word_error_figure("tiny", few, {"row": 0, "other": 1}) is None
    # The only one that misses has the highest rate: there is no end to the slope.
    assert parted["slope"] is None and parted["low"] is None
    assert found["differences"][0]["difference"] is None
    json.dumps(found, allow_nan=False)


def test_without_captions_there_are_no_rates() -> None:
    found = recall_over_wer({"row": [{}]}, select_queries({}, {"u": "i"}), [], 5, 2, BOOTSTRAP)
    assert found["rates"] == [] and found["num_without_caption"] == 1
    assert found["fits"] == [] and found["curves"] == {}
    assert word_error_figure("tiny", found, {"row": 0}) is None
    json.dumps(found, allow_nan=False)


def test_repairs_are_hits_at_a_wrong_transcript_that_the_other_misses() -> None:
    queries = select_queries({**WER, "e1": 0.25}, IMAGE)
    ours = {"a1": 1, "a2": 5, "b1": 1, "b2": 9, "c1": 1, "e1": 2}
    theirs = {"a1": 9, "a2": 6, "b1": 20, "b2": 1, "c1": 30, "e1": 5}
    found = find_repairs(ours, theirs, queries, 5)
    # Highest rate first, then where the other is farther off; a1 was heard right.
    assert found.repaired == ["a2", "c1", "b1"]
    assert found.broken == ["b2"]


# --- Channels


def channel_split() -> SplitEmbeddings:
    """Three pictures; F_A is short and right of one, F_T long and right of two."""
    eye = np.eye(3, dtype=np.float32)
    acoustic = 0.5 * eye[[0, 0, 1]] + 0.01 * eye[[1, 2, 0]]
    text = 3.0 * eye[[1, 1, 2]] + 0.01 * eye[[2, 0, 0]]
    total = acoustic + text
    return SplitEmbeddings(
        ["u0", "u1", "u2"],
        ["i0", "i1", "i2"],
        (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32),
        ["i0", "i1", "i2"],
        eye,
        {ACOUSTIC: acoustic.astype(np.float32), TEXT: text.astype(np.float32)},
    )


def test_channels_are_measured_and_ranked_alone() -> None:
    split = channel_split()
    found = measure_channels(split)
    assert found.norms[ACOUSTIC] == pytest.approx([0.5001] * 3, abs=1e-4)
    assert found.norms[TEXT] == pytest.approx([3.0] * 3, abs=1e-3)
    a, t = split.channels[ACOUSTIC][0], split.channels[TEXT][0]
    assert found.cosines[0] == pytest.approx(
        a @ t / np.linalg.norm(a) / np.linalg.norm(t), abs=1e-6
    )
    assert found.ranks[ACOUSTIC].best.tolist() == [1, 3, 3]
    assert found.ranks[TEXT].best.tolist() == [3, 1, 1]
    # The sum follows the longer one.
    assert found.ranks["fused"].best.tolist() == [2, 1, 1]
    images = split.image_ids
    described = describe_channels([found, found], split.utterance_image_ids, images, 1, BOOTSTRAP)
    shares = {name: one["share"] for name, one in described["outcomes"].items()}
    assert shares == pytest.approx({"both": 0, ACOUSTIC: 1 / 3, TEXT: 2 / 3, "neither": 0})
    sums = {name: one["found_by_sum"] for name, one in described["outcomes"].items()}
    assert sums == pytest.approx({"both": 0, ACOUSTIC: 0, TEXT: 2 / 3, "neither": 0})
    forward = "speech_to_image/recall_at_1"
    recalls = {name: one[forward]["value"] for name, one in described["recall"].items()}
    assert recalls == pytest.approx({ACOUSTIC: 1 / 3, TEXT: 2 / 3, "fused": 2 / 3})
    assert described["norms"][TEXT][1] == pytest.approx(3.0, abs=1e-3)
    for name in (ACOUSTIC, TEXT):
        assert sum(described["histogram"][name]) == pytest.approx(1)


def test_a_channel_alone_is_ranked_as_its_directions_are() -> None:
    rng = np.random.default_rng(0)

    def drawn(number: int) -> Embeddings:
        return rng.standard_normal((number, 6)).astype(np.float32)

    def unit(vectors: Embeddings) -> Embeddings:
        units: Embeddings = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return units

    acoustic, text, images = drawn(20), drawn(20), unit(drawn(10))
    image_ids = [f"i{n}" for n in range(10)]
    split = SplitEmbeddings(
        [f"u{n}" for n in range(20)], [f"i{n // 2}" for n in range(20)], unit(acoustic + text),
        image_ids, images, {ACOUSTIC: acoustic, TEXT: text},
    )  # fmt: skip
    found = measure_channels(split)
    # Lengths do not matter.
    longer = rng.uniform(0.1, 9, (20, 1)).astype(np.float32)
    forward, backward = rank_both_ways(
        unit(acoustic * longer), images, split.utterance_image_ids, image_ids
    )
    assert found.ranks[ACOUSTIC].best.tolist() == forward.best.tolist()
    assert found.backward[ACOUSTIC].best.tolist() == backward.best.tolist()


def test_a_channel_of_zeros_finds_nothing() -> None:
    split = channel_split()
    silent = SplitEmbeddings(
        *list(vars(split).values())[:5],
        {ACOUSTIC: np.zeros((3, 3), np.float32), TEXT: split.channels[TEXT]},
    )
    found = measure_channels(silent)
    assert found.ranks[ACOUSTIC].best.tolist() == [3, 3, 3]
    assert found.cosines.tolist() == [0, 0, 0]


def test_channels_disagree_where_one_finds_what_the_other_misses() -> None:
    found = find_disagreements(measure_channels(channel_split()), 1)
    assert found == {ACOUSTIC: ["u0"], TEXT: ["u1", "u2"]}
    assert find_disagreements(measure_channels(channel_split()), 3) == {ACOUSTIC: [], TEXT: []}
    assert [outcome_of(*each) for each in ((True, True), (True, False), (False, True))] == [
        "both", ACOUSTIC, TEXT,
    ]  # fmt: skip
    assert outcome_of(acoustic=False, text=False) == "neither"


# --- Crops


def test_a_crop_fails_where_much_is_lost_and_the_picture_is_missed() -> None:
    lost = {"a1": 0.3, "a2": 0.3, "b1": 0.25, "c1": 0.1, "d1": 0.2, "e1": 0.5}
    ranks = {"a1": 8, "a2": 20, "b1": 30, "c1": 99, "d1": 6, "e1": 5}
    # Of the two recordings of one picture the one that is farther off; d1 loses just enough.
    assert crop_failures(lost, ranks, IMAGE, 5, 0.2) == ["b1", "a2", "d1"]
    assert crop_failures(lost, ranks, IMAGE, 5, 0.6) == []


def test_recall_is_given_by_what_is_lost() -> None:
    lost = {"a1": 0.0, "b1": 0.25, "b2": 0.25, "c1": 0.25, "d1": 0.4}
    ranks = {"row": [{"a1": 1, "b1": 1, "b2": 9, "c1": 9, "d1": 1}]}
    found = list(recall_between((0.02, 0.26, 0.34, 1.0), lost, ranks, IMAGE, 5, 2, BOOTSTRAP))
    assert [(one["from"], one["to"], one["num_queries"]) for one in found] == [
        (0.0, 0.02, 1),
        (0.02, 0.26, 3),
        (0.34, 1.0, 1),
    ]
    assert found[1]["recall"] == pytest.approx(1 / 3)


# --- What is shown


def table_inputs() -> TableInputs:
    """Six rows; full finds b1 and c1, which were heard wrong, and misses the wide picture of a."""
    rows = {
        "captions": TableRow(["x/frozen"], "caption", False, 0.9),
        "zero-shot": TableRow(["z/frozen"], "asr", False, 0.3),
        "e2e": TableRow(["e/seed-0"], None, True, 0.7),
        "full": TableRow(["f/seed-0", "f/seed-1"], "asr", True, 0.5),
        "worse": TableRow(["w/seed-0"], "asr", True, 0.4),
        "full-captions": TableRow(["c/seed-0"], "caption", True, 0.8),
    }
    names = ("a1", "a2", "b1", "c1", "d1")
    misses = dict.fromkeys(names, 9)
    ranks = {row: [misses] * len(one.models) for row, one in rows.items()}
    # The second seed finds everything, and is not looked at.
    ranks["full"] = [{**misses, "b1": 1, "c1": 4}, dict.fromkeys(names, 1)]
    return TableInputs(
        corpus="tiny",
        rows=rows,
        contenders=["zero-shot", "e2e", "full", "worse"],
        pairs=[(row, "zero-shot") for row in rows if row != "zero-shot"] + [("full", "e2e")],
        ranks=ranks,
        image_of={name: IMAGE[name] for name in names},
        wer_of={name: WER[name] for name in names},
        texts={},
        size_of={},
        project=Path(),
    )


SHOWN = AnalyseParams(hit_at=5, num_shown=1, min_lost=0.2, attention_queries=2)
WIDE, SQUARE = CropBox(0.15, 0, 0.7, 1), CropBox(0, 0, 1, 1)
BOXES = {"a": WIDE, "b": SQUARE, "c": WIDE, "d": SQUARE}


def test_rows_are_chosen_on_dev_among_those_that_hear() -> None:
    inputs = table_inputs()
    assert inputs.shown_row == "e2e"
    assert inputs.fullest_row == "full"
    assert inputs.with_two_channels == ["full", "worse", "full-captions"]


def test_rows_of_others_are_compared_and_their_models_not_looked_at() -> None:
    theirs = TableRow(["peer/external"], None, False, 0.99, is_ours=False)
    inputs = table_inputs()
    ranks = {**inputs.ranks, "peer": [dict.fromkeys(inputs.image_of, 1)]}
    rows, contenders = {**inputs.rows, "peer": theirs}, [*inputs.contenders, "peer"]
    mixed = replace(inputs, rows=rows, contenders=contenders, ranks=ranks)
    assert mixed.shown_row == "peer"
    assert mixed.fullest_row == "full"
    assert mixed.with_two_channels == inputs.with_two_channels
    # Where nobody else hears, ours that read captions are looked at all the same.
    ceiling = replace(mixed, rows={"captions": rows["captions"], "peer": theirs})
    assert replace(ceiling, contenders=["peer"]).fullest_row == "captions"
    alone = replace(mixed, rows={"peer": theirs}, contenders=["peer"], pairs=[])
    assert alone.fullest_row is None
    assert choose_queries(alone, [], 2, k=5, seed=0) == []


def test_a_repair_is_of_both_channels_over_transcripts_alone() -> None:
    inputs = table_inputs()
    queries = select_queries(inputs.wer_of, inputs.image_of)
    groups = choose_groups(inputs, queries, {}, BOXES, SHOWN)
    assert [(one.kind, one.row, one.facts.get("baseline")) for one in groups] == [
        ("repaired", "full", "zero-shot"),
        ("repaired", "worse", "zero-shot"),
        ("repaired", "full-captions", "zero-shot"),
        ("cropped", "e2e", None),
    ]
    full, worse, _, cropped = groups
    # Of three that were heard wrong; one is shown.
    assert (full.facts["num"], full.facts["num_broken"], full.facts["num_wrong"]) == (2, 0, 3)
    assert full.names == ["b1"] and worse.names == []
    assert (cropped.facts["num"], cropped.facts["num_images"]) == (2, 2)
    assert cropped.names == ["a1"]
    assert cropped.facts["boxes"] == {"a1": {"left": 0.15, "top": 0, "width": 0.7, "height": 1}}


def test_the_queries_of_maps_are_one_repair_and_others_that_are_found() -> None:
    inputs = table_inputs()
    queries = select_queries(inputs.wer_of, inputs.image_of)
    groups = choose_groups(inputs, queries, {}, BOXES, SHOWN)
    assert choose_queries(inputs, groups, 2, 5, 0) == ["b1", "c1"]
    assert choose_queries(inputs, groups, 1, 5, 0) == ["b1"]
    assert choose_queries(inputs, groups, 0, 5, 0) == []
    # No more than there are; without a repair the lot alone decides.
    assert set(choose_queries(inputs, [], 9, 5, 0)) == {"b1", "c1"}
    assert choose_queries(inputs, [], 9, 3, 0) == ["b1"]


# --- Figures


def test_a_tone_lies_where_its_frequency_is() -> None:
    times = np.arange(16_000) / 16_000
    found = spectrogram(np.sin(2 * np.pi * 1000 * times).astype(np.float32), 50)
    # A row is 40 Hz, the lowest is the last.
    assert found.shape[0] == 100
    assert 45 <= found.shape[1] <= 55
    assert set(found.argmax(axis=0)) == {99 - 25}
    assert (found.min(), found.max()) == (0.0, 1.0)
    assert spectrogram(np.zeros(10, np.float32), 50).shape[1] == 1


def test_figures_bring_everything_and_escape_words() -> None:
    words = [
        {"word": "<b>", "start_s": 0.0, "end_s": 0.1},
        {"word": "near", "start_s": 0.01, "end_s": 0.2},
        {"word": "far", "start_s": 0.9, "end_s": 1.0},
    ]
    svg = draw_sound_map(np.eye(5), 1.0, np.array([0.0, 1.0, 0.5]), 0.5, words)
    assert "&lt;b&gt;" in svg and "<b>" not in svg
    assert svg.count("<text") == 3 + 1
    # The third frame begins behind the end.
    assert 'width="720.0" height="22"' in svg
    picture = draw_picture_map(b"jpeg", 100, 80, [(np.eye(2), CropBox(0.1, 0, 0.8, 1))])
    assert 'x="10.00" y="0.00" width="80.00" height="80.00"' in picture
    assert "M10.00 0.00H90.00V80.00H10.00Z" in picture
    # Two squares side by side: only what neither sees is in the shade.
    squares = [(np.eye(2), CropBox(left, 0, 0.5, 1)) for left in (0, 0.4)]
    sides = draw_picture_map(b"jpeg", 100, 80, squares)
    assert sides.count("image/png") == 2 and "M0.00 0.00H90.00V80.00H0.00Z" in sides
    assert "http://www.w3.org/2000/svg" in picture
    assert all("http" not in part or "w3.org" in part for part in picture.split("href="))


# --- The page


FORWARD, BACKWARD = "speech_to_image/recall", "image_to_speech/any_hit_recall"


def made_analysis(root: Path, name: str) -> Params:
    """Writes what was found about a table of the shipped parameters."""
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    entries = [
        {"utterance_id": f"test-{n}", "image_id": "i", "transcript": "a", "caption": "a"}
        | {"kind": "lot", "rank": 1, "top": []}
        for n in range(2)
    ]
    examples = dict.fromkeys(params.tables[name].rows, entries)
    write_made_analysis(root, params, name, examples, b"jpeg")
    return params


class Arranger(ExampleArranger):
    """Takes no pictures."""

    def __init__(self) -> None:
        pass

    def player(self, utterance_id: str) -> str:
        return f"data:{utterance_id}"

    def group(self, anchor: str, group: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [{"anchor": anchor}] * len(group["examples"][group["row"]])


def test_the_page_has_what_was_found(tmp_path: Path) -> None:
    name = "mini-lncoco"
    params = made_analysis(tmp_path, name)
    styles = {row: number for number, row in enumerate(params.tables[name].rows)}
    for alone in ([], ["full"]):
        table = AnalysedTable(name, tmp_path / "reports/analysis" / name, styles, alone)
        section = analysis_section(table, Arranger())
        assert section["crops"]["min_lost"] == "20"
        assert len(section["crops"]["examples"]) == 2
        verdicts = [one["sentence"] for one in section["word_errors"]["differences"]]
        known = [one for one in verdicts if "cost full" in one]
        assert len(known) == 2
        assert not alone or all("luck" in one or "as far as" in one for one in known)
        # The direction that the column is of.
        (channels,) = section["channels"]
        path = tmp_path / "reports/analysis" / name / "channels.json"
        measured = json.loads(path.read_text())["full"]["recall"]["acoustic"]
        values = [measured[f"{one}_at_5"]["value"] for one in (FORWARD, BACKWARD)]
        assert values[0] != values[1]
        shown = [cell["text"] for cell in channels["signals"][0]["cells"]]
        assert shown == [f"{100 * value:.1f}" for value in values]
        (attended,) = section["attention"]
        assert attended["figures"]["sound"]["width"] == "720"
        assert attended["audio"] == "data:test-1"
        (said,) = section["keywords"]
        assert said["keywords"] == ["red", "car", "<i>"] and said["audio"] == "data:test-1"
    (tmp_path / "reports/analysis" / name / "attention-1-picture.svg").unlink()
    with pytest.raises(BrewlineError, match=r"picture.svg is missing; run `dvc repro analyse`"):
        analysis_section(table, Arranger())


@pytest.mark.parametrize(
    ("ends", "alone", "kind", "sentence"),
    [
        ((1.0, 3.0), [], "better", "word errors cost full less than prompted (difference of "),
        ((-3.0, -1.0), [], "worse", "word errors cost full more than prompted (difference of "),
        ((-1.0, 3.0), [], "unclear", "cost full as much as prompted, as far as can be told"),
        ((1.0, 3.0), ["full"], "unclear", "but full had one seed: that may be luck"),
    ],
)
def test_what_is_said_of_two_slopes(
    ends: tuple[float, float], alone: list[str], kind: str, sentence: str
) -> None:
    entry = {"row": "full", "baseline": "prompted", "low": ends[0], "high": ends[1]}
    found = slopes_verdict({**entry, "difference": sum(ends) / 2}, alone)
    assert found[0] == kind
    assert sentence in found[1]


def test_every_map_is_a_file_and_every_analysis_has_its_numbers(tmp_path: Path) -> None:
    made_analysis(tmp_path, "mini-lncoco")
    folder = tmp_path / "reports/analysis/mini-lncoco"
    figures = {path.name: path.read_text() for path in folder.glob("*.svg")}
    assert [*sorted(figures)] == [
        "attention-1-picture.svg", "attention-1-sound.svg",
    ]  # fmt: skip
    for text in figures.values():
        assert text.startswith('<svg xmlns="http://www.w3.org/2000/svg"')
        # Whatever they show is in them.
        assert all(part.startswith("data:") for part in text.split('href="')[1:])
        xml.etree.ElementTree.fromstring(text)
    assert {path.name for path in folder.glob("*.csv")} == {
        "attention.csv", "channels.csv", "crops.csv", "norms.csv", "slopes.csv", "word_errors.csv",
    }  # fmt: skip
    with (folder / "attention.csv").open() as file:
        rows = list(csv.DictReader(file))
    kinds = [row["kind"] for row in rows]
    assert [kinds.count(kind) for kind in ("patch", "word", "frame")] == [4, 3, 4]
    assert rows[-1]["what"] == "0.75 s" and float(rows[-1]["weight"]) == pytest.approx(0.2)
