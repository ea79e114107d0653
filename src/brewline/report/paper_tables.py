"""The papers' tables (BrewCLIP, 1 to 5) over all corpora, from the rows that `tables` name.

What a row is, decides where it stands, so that nothing has to be arranged by hand: what it hears,
on which corpus it was trained, on which it is measured. Rows of one name and variant are one line.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from brewline.config import Params
from brewline.config.published import Published, PublishedRetrieval
from brewline.config.synthetic import synthetic_notice
from brewline.evaluation.outputs import (
    DIRECTION_NAMES,
    SPEECH_TO_IMAGE,
    Metrics,
)
from brewline.models.card import describe
from brewline.pages.render import percent
from brewline.probing.inputs import ANSWERED
from brewline.probing.outputs import MAJORITY
from brewline.probing.outputs import Metrics as ProbeMetrics
from brewline.report.papers import PaperCell, PaperColumn, PaperLine, PaperTable
from brewline.report.published import (
    CHOSEN,
    NOT_MEASURED,
    describe_published,
    published_recall,
)
from brewline.report.tables import Column, columns

# The table of emotions.
_EMOTION = 3
_TITLES = {
    1: "Systems that hear speech",
    2: "What the channels are worth",
    3: "Emotions that are heard",
    4: "Transcripts against captions, nothing trained",
    5: "Trained on one corpus, measured on another",
}
_SAID = {
    1: "Rows that hear speech, measured on the corpus that they were trained on, or not trained.",
    2: "Trained rows, measured on the corpus that they were trained on.",
    3: "Accuracy in %, of recordings of speakers who were not heard in training; the line above "
    "all says the commonest emotion of training always.",
    4: "Frozen towers, which read what Whisper heard, or what people wrote.",
    5: "A line is what was trained, a column what it is measured on. (The paper's caption has them "
    "the other way round; its numbers and its text do not.)",
}
# How a number came about: of tables of retrieval, and of emotions.
_RECALLED = (
    "R@K in %: queries of test with a right answer among the first K, of a picture any of its "
    "recordings (mteb's hit rate). Checkpoints were chosen on dev. Beside each stands the {} % "
    "interval, over pictures and over seeds where there are several."
)
_HEARD_OUT = (
    "The penalty of a linear classifier, and the step of fine-tuning, were chosen on other "
    "speakers of training. Beside each stands the {} % interval, over speakers and over runs "
    "where there are several."
)
_OTHERS = (
    "In italics what others published, which was not measured here, and among how many pictures or "
    "recordings they looked where that is printed."
)
# What makes rows one line: name, variant, and for table 5 the experiment that was trained.
_Key = tuple[str, str, str]
_Found = tuple[list[PaperColumn], list[PaperLine]]
# Of table 5, where it is measured.
_TRANSFER_AT = 5


def paper_tables(
    params: Params,
    metrics: Metrics,
    probes: Mapping[str, ProbeMetrics],
    published: Published,
) -> list[PaperTable]:
    """Those of the paper's tables that there are rows for."""
    shown = columns(params.evaluate.recall_at)
    recalls = [column for column in shown if column.percent]
    ks = params.evaluate.recall_at
    at = _TRANSFER_AT if _TRANSFER_AT in ks else max(ks)
    moved = [column for column in recalls if column.label == f"R@{at}"]
    sources = {
        1: (recalls, lambda name: params.hears(name) and _is_at_home(params, name)),
        2: (recalls, lambda name: params.is_trained(name)),
        4: (recalls, lambda name: params.origin_of(name) is None and name not in params.external),
        5: (moved, lambda name: _is_moved(params, name)),
    }
    found = [
        _retrieval(params, metrics, published, number, *source)
        for number, source in sources.items()
    ]
    found.append(_emotion(params, probes, published))
    return [
        _finished(params, number, *one)
        for number, one in sorted(zip([*sources, _EMOTION], found, strict=True))
        if any(line.is_measured for line in one[1])
    ]


