"""Draws `docs/study.md` and its figures from what the parts left: `python -m study.page`."""

import argparse
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from brewline.analysis.word_errors import curve_points
from brewline.core.errors import BrewlineError
from brewline.core.files import write_text
from brewline.evaluation.outputs import DIRECTION_NAMES, SPEECH_TO_IMAGE
from brewline.evaluation.sound_scores import (
    AUDIO_TO_IMAGE,
    AUDIO_TO_TEXT,
    IMAGE_TO_AUDIO,
    TEXT_TO_AUDIO,
)
from brewline.pages import charts
from brewline.pages.figures import Figure, legend_of, line_rows, write_figures
from study.definition import STUDY, load_study
from study.judging import (
    CHANCE,
    Check,
    Finding,
    Outcomes,
    Verdict,
    find,
    judge,
    load_claims,
    load_remarks,
    word_error_curves,
)
from study.parts import finished_outcomes

PAGE = Path("docs/study.md")
_HEAD = """# The study

The claims of BrewCLIP and of work on sounds, and some of ours, on the miniature world made larger.
Claims and thresholds were written down before the first run
([`study/claims.yaml`](../study/claims.yaml)), parameters are in
[`study/params.yaml`](../study/params.yaml); models are chosen on dev, and every number below is of
test. **Pictures are drawn and speech is synthesised: nothing here is comparable with a paper's
numbers**; what is tested is whether each part does what it is for.

```
make study                              # the parts that are missing, then this page
make study PART=models/captions-full    # one part
```

It needs espeak-ng ([`study/README.md`](../study/README.md)). Intervals cover {confidence:g} % and
are paired: all models of a corpus see the same drawn pictures (for emotions: speakers; for sounds:
clips), and the seeds of each model are drawn too. The page is drawn from the files in
`study/results/` alone.
"""
SOUND_NAMES = {
    AUDIO_TO_IMAGE: "sound to image",
    IMAGE_TO_AUDIO: "image to sound",
    AUDIO_TO_TEXT: "sound to text",
    TEXT_TO_AUDIO: "text to sound",
}
_ALL_NAMES = {**DIRECTION_NAMES, **SOUND_NAMES}
# In a cell without a number.
NOTHING = "-"
_RECALLS = (1, 5, 10)
_CURVE_AT = 5
# Who is compared over word errors, where the study has them.
_CURVES = ("narrations-full", "narrations-prompted", "narrations-zero-shot")


def draw(
    outcomes: Outcomes, verdicts: Sequence[Verdict], remarks: Mapping[str, str], page: Path
) -> None:
    """Writes the page, and its figures into a folder beside it.

    Args:
        outcomes: What the parts left.
        verdicts: What became of the claims.
        remarks: What people make of an outcome, by the names of claims.
        page: The Markdown file.
    """
    figures = [*_recall_figures(outcomes), *_curve_figures(outcomes)]
    folder = page.with_suffix("")
    if figures:
        write_figures(figures, folder)
    images = [f"![{one.title}]({folder.name}/{one.name}.svg)\n" for one in figures]
    parts = [
        _HEAD.format(confidence=100 * outcomes.interval.confidence),
        "## Claims\n",
        _table(
            ("claim", "of", "outcome"),
            ((one.claim.says, one.claim.source, f"**{one.words}**") for one in verdicts),
        ),
        *(_claim(one, remarks.get(one.name)) for one in verdicts),
        "## Models\n",
        "Recall in per cent, with its interval; a picture is to find any of its utterances, a "
        "sound any of its captions.\n",
        *(_models(outcomes, corpus) for corpus in outcomes.corpora),
        *images,
        "## Emotions\n" if outcomes.probes else "",
        *(_probe(outcomes, name) for name in outcomes.probes),
        "## Corpora\n",
        _corpora(outcomes),
    ]
    write_text(page, "\n".join(part for part in parts if part))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _claim(verdict: Verdict, remark: str | None) -> str:
    heading = f"### {verdict.claim.says}\n"
    if verdict.missing:
        return f"{heading}\nNot yet measured: the study has no {', no '.join(verdict.missing)}.\n"
    rows = [_finding(one) for one in verdict.findings]
    heads = ("check", "metric", "value", "interval", "has to lie", "does it")
    said = f"\n**{verdict.words.capitalize()}.** {remark or ''}".rstrip()
    return f"{heading}\n{_table(heads, rows)}{said}\n"


