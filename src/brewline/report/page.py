"""The report: one page that opens anywhere without a network, and the same numbers as text.

The page is a function of its inputs: equal inputs give equal bytes. Everything that comes from a
corpus (captions, transcripts, names) is escaped, and the page's own policy forbids to load
anything.
"""

import collections
import csv
import functools
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brewline.config.params import Params
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_file, sha256_tree, write_text
from brewline.pages import charts
from brewline.pages.render import audio_uri, compare_words, data_uri, markup, render
from brewline.report import tables
from brewline.report.tables import DIRECTION_NAMES, IMAGE_TO_SPEECH, SPEECH_TO_IMAGE, Metrics

ReadMedia = Callable[[str, str], bytes]

_THUMBNAIL_PX = (260, 220)
_THUMBNAIL_QUALITY = 82
# More points than this cannot be told apart in a chart of this size.
_MAX_POINTS = 200
_MAX_QUARANTINE_ROWS = 200
_WITHOUT_RESULT = {"tracking", "runtime"}


@dataclass(frozen=True)
class ReportInputs:
    """Where the report finds what the other stages made.

    `media` gives the bytes of a recording or a picture by corpus and the path in the manifest.
    """

    metrics_dir: Path
    evaluation_dir: Path
    models_dir: Path
    manifest_dir: Path
    quarantine_dir: Path
    media: ReadMedia


@dataclass(frozen=True)
class Picture:
    """A thumbnail that is in the page once, under `anchor`."""

    anchor: str
    image_id: str
    width: int
    height: int
    uri: str


@dataclass
class Album:
    """The pictures of a page: each is opened, made small and numbered once."""

    prefix: str
    read: Callable[[str], bytes]
    pictures: dict[str, Picture] = field(default_factory=dict)

    def picture(self, image_id: str) -> Picture:
        """The thumbnail of an image.

        Raises:
            BrewlineError: the image cannot be read.
        """
        if image_id not in self.pictures:
            content, width, height = thumbnail(self.read(image_id), image_id)
            self.pictures[image_id] = Picture(
                anchor=f"{self.prefix}{len(self.pictures)}",
                image_id=image_id,
                width=width,
                height=height,
                uri=data_uri("image/jpeg", content),
            )
        return self.pictures[image_id]


class CorpusMedia:
    """The recordings and pictures of a corpus by their ids."""

    def __init__(self, corpus: str, manifest: Path, media: ReadMedia) -> None:
        """Reads the manifest.

        Raises:
            BrewlineError: the manifest is missing or damaged.
        """
        from brewline.tables.manifest import read_table

        rows = read_table(manifest)
        self._corpus, self._manifest, self._media = corpus, manifest, media
        self._audio = {row["utterance_id"]: row["audio_path"] for row in rows}
        self._images = {row["image_id"]: row["image_path"] for row in rows}

    def _path(self, paths: Mapping[str, str], name: str) -> str:
        if name not in paths:
            raise BrewlineError(f"{self._manifest} has no {name!r}; run `dvc repro`")
        return paths[name]

    def audio(self, utterance_id: str) -> bytes:
        """The file of a recording as published."""
        return self._media(self._corpus, self._path(self._audio, utterance_id))

    def image(self, image_id: str) -> bytes:
        """The file of a picture as published."""
        return self._media(self._corpus, self._path(self._images, image_id))


def stored_media(raw_dir: Path) -> ReadMedia:
    """Reads recordings and pictures from the archives under `data/raw/<corpus>`."""
    from brewline.media.archives import MediaStore

    @functools.cache
    def store(corpus: str) -> MediaStore:
        return MediaStore(raw_dir / corpus)

    def read(corpus: str, path: str) -> bytes:
        return store(corpus).read(store(corpus).find(path) or path)

    return read


def project_inputs(project: Path = Path()) -> ReportInputs:
    """The inputs at their places in the project's folder."""
    return ReportInputs(
        metrics_dir=project / "metrics",
        evaluation_dir=project / "reports/evaluation",
        models_dir=project / "models",
        manifest_dir=project / "data/manifest",
        quarantine_dir=project / "data/quarantine",
        media=stored_media(project / "data/raw"),
    )


