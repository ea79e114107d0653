"""A table for mteb: its corpus as a retrieval task both ways, and our results as mteb writes them.

The folder is a data set as the Hugging Face hub has them, which `datasets` reads where it lies:
pictures and recordings as published, each once, and which belong together. `task.py` beside it has
mteb's two tasks on it, `results/` what mteb's `ResultCache` holds.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, sha256_file, write_json
from brewline.evaluation.ranks import rank_both_ways
from brewline.evaluation.vectors import SplitEmbeddings, load_vectors
from brewline.export.mteb_scores import mteb_scores
from brewline.media.corpus_media import CorpusMedia, project_media
from brewline.models.names import model_names
from brewline.pages.render import render_markdown
from brewline.tables.parquet import read_table

# Each is a subset of the data set: queries, and what is looked for.
SUBSETS = {"a2i": ("recordings", "images"), "i2a": ("images", "recordings")}
_SPLITS = ("dev", "test")
# Files in memory at a time.
_FILES_PER_GROUP = 64
# What the Hugging Face hub calls a column of such files.
_HUB_TYPES = {"audio": "Audio", "image": "Image"}


def task_name(corpus: str, subset: str) -> str:
    """What mteb calls a direction: `MiniLncocoA2IRetrieval`."""
    words = corpus.replace("_", "-").split("-")
    return "".join(word[:1].upper() + word[1:] for word in words) + f"{subset.upper()}Retrieval"


def export_mteb(
    params: Params, table: str, folder: Path, language: str, project: Path = Path()
) -> list[str]:
    """Writes dev and test of a table's corpus, and what its models reach, in mteb's formats.

    Args:
        params: The table.
        table: Its name.
        folder: Is made.
        language: As mteb has it: `eng-Latn`.
        project: The project's folder.

    Returns:
        The names of the models in mteb's results.

    Raises:
        BrewlineError: the folder is there already, the language is written otherwise, or a file of
            the project is missing.
    """
    if folder.exists():
        raise BrewlineError(f"{folder} is there already; remove it, or name another one")
    if not re.fullmatch("[a-z]{3}-[A-Z][a-z]{3}", language):
        raise BrewlineError(f"{language!r} is no language as mteb has it, such as eng-Latn")
    corpus = params.tables[table].data
    manifest = project / f"data/manifest/{corpus}.parquet"
    revision = sha256_file(manifest)[:40]
    with atomic_path(folder) as partial:
        partial.mkdir()
        _write_data(partial, manifest, project_media(corpus, project))
        values = {
            "corpus": corpus,
            "language": language,
            "licence": params.sources[corpus].licence,
            "revision": revision,
            "splits": _SPLITS,
            "subsets": SUBSETS,
            "names": {subset: task_name(corpus, subset) for subset in SUBSETS},
        }
        for name in ("README.md", "task.py"):
            text = render_markdown(f"mteb_{name}.j2", **values)
            (partial / name).write_text(text, encoding="utf-8")
        return list(_write_results(params, table, partial / "results", language, project))


def _write_data(folder: Path, manifest: Path, media: CorpusMedia) -> None:
    rows = read_table(manifest, ["utterance_id", "image_id", "split"])
    for split in _SPLITS:
        here = [row for row in rows if row["split"] == split]
        spoken = {str(row["utterance_id"]): str(row["image_id"]) for row in here}
        images = list(dict.fromkeys(spoken.values()))
        _write_files(folder / f"recordings/{split}.parquet", "audio", spoken, media.audio)
        _write_files(folder / f"images/{split}.parquet", "image", images, media.image)
        pairs = list(spoken.items())
        _write_pairs(folder / f"a2i-qrels/{split}.parquet", pairs)
        _write_pairs(folder / f"i2a-qrels/{split}.parquet", [(one, other) for other, one in pairs])


def _write_files(
    path: Path, kind: str, ids: Mapping[str, Any] | list[str], read: Callable[[str], bytes]
) -> None:
    """Files by their ids, as the hub has them; `kind` is the column's name too."""
    features = {
        "id": {"dtype": "string", "_type": "Value"},
        kind: {"_type": _HUB_TYPES[kind]},
    }
    file = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    schema = pyarrow.schema(
        {"id": pyarrow.string(), kind: file},
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    path.parent.mkdir(exist_ok=True)
    names = list(ids)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        for start in range(0, len(names), _FILES_PER_GROUP):
            group = [
                {"id": name, kind: {"bytes": read(name), "path": None}}
                for name in names[start : start + _FILES_PER_GROUP]
            ]
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))


def _write_pairs(path: Path, pairs: list[tuple[str, str]]) -> None:
    queries, found = zip(*pairs, strict=True)
    columns = {"query-id": list(queries), "corpus-id": list(found), "score": [1] * len(pairs)}
    path.parent.mkdir(exist_ok=True)
    schema = pyarrow.schema(
        {"query-id": pyarrow.string(), "corpus-id": pyarrow.string(), "score": pyarrow.int32()}
    )
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), path)


def _write_results(
    params: Params, table: str, folder: Path, language: str, project: Path
) -> Iterator[str]:
    """What mteb's cache of results has: `<model>/<revision>/<task>.json`, for each model.

    What reads captions does not do this task, and is left out.
    """
    corpus = params.tables[table].data
    revision = sha256_file(project / f"data/manifest/{corpus}.parquet")[:40]
    for source in filter(params.hears, params.tables[table].rows.values()):
        for model in model_names(params, source):
            path = project / f"data/embeddings/{corpus}/{source}/{model}.safetensors"
            scores = {split: _scores(one) for split, one in load_vectors(path).items()}
            is_ours = source not in params.external
            name = f"brewline/{source}-{model}" if is_ours else f"external/{source}"
            version = sha256_file(path)[:40]
            here = folder / name.replace("/", "__") / version
            write_json(here / "model_meta.json", {"name": name, "revision": version})
            for number, subset in enumerate(SUBSETS):
                about = {"hf_subset": subset, "languages": [language]}
                result = {
                    "dataset_revision": revision,
                    "task_name": task_name(corpus, subset),
                    # It was not mteb that computed them.
                    "mteb_version": None,
                    "scores": {split: [{**scores[split][number], **about}] for split in _SPLITS},
                    "evaluation_time": None,
                    "kg_co2_emissions": None,
                }
                write_json(here / f"{result['task_name']}.json", result)
            yield name


def _scores(split: SplitEmbeddings) -> tuple[dict[str, float], dict[str, float]]:
    """As `SUBSETS` are."""
    spoken, seen = split.utterance_embeddings, split.image_embeddings
    there, back = rank_both_ways(spoken, seen, split.utterance_image_ids, split.image_ids)
    return mteb_scores(there, spoken, seen), mteb_scores(back, seen, spoken)