def _finding(found: Finding) -> Sequence[str]:
    check, is_slope = found.check, found.check.slope_over is not None
    # Slopes are of log-odds, all else are shares.
    scale, digits = (1, 2) if is_slope else (100, 1)
    if math.isnan(found.value):
        return check.of, _metric(found), NOTHING, NOTHING, _bound(check, scale), "cannot be said"
    value, low, high = (f"{scale * x:+.{digits}f}" for x in (found.value, found.low, found.high))
    return check.of, _metric(found), value, f"{low} to {high}", _bound(check, scale), found.verdict


def _metric(found: Finding) -> str:
    if found.check.probe is not None:
        return f"accuracy, {found.check.labels}, {found.check.protocol}"
    if found.check.right_time is not None:
        return f"the right time, of a {found.check.right_time}"
    what = "slope of hits" if found.check.slope_over else "R"
    return f"{_ALL_NAMES[found.direction]}, {what}@{found.check.hit_at}"


def _bound(check: Check, scale: int) -> str:
    if check.within is not None:
        return f"within ±{scale * check.within:g}"
    if check.above is not None:
        return f"above {scale * check.above:g}"
    return f"below {scale * (check.below or 0):g}"


def _models(outcomes: Outcomes, corpus: str) -> str:
    names = [name for name, one in outcomes.models.items() if one["data"] == corpus]
    if not names:
        return ""
    has_clips = outcomes.has_clips(corpus)
    # Of clips there are twice as many directions, and the claims about them are of ten.
    recalls = _RECALLS[-1:] if has_clips else _RECALLS
    columns = [(direction, k) for direction in _directions(outcomes, corpus) for k in recalls]
    heads = [f"{direction.replace('_to_', ' → ')} R@{k}" for direction, k in columns]
    rows = {name: [_cell(_recall(outcomes, name, *one)) for one in columns] for name in names}
    rows[CHANCE] = [f"{100 * outcomes.chance(corpus, *one):.1f}" for one in columns]
    test = outcomes.corpora[corpus]["test"]
    if has_clips:
        heads.append("right time")
        for name, row in rows.items():
            row.append(_right_time(outcomes, names[0], name))
        captions = test["num_captions"]
        counted = f"{len(captions):,} clips, {sum(captions):,} captions"
    else:
        counts = outcomes.corpora[corpus]["num_images"]["test"]
        counted = f"{counts:,} pictures, {len(test['image']):,} utterances"
    table = _table(["model", *heads], ([name, *row] for name, row in rows.items()))
    return f"### {corpus}: {counted} of test\n\n{table}"


def _directions(outcomes: Outcomes, corpus: str) -> Mapping[str, str]:
    """Those of a corpus, with their names."""
    return SOUND_NAMES if outcomes.has_clips(corpus) else DIRECTION_NAMES


def _right_time(outcomes: Outcomes, model: str, name: str) -> str:
    """How often whole sounds pick the right time: those of a model, or chance, of its clips."""
    if not outcomes.knows_times(model):
        return NOTHING
    models = {model: 0.0, CHANCE: 1.0} if name == CHANCE else {name: 1.0}
    check = {"of": name, "models": models, "right_time": "clip"}
    (found,) = find(Check.model_validate(check), outcomes)
    return _cell(found)


def _recall(outcomes: Outcomes, model: str, direction: str, k: int) -> Finding:
    values = {"of": model, "models": {model: 1.0}, "hit_at": k, "directions": [direction]}
    (found,) = find(Check.model_validate(values), outcomes)
    return found