def _finished(
    params: Params, number: int, shown: list[PaperColumn], lines: list[PaperLine]
) -> PaperTable:
    """A table with what is to be known of it."""
    came_about = _HEARD_OUT if number == _EMOTION else _RECALLED
    said = [_SAID[number], came_about.format(percent(params.evaluate.confidence))]
    said += [_OTHERS] if not all(line.is_measured for line in lines) else []
    corpora = dict.fromkeys(column.corpus for column in shown)
    notice = synthetic_notice(params, corpora)
    return PaperTable(number, _TITLES[number], " ".join(said), notice, shown, lines)


def _is_at_home(params: Params, name: str) -> bool:
    """Not trained here, or trained on what it is measured on."""
    origin = params.origin_of(name)
    return origin is None or params.experiments[origin].data == params.experiments[name].data


def _is_moved(params: Params, name: str) -> bool:
    """Whether it is of a variant of which some row was measured on another corpus."""
    if params.origin_of(name) is None:
        return False
    variant = params.experiments[name].variant
    rows = [one for table in params.tables.values() for one in table.rows.values()]
    return any(
        params.experiments[one].variant == variant and not _is_at_home(params, one)
        for one in rows
        if one in params.experiments
    )


def _retrieval(
    params: Params,
    metrics: Metrics,
    published: Published,
    number: int,
    shown: Sequence[Column],
    belongs: Callable[[str], bool],
) -> _Found:
    lines: dict[_Key, tuple[str, dict[str, Mapping[str, float]]]] = {}
    for table, one in params.tables.items():
        for row, name in one.rows.items():
            if belongs(name):
                key, what = _line_key(params, number, row, name)
                lines.setdefault(key, (what, {}))[1].setdefault(table, metrics[table][row])
    tables = [name for name in params.tables if any(name in found for _, found in lines.values())]
    heads = {name: _columns(params, metrics, name, shown) for name in tables}
    order = [*params.variants]
    made = [
        PaperLine(
            name,
            what,
            True,
            [
                _cell(found[table], column.metric) if table in found else None
                for table, of_table in heads.items()
                for column in of_table
            ],
        )
        # Those of others come last.
        for (name, variant, _), (what, found) in sorted(
            lines.items(), key=lambda line: [*order, line[0][1]].index(line[0][1])
        )
    ]
    every = [column for of_table in heads.values() for column in of_table]
    made += _published_lines(params, published, number, every)
    return every, made


def _line_key(params: Params, number: int, row: str, name: str) -> tuple[_Key, str]:
    """What makes rows of several corpora one line, and what it is."""
    if name in params.external:
        return (row, "", ""), f"{describe(params, name)}, {CHOSEN['unknown']}"
    variant, origin = params.experiments[name].variant, params.origin_of(name)
    if number != 5 or origin is None:
        return (row, variant, ""), describe(params, name)
    trained_on = params.experiments[origin].data
    what = f"{origin}: {describe(params, origin)}"
    return (f"{variant}, trained on {trained_on}", variant, origin), what


def _columns(
    params: Params, metrics: Metrics, table: str, shown: Sequence[Column]
) -> list[PaperColumn]:
    first = next(iter(params.tables[table].rows))
    sizes = metrics[table][first]
    images = int(sizes[f"test/{SPEECH_TO_IMAGE}/gallery_size"])
    recordings = int(sizes[f"test/{SPEECH_TO_IMAGE}/num_queries"])
    corpus = params.tables[table].data
    of = f"{images:,} pictures, {recordings:,} recordings"
    # A table of another name on a corpus is told apart by it.
    about = "" if table == corpus else f" ({table})"
    return [
        PaperColumn(
            corpus,
            DIRECTION_NAMES[column.direction].replace(" to ", " → ") + about,
            column.label,
            f"test/{column.metric}",
            of,
        )
        for column in shown
    ]


def _cell(values: Mapping[str, float], metric: str) -> PaperCell:
    return PaperCell(
        values[metric],
        values.get(f"{metric}_low"),
        values.get(f"{metric}_high"),
        int(values["num_seeds"]),
    )