def write_report(params: Params, inputs: ReportInputs, out_dir: Path) -> None:
    """Writes `index.html`, `results.md` and `results.csv`.

    Args:
        params: The lists of corpora and variants to show; leftovers of others are ignored.
        inputs: What the other stages made.
        out_dir: Usually `reports`; other files in it are left alone.

    Raises:
        BrewlineError: something that belongs to the lists is missing, and which file.
    """
    metrics = tables.read_metrics(params, inputs.metrics_dir)
    albums: list[Album] = []
    corpora = [_corpus_section(params, inputs, metrics, corpus, albums) for corpus in metrics]
    page = render(
        "report.html.j2",
        corpora=corpora,
        images=[picture for album in albums for picture in album.pictures.values()],
        miniature_notice=_notice(metrics),
        confidence=tables.percent(params.evaluate.confidence),
        num_recalls=len(params.evaluate.recall_at),
        data=[_data_section(inputs, corpus) for corpus in params.corpora],
        digests=list(_digests(params, inputs)),
        parameters=_parameters(params),
    )
    write_text(out_dir / "index.html", page)
    markdown = tables.results_markdown(params, metrics, inputs.evaluation_dir)
    write_text(out_dir / "results.md", markdown)
    write_text(out_dir / "results.csv", tables.results_csv(metrics))


def thumbnail(content: bytes, name: str) -> tuple[bytes, int, int]:
    """Makes a picture small.

    Returns:
        A JPEG, its width and its height in pixels.

    Raises:
        BrewlineError: the content is no picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, Image.DecompressionBombError) as error:
        raise BrewlineError(f"picture {name!r} cannot be read: {error}") from None
    picture.thumbnail(_THUMBNAIL_PX)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_THUMBNAIL_QUALITY, optimize=True)
    return buffer.getvalue(), picture.width, picture.height


def _notice(corpora: Sequence[str] | Metrics) -> str:
    return tables.MINIATURE_NOTICE if any(map(tables.is_miniature, corpora)) else ""


def _corpus_section(
    params: Params, inputs: ReportInputs, metrics: Metrics, corpus: str, albums: list[Album]
) -> dict[str, Any]:
    """Everything about a retrieval corpus, in the words of the template."""
    names = params.retrieval_corpora[corpus]
    # A variant has one style on the whole page, whatever else a corpus has.
    styles = {name: list(params.variants).index(name) % charts.NUM_STYLES for name in names}
    test = tables.make_table(params, metrics, corpus, "test")
    dev = tables.make_table(params, metrics, corpus, "dev")
    models = _read_models(params, inputs, corpus)
    curves = read_recall(inputs.evaluation_dir / corpus / "recall.csv", "test")
    media = CorpusMedia(corpus, inputs.manifest_dir / f"{corpus}.parquet", inputs.media)
    album = Album(f"{corpus}-picture-", media.image)
    albums.append(album)
    examples = _read_examples(inputs.evaluation_dir / corpus / "examples.json", names)
    speech_first = sorted(names, key=lambda name: params.variants[name].transcript == "caption")
    return {
        "name": corpus,
        "is_miniature": tables.is_miniature(corpus),
        "headline": _headline(params, metrics[corpus], names),
        "test": test,
        "dev": dev,
        "has_ceiling": any(row.is_ceiling for row in test.rows),
        "styles": styles,
        "trained_styles": {name: styles[name] for name in names if params.variants[name].trained},
        "num_parameters": {
            name: f"{folders[0][1]['num_trained_parameters']:,}" for name, folders in models.items()
        },
        "test_differences": _differences(params, inputs, test),
        "dev_differences": _differences(params, inputs, dev),
        "recall_figures": list(_recall_figures(curves, styles)),
        "training_figures": list(_training_figures(models, styles)),
        "examples": [
            arrange_example(f"{corpus}-{number}", rows, speech_first, album, media.audio)
            for number, rows in enumerate(examples, start=1)
        ],
        "error_rates": {
            split: _error_rate(metrics[corpus][tables.ASR_KEY], split) for split in ("dev", "test")
        },
    }


def _headline(
    params: Params, metrics: Mapping[str, Mapping[str, float]], names: list[str]
) -> dict[str, str]:
    """The variant that is best on dev among those that hear speech, and how it does on test."""
    speech = [name for name in names if params.variants[name].transcript != "caption"] or names
    forward = f"{SPEECH_TO_IMAGE}/recall_at_1"
    backward = f"{IMAGE_TO_SPEECH}/any_hit_recall_at_1"
    best = max(
        speech,
        key=lambda name: (
            metrics[name].get(f"dev/{forward}", 0) + metrics[name].get(f"dev/{backward}", 0)
        ),
    )
    untrained = [name for name in speech if not params.variants[name].trained and name != best]
    on_test = {name: f"{100 * metrics[name].get(f'test/{forward}', 0):.1f}" for name in speech}
    return {
        "variant": best,
        "value": on_test[best],
        "reference": "".join(
            f" Without training ({name}): {on_test[name]}\u00a0%." for name in untrained[:1]
        ),
    }


def _error_rate(metrics: Mapping[str, float], split: str) -> str:
    value = metrics.get(f"{split}/asr/wer")
    return "not measured" if value is None else f"{100 * value:.1f} %"


def _differences(params: Params, inputs: ReportInputs, table: tables.Table) -> list[dict[str, Any]]:
    confidence = tables.percent(params.evaluate.confidence)
    found = tables.read_comparisons(params, inputs.evaluation_dir, table, confidence)
    span = max((max(abs(one.low), abs(one.high)) for one in found), default=0.0) or 1.0
    return [
        {
            "direction": DIRECTION_NAMES[one.direction].replace(" to ", " → "),
            "verdict": one.verdict,
            "bar": markup(charts.interval_bar(one.low, one.difference, one.high, span)),
        }
        for one in found
    ]


def read_recall(path: Path, split: str) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Reads the curves of one split from `recall.csv`.

    Returns:
        (variant, direction) to points (K, recall as a fraction), by rising K.

    Raises:
        BrewlineError: the file is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro evaluate`") from None
    curves: dict[tuple[str, str], list[tuple[float, float]]] = collections.defaultdict(list)
    for row in csv.DictReader(io.StringIO(text)):
        if row["split"] == split:
            key = (row["variant"], row["direction"])
            curves[key].append((float(row["k"]), float(row["recall"])))
    return {key: sorted(points) for key, points in curves.items()}


def _recall_figures(
    curves: Mapping[tuple[str, str], list[tuple[float, float]]], styles: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    for direction, title in DIRECTION_NAMES.items():
        lines = [
            charts.Series(name, curves[name, direction], style)
            for name, style in styles.items()
            if (name, direction) in curves
        ]
        if lines:
            svg = charts.line_chart(lines, f"{title}, recall@K", "K", "recall in %", True)
            yield {"title": title.replace(" to ", " → "), "svg": markup(svg)}


def _read_models(
    params: Params, inputs: ReportInputs, corpus: str
) -> dict[str, list[tuple[Path, dict[str, Any]]]]:
    """The folders of each variant's models with their `model.json`, a folder per seed."""
    models = {}
    for name in params.retrieval_corpora[corpus]:
        made = tables.model_names(params, name)
        folders = [inputs.models_dir / corpus / name / one for one in made]
        models[name] = [(folder, tables.load_json(folder / "model.json")) for folder in folders]
    return models