def _cell(found: Finding) -> str:
    return f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _recall_figures(outcomes: Outcomes) -> Iterator[Figure]:
    """Recall of every model, a figure for each corpus: by 1, and by 10 of clips."""
    for corpus in outcomes.corpora:
        names = [name for name, one in outcomes.models.items() if one["data"] == corpus]
        if not names:
            continue
        directions, k = _directions(outcomes, corpus), 10 if outcomes.has_clips(corpus) else 1
        groups, rows = [], []
        for name in names:
            ranges = []
            for style, (direction, title) in enumerate(directions.items(), start=1):
                one = _recall(outcomes, name, direction, k)
                ranges.append(charts.Range(title, one.value, one.low, one.high, style))
                numbers = {"value": one.value, "low": one.low, "high": one.high}
                rows.append({"model": name, "direction": direction, **numbers})
            # The corpus stands in the title.
            groups.append((name.removeprefix(f"{corpus}-"), ranges))
        title = f"{corpus}: recall@{k}"
        svg = charts.range_chart(groups, title, f"recall@{k} in %")
        legend = {name: style for style, name in enumerate(directions.values(), start=1)}
        yield Figure.of((corpus, "recall"), title, svg, rows, legend)


def _curve_figures(outcomes: Outcomes) -> Iterator[Figure]:
    """Hits over word errors, as in the paper's figure."""
    names = [name for name in _CURVES if name in outcomes.models]
    if len(names) < 2:
        return
    found = word_error_curves(names, _CURVE_AT, outcomes)
    lines = []
    for style, name in enumerate(names, start=1):
        dots = [
            (one["mean"], one["recall"], one["low"], one["high"])
            for one in found["rates"]
            if one["row"] == name and one["recall"] is not None
        ]
        lines.append(charts.Series(name, curve_points(found["curves"][name]), style, dots=dots))
    # Of a corpus that is too small nothing can be said.
    if not any(one.points or one.dots for one in lines):
        return
    title = f"{DIRECTION_NAMES[SPEECH_TO_IMAGE]}: hits@{_CURVE_AT} over the word error rate"
    svg = charts.line_chart(lines, title, "word error rate", "hits in %", True)
    yield Figure.of(("word-errors",), title, svg, line_rows(lines), legend_of(lines))


def _probe(outcomes: Outcomes, probe: str) -> str:
    found = outcomes.probes[probe]
    problems = list(found["recordings"])
    rows = []
    for feature, right in found["right"].items():
        cells = [
            _accuracy(outcomes, probe, feature, one) if one in right else "" for one in problems
        ]
        rows.append([feature, *cells])
    heads = ["accuracy in %", *(one.replace("/", ", ") for one in problems)]
    return f"### {probe}\n\n" + _table(heads, rows)


def _accuracy(outcomes: Outcomes, probe: str, feature: str, problem: str) -> str:
    protocol, labels = problem.split("/")
    values = {"of": feature, "models": {feature: 1.0}, "probe": probe}
    (one,) = find(Check.model_validate(values | {"protocol": protocol, "labels": labels}), outcomes)
    return _cell(one)


def _corpora(outcomes: Outcomes) -> str:
    rows = [
        [
            name,
            ", ".join(f"{count:,} {split}" for split, count in one["num_utterances"].items()),
            ", ".join(f"{count:,} {split}" for split, count in one["num_images"].items())
            or NOTHING,
            f"{one['hours']:.1f}",
            ", ".join(f"{100 * rate:.1f} {split}" for split, rate in one["wer"].items()) or NOTHING,
            f"{sum(one['quarantined'].values()):,}",
        ]
        for name, one in outcomes.corpora.items()
    ]
    heads = ("corpus", "utterances or clips", "pictures", "hours", "word errors in %", "dropped")
    return _table(heads, rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m study.page", description=__doc__)
    parser.add_argument("--folder", type=Path, default=STUDY, help="another study than study/")
    parser.add_argument("--page", type=Path, default=PAGE)
    arguments = parser.parse_args()
    try:
        study = load_study(arguments.folder)
        claims = load_claims(study)
        outcomes = Outcomes(finished_outcomes(study), claims.interval)
        verdicts = judge(claims, outcomes)
        draw(outcomes, verdicts, load_remarks(study, claims), arguments.page)
    except BrewlineError as error:
        sys.exit(f"error: {error}")
    for one in verdicts:
        print(f"{one.words}: {one.claim.says}")
    print(f"the page: {arguments.page}")


if __name__ == "__main__":
    main()
