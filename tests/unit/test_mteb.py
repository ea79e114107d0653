"""What is written for mteb: read and scored by mteb itself where it is installed."""

import importlib.util
import itertools
import json
import math
import re
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import report_world
import yaml

from brewline import cli
from brewline.config import Params
from brewline.config.loading import parse_params
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_file
from brewline.evaluation.ranks import rank_both_ways
from brewline.evaluation.vectors import SplitEmbeddings, load_vectors, save_vectors
from brewline.export.mteb import export_mteb, task_name
from brewline.export.mteb_scores import K_VALUES, mteb_scores
from brewline.models.names import model_names
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import write_table

CORPUS = TABLE = "mini-lncoco"
NAMES = {"a2i": "MiniLncocoA2IRetrieval", "i2a": "MiniLncocoI2ARetrieval"}
NUM_IMAGES = {"dev": 4, "test": 7}


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    made = rng.standard_normal((count, 6)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def split_of(split: str, rng: np.random.Generator) -> SplitEmbeddings:
    """One to three recordings of each picture."""
    images = [f"{split}-i{number}" for number in range(NUM_IMAGES[split])]
    of = [one for number, one in enumerate(images) for _ in range(1 + number % 3)]
    ids = [f"{split}-u{number}" for number in range(len(of))]
    return SplitEmbeddings(ids, of, unit(rng, len(ids)), images, unit(rng, len(images)))


@pytest.fixture(scope="module")
def params() -> Params:
    return report_world.params()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    """Recordings, pictures and vectors of every model of a table."""
    root = tmp_path_factory.mktemp("project")
    given = {split: split_of(split, np.random.default_rng(0)) for split in NUM_IMAGES}
    empty = dict.fromkeys(MANIFEST.names)
    filled = {"corpus": CORPUS, "speaker_id": "s", "audio_sha256": "0"}
    numbers = {"duration_s": 1.0, "sample_rate_hz": 16_000, "num_channels": 1}
    rows = []
    for split, one in {"train": given["dev"], **given}.items():
        for name, image in zip(one.utterance_ids, one.utterance_image_ids, strict=True):
            paths = {"audio_path": f"{name}.ogg", "image_path": f"{image}.jpg"}
            ids = {"utterance_id": name, "image_id": image}
            if split == "train":
                ids = {key: f"train-{value}" for key, value in ids.items()}
            rows.append({**empty, **filled, **numbers, **paths, **ids, "split": split})
    write_table(root / f"data/manifest/{CORPUS}.parquet", MANIFEST, rows)
    raw = root / "data/raw" / CORPUS
    raw.mkdir(parents=True)
    for row in rows:
        for path in (row["audio_path"], row["image_path"]):
            number = int("".join(filter(str.isdigit, path)))
            data = (
                report_world.drawing(number) if path.endswith("jpg") else report_world.tone(number)
            )
            (raw / path).write_bytes(data)
    rng = np.random.default_rng(1)
    for source in params.tables[TABLE].rows.values():
        for model in model_names(params, source):
            path = root / f"data/embeddings/{CORPUS}/{source}/{model}.safetensors"
            save_vectors(path, {split: split_of(split, rng) for split in NUM_IMAGES})
    return root


@pytest.fixture(scope="module")
def exported(project: Path, params: Params) -> Path:
    folder = project / "for-mteb"
    names = export_mteb(params, TABLE, folder, "eng-Latn", project)
    assert names == [
        # What reads captions is not among them: this is a task for what hears.
        "brewline/mini-lncoco-zero-shot-frozen",
        "brewline/mini-lncoco-prompted-seed-0",
        "brewline/mini-lncoco-prompted-seed-1",
        "brewline/mini-lncoco-full-seed-0",
        "brewline/mini-lncoco-full-seed-1",
    ]
    return folder


def slow_scores(right: list[list[int]], k: int) -> dict[str, float]:
    """By the definitions of trec_eval; `right` has the ranks of each query's right answers."""
    found: dict[str, list[float]] = {}
    for ranks in right:
        hits = sorted(rank for rank in ranks if rank <= k)
        best = sum(1 / math.log2(1 + n) for n in range(1, min(k, len(ranks)) + 1))
        one = {
            "ndcg": sum(1 / math.log2(1 + rank) for rank in hits) / best,
            "map": sum((n + 1) / rank for n, rank in enumerate(hits)) / len(ranks),
            "recall": len(hits) / len(ranks),
            "precision": len(hits) / k,
            "mrr": 1 / hits[0] if hits else 0.0,
            "hit_rate": float(bool(hits)),
        }
        for name, value in one.items():
            found.setdefault(f"{name}_at_{k}", []).append(value)
    return {name: sum(values) / len(values) for name, values in found.items()}


def test_scores_are_those_of_a_slow_version() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        split = split_of("test", rng)
        both = rank_both_ways(
            split.utterance_embeddings,
            split.image_embeddings,
            split.utterance_image_ids,
            split.image_ids,
        )
        ways = (split.utterance_embeddings, split.image_embeddings)
        for ranks, vectors in zip(both, (ways, ways[::-1]), strict=True):
            right: list[list[int]] = [[] for _ in range(ranks.num_queries)]
            for query, rank in zip(ranks.query.tolist(), ranks.rank.tolist(), strict=True):
                right[query].append(rank)
            scores = mteb_scores(ranks, *vectors)
            for k in K_VALUES:
                for name, value in slow_scores(right, k).items():
                    assert scores[name] == pytest.approx(value, abs=1e-6), name
            assert scores["main_score"] == scores["ndcg_at_10"]


def slow_nauc(confidence: list[float], values: list[float]) -> float:
    """By arXiv 2402.12997, where no two are equally sure; areas as sums of trapezia."""

    def area(sure: list[float]) -> float:
        kept = [value for _, value in sorted(zip(sure, values, strict=True))]
        curve = [
            sum(kept[start:]) / len(kept[start:])
            for start in (round(rate / 10 * len(kept)) for rate in range(10))
        ]
        return sum((one + other) / 20 for one, other in itertools.pairwise(curve))

    flat = 0.9 * sum(values) / len(values)
    return (area(confidence) - flat) / (area(values) - flat)


def test_how_well_scores_tell_who_is_answered_is_that_of_a_slow_version() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        split = split_of("test", rng)
        spoken, seen = split.utterance_embeddings, split.image_embeddings
        ranks, _back = rank_both_ways(spoken, seen, split.utterance_image_ids, split.image_ids)
        scores = mteb_scores(ranks, spoken, seen)
        rows = (spoken @ seen.T).astype(float).tolist()
        sure = {
            "max": [max(row) for row in rows],
            "std": [statistics.pstdev(row) for row in rows],
            "diff1": [sorted(row)[-1] - sorted(row)[-2] for row in rows],
        }
        # Of equal values any may go first: their mean is the same.
        values = (1 / ranks.best).tolist()
        for name, one in sure.items():
            assert scores[f"nauc_mrr_at_1000_{name}"] == pytest.approx(
                slow_nauc(one, values), abs=1e-5
            )


def test_abstention_by_hand() -> None:
    """Ten queries of a direction; the first five find their picture at once, the others last."""
    images = np.eye(10, dtype=np.float32)
    names = [f"i{number}" for number in range(10)]

    def scores(own: list[float]) -> dict[str, float]:
        """Of queries that like their own picture so much, and the next one by 0.5."""
        queries = 0.5 * np.roll(images, 1, axis=1) + np.diag(own).astype(np.float32)
        there, _ = rank_both_ways(queries, images, names, names)
        return mteb_scores(there, queries, images)

    # Who is right is surer than who is wrong, then less sure, then as sure.
    good = scores([0.9] * 5 + [0.1] * 5)
    assert (good["recall_at_1"], good["nauc_recall_at_1_max"]) == (0.5, 1.0)
    bad = scores([0.51] * 5 + [0.1] * 5)
    assert bad["nauc_recall_at_1_diff1"] < 0
    same = scores([0.5] * 10)
    assert same["recall_at_1"] == 0
    # Nobody is right, so that there is nothing to tell.
    assert not [name for name in same if name.startswith("nauc_recall_at_1_")]
    # One picture alone has no second one.
    alone, _ = rank_both_ways(images[:1], images[:1], ["i"], ["i"])
    assert mteb_scores(alone, images[:1], images[:1])["recall_at_1"] == 1


def test_a_direction_is_a_task_by_name() -> None:
    assert task_name("mini-lncoco", "a2i") == NAMES["a2i"]
    assert task_name("flickr8k", "i2a") == "Flickr8kI2ARetrieval"
    assert task_name("my_own-corpus", "a2i") == "MyOwnCorpusA2IRetrieval"


def test_files_lie_there_once_and_pairs_say_what_belongs_together(
    exported: Path, project: Path
) -> None:
    raw = project / "data/raw" / CORPUS
    for split, count in NUM_IMAGES.items():
        images = pyarrow.parquet.read_table(exported / f"images/{split}.parquet").to_pylist()
        assert [row["id"] for row in images] == [f"{split}-i{number}" for number in range(count)]
        assert images[1]["image"]["bytes"] == (raw / f"{split}-i1.jpg").read_bytes()
        spoken = pyarrow.parquet.read_table(exported / f"recordings/{split}.parquet").to_pylist()
        assert spoken[2]["audio"]["bytes"] == (raw / f"{split}-u2.ogg").read_bytes()
        there = pyarrow.parquet.read_table(exported / f"a2i-qrels/{split}.parquet").to_pylist()
        back = pyarrow.parquet.read_table(exported / f"i2a-qrels/{split}.parquet").to_pylist()
        assert there[2] == {
            "query-id": f"{split}-u2",
            "corpus-id": f"{split}-i1",
            "score": 1,
        }
        assert {(one["query-id"], one["corpus-id"]) for one in there} == {
            (one["corpus-id"], one["query-id"]) for one in back
        }
    card = yaml.safe_load((exported / "README.md").read_text().split("---")[1])
    assert {one["config_name"] for one in card["configs"]} == {
        f"{subset}-{part}" for subset in NAMES for part in ("queries", "corpus", "qrels")
    }
    for one in card["configs"]:
        for files in one["data_files"]:
            assert (exported / files["path"]).exists()


def test_a_folder_that_is_there_is_left_alone(
    project: Path, params: Params, tmp_path: Path
) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(BrewlineError, match="is there already; remove it, or name another"):
        export_mteb(params, TABLE, tmp_path, "eng-Latn", project)
    assert [one.name for one in tmp_path.iterdir()] == ["precious"]
    with pytest.raises(BrewlineError, match=r"missing or damaged"):
        export_mteb(params, "mini-flickr8k", tmp_path / "new", "eng-Latn", bare(project, tmp_path))
    assert not (tmp_path / "new").exists()


def bare(project: Path, folder: Path) -> Path:
    """A project without vectors."""
    for name in ("manifest", "raw"):
        (folder / "bare/data" / name).mkdir(parents=True)
    manifest = project / f"data/manifest/{CORPUS}.parquet"
    (folder / "bare/data/manifest/mini-flickr8k.parquet").write_bytes(manifest.read_bytes())
    (folder / "bare/data/raw/mini-flickr8k").symlink_to(project / "data/raw" / CORPUS)
    return folder / "bare"


def test_the_command_names_the_models(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(project)
    (project / "params.yaml").write_text((report_world.PROJECT / "params.yaml").read_text())
    assert cli.main(["export-mteb", TABLE, str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "brewline/mini-lncoco-full-seed-1" in printed
    assert f"written: {tmp_path / 'out'}" in printed
    assert cli.main(["export-mteb", TABLE, str(tmp_path / "other"), "--language", "en"]) == 1
    assert "'en' is no language as mteb has it, such as eng-Latn" in capsys.readouterr().err
    assert cli.main(["export-mteb", "mini-lncoc", str(tmp_path / "other")]) == 1
    assert "did you mean 'mini-lncoco'" in capsys.readouterr().err


def results_of(exported: Path, model: str, subset: str) -> dict[str, Any]:
    (path,) = exported.glob(f"results/brewline__{model}/*/{NAMES[subset]}.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_results_name_data_and_model_by_their_content(exported: Path, project: Path) -> None:
    found = results_of(exported, "mini-lncoco-full-seed-1", "a2i")
    assert found["task_name"] == NAMES["a2i"]
    manifest = sha256_file(project / f"data/manifest/{CORPUS}.parquet")
    assert found["dataset_revision"] == manifest[:40]
    vectors = project / f"data/embeddings/{CORPUS}/mini-lncoco-full/seed-1.safetensors"
    folder = exported / "results/brewline__mini-lncoco-full-seed-1" / sha256_file(vectors)[:40]
    assert (folder / f"{NAMES['a2i']}.json").exists()
    assert json.loads((folder / "model_meta.json").read_text())["revision"] == folder.name


@pytest.fixture
def mteb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The package without a network, to which sound is bytes: what decodes it needs FFmpeg."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    module = pytest.importorskip("mteb", reason="docs/guide.md says how to have it")
    monkeypatch.setattr("datasets.Audio.decode_example", lambda _self, value, **_: value)
    return module


def test_vectors_of_others_are_not_under_our_name(project: Path, tmp_path: Path) -> None:
    values = yaml.safe_load((report_world.PROJECT / "params.yaml").read_text())
    peer = {"data": CORPUS, "utterances": "u.parquet", "images": "i.parquet"}
    values["external"] = {"peer": peer, "texts": peer | {"reads": "captions"}}
    values["tables"][TABLE] = {"data": CORPUS, "rows": {"theirs": "peer", "ceiling": "texts"}}
    path = project / f"data/embeddings/{CORPUS}/peer/external.safetensors"
    rng = np.random.default_rng(4)
    save_vectors(path, {split: split_of(split, rng) for split in NUM_IMAGES})
    names = export_mteb(parse_params(values), TABLE, tmp_path / "out", "eng-Latn", project)
    assert names == ["external/peer"]


def load_tasks(exported: Path) -> Any:
    """The module that lies beside the data."""
    spec = importlib.util.spec_from_file_location("exported_tasks", exported / "task.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["exported_tasks"] = module
    spec.loader.exec_module(module)
    return module


class Lookup:
    """A model of mteb's that knows the vectors by id: mteb's search protocol."""

    mteb_model_meta = None

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self.vectors, self.ids = vectors, list[str]()

    def index(self, corpus: Any, **_: Any) -> None:
        self.ids = list(corpus["id"])

    def search(self, queries: Any, *, top_k: int, **_: Any) -> dict[str, dict[str, float]]:
        targets = np.stack([self.vectors[one] for one in self.ids])
        found = {}
        for query in queries["id"]:
            scores = targets @ self.vectors[query]
            order = np.argsort(-scores)[:top_k]
            found[query] = {self.ids[place]: float(scores[place]) for place in order}
        return found


@pytest.mark.parametrize("subset", NAMES)
def test_mteb_reads_the_task_and_scores_our_vectors_alike(
    exported: Path, project: Path, subset: str, mteb: Any
) -> None:
    (task,) = [one() for one in load_tasks(exported).TASKS if one.metadata.category == subset]
    assert task.metadata.name == NAMES[subset]
    task.load_data()
    for model in ("zero-shot/frozen", "full/seed-0", "full/seed-1"):
        source, name = f"mini-lncoco-{model.split('/')[0]}", model.split("/")[1]
        path = project / f"data/embeddings/{CORPUS}/{source}/{name}.safetensors"
        ours = results_of(exported, f"{source}-{name}", subset)
        for split, one in load_vectors(path).items():
            ids = [*one.utterance_ids, *one.image_ids]
            vectors = [*one.utterance_embeddings, *one.image_embeddings]
            lookup = Lookup(dict(zip(ids, vectors, strict=True)))
            theirs = task.evaluate(lookup, split, subsets_to_run=[subset], encode_kwargs={})
            (scores,) = ours["scores"][split]
            numbers = {key: one for key, one in theirs[subset].items() if isinstance(one, float)}
            assert scores.keys() <= {*numbers, "main_score", "hf_subset", "languages"}
            # Of each metric but the hit rate there are three of abstention.
            assert len(numbers) == (6 + 5 * 3) * len(K_VALUES) + 1 + ("main_score" in numbers)
            for key in numbers.keys() - scores.keys():
                # All queries are answered alike: mteb divides zero, or what rounding left of it.
                found = re.fullmatch(r"nauc_(\w+_at_(\d+))_(max|std|diff1)", key)
                assert found and scores[found[1]] in (0, 1, 1 / int(found[2])), key
            for key in numbers.keys() & scores.keys():
                # mteb rounds to five digits.
                assert scores[key] == pytest.approx(numbers[key], abs=1.1e-5), (split, key)


def test_mteb_decodes_pictures_and_has_the_bytes_of_recordings(
    exported: Path, project: Path, mteb: Any
) -> None:
    (task,) = [one() for one in load_tasks(exported).TASKS if one.metadata.category == "a2i"]
    task.load_data()
    data = task.dataset["a2i"]["test"]
    assert data["corpus"][0]["image"].size == (320, 240)
    spoken = (project / "data/raw" / CORPUS / "test-u0.ogg").read_bytes()
    assert data["queries"][0]["audio"]["bytes"] == spoken
    assert type(data["queries"].features["audio"]).__name__ == "Audio"
    assert len(data["queries"]) == sum(1 + number % 3 for number in range(NUM_IMAGES["test"]))


def test_mteb_takes_our_results(exported: Path, mteb: Any) -> None:
    paths = list(exported.glob("results/*/*/*Retrieval.json"))
    assert len(paths) == 10
    for path in paths:
        found = mteb.TaskResult.from_disk(path, load_historic_data=False)
        assert found.eval_splits == ["dev", "test"]
        assert 0 <= found.scores["test"][0]["main_score"] <= 1
    known = mteb.ResultCache(exported).get_cache_paths()
    assert {path.name for path in known} == {f"{name}.json" for name in NAMES.values()}