def _read_history(folder: Path) -> list[dict[str, Any]]:
    path = folder / "history.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro`") from None
    return [json.loads(line) for line in lines if line]


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Averages neighbours until at most `_MAX_POINTS` are left."""
    size = -(-len(points) // _MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[len(group) // 2][0], sum(y for _, y in group) / len(group)) for group in groups]


def _training_figures(
    models: Mapping[str, list[tuple[Path, dict[str, Any]]]], styles: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """Yields the loss and the two recalls on dev over the steps of all trained models."""
    histories = [
        (name, folder, model, _read_history(folder))
        for name, folders in models.items()
        for folder, model in folders
        if model["seed"] is not None
    ]
    figures = [
        ("loss", "loss on the training batches", "loss"),
        (f"dev/{SPEECH_TO_IMAGE}/recall_at_1", "dev, speech → image R@1", "recall in %"),
        (f"dev/{IMAGE_TO_SPEECH}/any_hit_recall_at_1", "dev, image → speech R@1", "recall in %"),
    ]
    for metric, title, unit in figures:
        lines = []
        for name, folder, model, history in histories:
            points = [(row["step"], row[metric]) for row in history if row.get(metric) is not None]
            mark = model.get("best_step") if metric.startswith("dev/") else None
            if points:
                points = points if mark is not None else _thin(points)
                lines.append(charts.Series(f"{name}, {folder.name}", points, styles[name], mark))
        if lines:
            svg = charts.line_chart(lines, title, "step", unit, unit != "loss")
            yield {"title": title, "svg": markup(svg)}


def _read_examples(path: Path, names: Sequence[str]) -> list[dict[str, dict[str, Any]]]:
    """Reads `examples.json`.

    Returns:
        For each recording the entry of every variant in `names`.
    """
    found = tables.load_json(path, "evaluate")
    missing = [name for name in names if name not in found]
    if missing:
        raise BrewlineError(f"{path} lacks {', '.join(missing)}; run `dvc repro evaluate`")
    by_variant = {name: {entry["utterance_id"]: entry for entry in found[name]} for name in names}
    order = [entry["utterance_id"] for entry in found[names[0]]]
    return [{name: by_variant[name][utterance_id] for name in names} for utterance_id in order]


def arrange_example(
    anchor: str,
    rows: Mapping[str, Mapping[str, Any]],
    speech_first: Sequence[str],
    album: Album,
    audio: Callable[[str], bytes] | None,
) -> dict[str, Any]:
    """Arranges what the variants made of one recording, in the words of the templates.

    Args:
        anchor: Unique in the page.
        rows: The recording's entry of `examples.json` for each variant.
        speech_first: The variants; the transcript is taken from the first.
        album: Takes the pictures.
        audio: Gives a recording by its id; without it there is no player.
    """
    heard = rows[speech_first[0]]
    caption, transcript, num_errors = compare_words(heard["caption"], heard["transcript"])
    return {
        "anchor": anchor,
        "utterance_id": heard["utterance_id"],
        "image": album.picture(heard["image_id"]),
        "audio": audio_uri(audio(heard["utterance_id"])) if audio else "",
        "caption": caption,
        "transcript": transcript,
        "num_errors": num_errors,
        "num_words": len(caption),
        "answers": [
            {
                "variant": name,
                "rank": row["rank"],
                "top": [
                    {
                        "image": album.picture(entry["image_id"]),
                        "score": entry["score"],
                        "is_right": entry["image_id"] == row["image_id"],
                    }
                    for entry in row["top"]
                ],
            }
            for name, row in rows.items()
        ],
    }


def examples_page(corpus: str, variant: str, examples: Path, image: Callable[[str], bytes]) -> str:
    """The examples of one variant as a page of its own, without the recordings.

    Args:
        corpus: For the title, and for the notice about the miniature world.
        variant: Whose answers are shown.
        examples: `reports/evaluation/<corpus>/examples.json`.
        image: Gives a picture's bytes by its image id.

    Raises:
        BrewlineError: there are no examples of this variant, or a picture cannot be read.
    """
    album = Album("picture-", image)
    arranged = [
        arrange_example(f"example-{number}", rows, [variant], album, None)
        for number, rows in enumerate(_read_examples(examples, [variant]), start=1)
    ]
    return render(
        "examples.html.j2",
        title=f"{corpus}, {variant}: examples from test",
        miniature_notice=_notice([corpus]),
        examples=arranged,
        images=list(album.pictures.values()),
    )


def _data_section(inputs: ReportInputs, corpus: str) -> dict[str, Any]:
    """What a corpus lists, what of it is used, and what was set aside for which reason."""
    from brewline.tables.manifest import read_table

    path = inputs.quarantine_dir / f"{corpus}.parquet"
    manifest = read_table(inputs.manifest_dir / f"{corpus}.parquet")
    quarantine = sorted(read_table(path), key=lambda row: (row["reason"], row["utterance_id"]))
    reasons = collections.Counter(row["reason"] for row in quarantine)
    splits = collections.Counter(row["split"] for row in manifest)
    return {
        "corpus": corpus,
        "num_listed": len(manifest) + len(quarantine),
        "num_used": [splits[split] for split in ("train", "dev", "test")],
        "num_quarantined": len(quarantine),
        "num_images": len({row["image_id"] for row in manifest} - {None}),
        "minutes": f"{sum(row['duration_s'] for row in manifest) / 60:.1f}",
        "reasons": sorted(reasons.items(), key=lambda item: (-item[1], item[0])),
        "quarantined": quarantine[:_MAX_QUARANTINE_ROWS],
        "num_hidden": max(0, len(quarantine) - _MAX_QUARANTINE_ROWS),
        "path": f"data/quarantine/{corpus}.parquet",
    }


def _digests(params: Params, inputs: ReportInputs) -> Iterator[tuple[str, str]]:
    """Yields what the numbers are a function of: (name, SHA-256)."""
    backbones = tables.load_json(inputs.models_dir / "backbones/backbones.json", "weights")
    for kind, facts in backbones.items():
        yield f"{kind} weights: {facts['name']}", facts["sha256"]
    for corpus in params.corpora:
        yield f"manifest of {corpus}", sha256_file(inputs.manifest_dir / f"{corpus}.parquet")
    for corpus in params.retrieval_corpora:
        data: set[tuple[str, str]] = set()
        for name, folders in _read_models(params, inputs, corpus).items():
            for folder, model in folders:
                yield f"model {corpus}/{name}/{folder.name}", sha256_tree(folder)
                data |= {(part, str(digest)) for part, digest in (model["data"] or {}).items()}
        for part, digest in sorted(data):
            yield f"{part} of {corpus}, as the models were trained on", digest


def _parameters(params: Params) -> str:
    """The parameters that can change a result, as YAML."""
    import yaml

    values = params.model_dump(mode="json", by_alias=True, exclude=_WITHOUT_RESULT)
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=96)