def _published_lines(
    params: Params, published: Published, number: int, shown: Sequence[PaperColumn]
) -> Iterator[PaperLine]:
    """What others published of the corpora of these columns: a line for each system."""
    lines: dict[str, list[PublishedRetrieval]] = {}
    for one in published.retrieval:
        if number in one.tables:
            of = f", trained on {one.trained_on}" if one.trained_on else ""
            lines.setdefault(f"{one.system}{of}", []).append(one)
    for name, found in lines.items():
        shown_of = [_published_of(params, published, found, column) for column in shown]
        if any(shown_of):
            about = dict.fromkeys(describe_published(one[0]) for one in shown_of if one)
            cells = [one[1] if one else None for one in shown_of]
            yield PaperLine(name, f"{NOT_MEASURED}: {'; '.join(about)}", False, cells)


def _published_of(
    params: Params,
    published: Published,
    found: Sequence[PublishedRetrieval],
    column: PaperColumn,
) -> tuple[PublishedRetrieval, PaperCell] | None:
    """What is published for a column, by the first that fits."""
    galleries = published.galleries_of(params.sources[column.corpus])
    metric = column.metric.removeprefix("test/")
    for one in found:
        value = published_recall(one, metric)
        if one.gallery in galleries and value is not None:
            gallery = published.galleries[one.gallery]
            to_image = metric.startswith(SPEECH_TO_IMAGE)
            size = gallery.images if to_image else gallery.recordings
            return one, PaperCell(round(value / 100, 4), gallery=size)
    return None


def _emotion(params: Params, probes: Mapping[str, ProbeMetrics], published: Published) -> _Found:
    """Table 3: a column for each protocol and label set of each probe."""
    shown = [
        (name, _emotion_column(params.probes[name].data, found, protocol, labels))
        for name, found in probes.items()
        for protocol in params.probes[name].protocols
        for labels in params.probes[name].labels
    ]
    rows = [row for name in probes for row in params.probes[name].rows]
    possible = [MAJORITY, *(f"{row}/{kind}" for row in dict.fromkeys(rows) for kind in _HEARD)]
    lines = [
        PaperLine(
            _feature_name(feature),
            _classifier(feature),
            True,
            [
                _cell({"num_seeds": 1, **probes[name][feature]}, column.metric)
                if column.metric in probes[name].get(feature, {})
                else None
                for name, column in shown
            ],
        )
        for feature in possible
        if any(feature in found for found in probes.values())
    ]
    for one in published.emotion:
        cells = [
            PaperCell(one.accuracy / 100)
            if one in published.emotion_of(params.sources[column.corpus])
            and (one.protocol, one.labels) == (column.about, column.label)
            else None
            for _, column in shown
        ]
        if any(cells):
            lines.append(PaperLine(one.system, f"{NOT_MEASURED}: {one.source}", False, cells))
    return [column for _, column in shown], lines


def _emotion_column(corpus: str, found: ProbeMetrics, protocol: str, labels: str) -> PaperColumn:
    key = f"{protocol}/{labels}"
    recordings, speakers = (
        int(found[MAJORITY][f"{key}/num_{what}"]) for what in ("recordings", "speakers")
    )
    sizes = f"{recordings:,} recordings, {speakers:,} speakers"
    return PaperColumn(corpus, protocol, labels, f"{key}/accuracy", sizes)


# What of a model table 3 is about.
_HEARD = {
    "fused": "both channels",
    "acoustic": "the acoustic channel alone",
    "text": "the pipeline alone, on transcripts",
    "caption": "the pipeline alone, on the sentence that was to be said",
    ANSWERED: "the channels that it has",
}


def _classifier(feature: str) -> str:
    if feature == MAJORITY:
        return "no classifier"
    return "fine-tuned" if feature.endswith(f"/{ANSWERED}") else "linear probe"


def _feature_name(feature: str) -> str:
    if feature == MAJORITY:
        return "the commonest emotion, always"
    row, kind = feature.split("/")
    return f"{row}: {_HEARD[kind]}"
