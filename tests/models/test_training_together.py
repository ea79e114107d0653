"""Training in several processes, and in parts, gives what one process gives with whole batches."""

import os
import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from tiny_models import (
    ACOUSTIC,
    CASCADED,
    IMAGE_SIZE,
    PARALLEL,
    damaged_data,
    data_for,
    make_clip,
    variant,
)

from brewline.config import load_params
from brewline.config.recipes import RecipeParams
from brewline.config.variants import VariantParams
from brewline.core.compute import DeviceName
from brewline.core.devices import count_processes
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, remove, write_json
from brewline.core.ranks import ALONE, Ranks, in_ranks
from brewline.models.backbones import make_backbone
from brewline.models.folder import Row, Trained
from brewline.samples.utterance import Utterance
from brewline.training.checkpoint import CHECKPOINT_FILE, load_checkpoint
from brewline.training.loop import TrainingJob, train
from brewline.training.tasks.retrieval import Retrieval

CPU = torch.device("cpu")
# What is dropped depends on who computes a row; all else does not.
STEADY = ACOUSTIC.model_copy(update={"dropout": 0.0})
STEADY_P, STEADY_C = (one.model_copy(update={"dropout": 0.0}) for one in (PARALLEL, CASCADED))
FULL = variant(acoustic=STEADY)
# Variants, and what is changed in the recipe, which masks other takes of a picture.
CASES: dict[str, tuple[VariantParams, dict[str, Any]]] = {
    "prompted": (variant(acoustic=None), {}),
    "full": (FULL, {}),
    "no-prompts": (variant(acoustic=STEADY, prompts=0), {}),
    "multi-positive": (FULL, {"same_image": "multi_positive"}),
    "sigmoid": (FULL, {"loss": "sigmoid"}),
    "speechclip-p": (variant(text=None, acoustic=STEADY_P, prompts=0), {}),
    "speechclip-c": (variant(text=None, acoustic=STEADY_C, prompts=0), {}),
}
# Of the training split; in five batches of two processes each of them meets one.
BAD = ("u2-0", "u5-1")


def run(
    switches: VariantParams,
    recipe: RecipeParams,
    folder: Path,
    ranks: Ranks = ALONE,
    part_size: int | None = None,
    on_row: Any = None,
    checkpoint_every_s: float = 0.0,
    bad: Collection[str] = (),
    device: DeviceName = "cpu",
) -> Trained:
    preprocess = image_transform_v2(PreprocessCfg(size=IMAGE_SIZE), is_train=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    backbone = make_backbone(make_clip(), tokenizer, preprocess)
    changes: dict[str, Any] = {"device": device, "train_part_size": part_size}
    changes["checkpoint_every_s"] = checkpoint_every_s
    folder.mkdir(exist_ok=True)
    return train(
        TrainingJob(Retrieval(switches, recipe, backbone), recipe, 0),
        damaged_data(bad, "states") if bad else data_for(switches),
        folder,
        load_params().runtime.model_copy(update=changes),
        on_row,
        ranks=ranks,
    )


def run_and_keep(
    switches: VariantParams,
    recipe: RecipeParams,
    folder: Path,
    part_size: int | None,
    ranks: Ranks = ALONE,
    bad: Collection[str] = (),
    device: DeviceName = "cpu",
) -> None:
    trained = run(switches, recipe, folder, ranks, part_size, bad=bad, device=device)
    if ranks.is_first:
        torch.save((trained.model.trained_tensors(), trained.history), folder / "kept.pt")
        write_json(folder / "skipped.json", trained.skipped)


def run_on_gpus(recipe: RecipeParams, folder: Path, ranks: Ranks) -> None:
    run_and_keep(FULL, recipe, folder, None, ranks, device="cuda")


def run_all(recipe: RecipeParams, folder: Path, ranks: Ranks) -> None:
    """Every case, whole and in parts; one of bad samples, and one by a gather without gradient."""
    for name, (switches, changes) in CASES.items():
        changed = recipe.model_copy(update=changes)
        run_and_keep(switches, changed, folder / name, None, ranks)
        run_and_keep(switches, changed, folder / f"{name} in parts", 3, ranks)
    run_and_keep(FULL, recipe, folder / "bad samples", None, ranks, BAD)
    gather = Ranks.gather
    Ranks.gather = lambda ranks, rows: gather(ranks, rows.detach())  # type: ignore[method-assign]
    run_and_keep(FULL, recipe, folder / "without gradient", None, ranks)


def run_and_end(switches: VariantParams, recipe: RecipeParams, folder: Path, ranks: Ranks) -> None:
    def stop(row: Row) -> None:
        if row["step"] == 3:
            raise RuntimeError("the machine is needed")

    run(switches, recipe, folder, ranks, on_row=stop)


def run_and_ask(recipe: RecipeParams, folder: Path, number: int, ranks: Ranks) -> None:
    def ask(row: Row) -> None:
        if row["step"] == 3:
            os.kill(os.getppid(), number)

    # Nothing else would write a checkpoint.
    run(FULL, recipe, folder, ranks, on_row=ask, checkpoint_every_s=1e6)


def refuse(ranks: Ranks) -> None:
    raise BrewlineError("there is nothing to learn", "settings")


def run_and_be_killed(
    switches: VariantParams, recipe: RecipeParams, folder: Path, ranks: Ranks
) -> None:
    if ranks.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    run(switches, recipe, folder, ranks)


def kept(folder: Path) -> tuple[dict[str, torch.Tensor], list[Row]]:
    tensors, history = torch.load(folder / "kept.pt")
    return tensors, history


def difference(one: Path, other: Path) -> float:
    """The largest difference of a parameter, or of a loss."""
    (ours, rows), (theirs, other_rows) = kept(one), kept(other)
    assert ours.keys() == theirs.keys() and len(rows) == len(other_rows)
    pairs = zip(rows, other_rows, strict=True)
    losses = [abs(row["loss"] - other["loss"]) for row, other in pairs if "loss" in row]
    assert len(losses) == 5
    differences = {name: (ours[name] - theirs[name]).abs() for name in ours}
    for name, values in differences.items():
        # What is added to all keys alike changes no attention: the gradient of their bias is
        # rounding and nothing else, which Adam scales up to steps of full length.
        if name.endswith("in_proj_bias"):
            values.view(3, -1)[1] = 0
    return max([*losses, *(float(values.max()) for values in differences.values())])


def is_bad(utterance: Utterance) -> bool:
    return utterance.utterance_id in BAD


@pytest.fixture
def five(recipe: RecipeParams) -> RecipeParams:
    return recipe.model_copy(update={"steps": 5, "evaluate_every": 5})


def test_two_processes_train_what_one_does(tmp_path: Path, five: RecipeParams) -> None:
    """Each with half of the batch, whole or in parts."""
    in_ranks(run_all, (five, tmp_path), 2, CPU, tmp_path / "failures")
    assert not (tmp_path / "failures").exists()
    for name, (switches, changes) in CASES.items():
        run_and_keep(switches, five.model_copy(update=changes), tmp_path / "one", None)
        assert difference(tmp_path / "one", tmp_path / name) < 1e-5
        assert difference(tmp_path / "one", tmp_path / f"{name} in parts") < 1e-5
        if name == "full":
            assert difference(tmp_path / "one", tmp_path / "without gradient") > 1e-3
            assert difference(tmp_path / "one", tmp_path / "bad samples") > 1e-3
        remove(tmp_path / "one")
    # A process that meets a bad sample takes another one without a word to the others.
    met = [n for n, one in enumerate(data_for(FULL).read_training(0, 0, 40)) if is_bad(one)]
    assert {number % 8 // 4 for number in met} == {0, 1}
    run_and_keep(FULL, five, tmp_path / "one", None, bad=BAD)
    assert difference(tmp_path / "one", tmp_path / "bad samples") < 1e-5
    told = [read_json(tmp_path / folder / "skipped.json") for folder in ("one", "bad samples")]
    assert told[0] == told[1]
    assert sorted(told[0]) == sorted(BAD)


@pytest.mark.gpu
def test_two_gpus_train_what_one_does(tmp_path: Path, five: RecipeParams) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")
    two = tmp_path / "two"
    in_ranks(run_on_gpus, (five, two), 2, torch.device("cuda"), tmp_path / "failures")
    run_and_keep(FULL, five, tmp_path / "one", None, device="cuda")
    # fp32, but summed in another order.
    assert difference(tmp_path / "one", two) < 1e-4


@pytest.mark.parametrize("name", CASES)
def test_a_batch_in_parts_has_the_gradients_of_the_whole(
    tmp_path: Path, five: RecipeParams, name: str
) -> None:
    switches, changes = CASES[name]
    recipe = five.model_copy(update=changes)
    run_and_keep(switches, recipe, tmp_path / "whole", None)
    run_and_keep(switches, recipe, tmp_path / "parts", 3)
    assert difference(tmp_path / "whole", tmp_path / "parts") < 1e-5


def test_a_part_drops_the_same_in_both_of_its_passes(tmp_path: Path, five: RecipeParams) -> None:
    """Else its gradients would belong to other rows: the loss would hardly fall."""
    whole = run(variant(), five.model_copy(update={"steps": 40}), tmp_path / "whole")
    parts = run(variant(), five.model_copy(update={"steps": 40}), tmp_path / "parts", part_size=3)
    last = [[r["loss"] for r in one.history if "loss" in r][-5:] for one in (whole, parts)]
    assert sum(last[1]) < 1.3 * sum(last[0])


def test_another_number_of_processes_goes_on(tmp_path: Path, five: RecipeParams) -> None:
    run_and_keep(FULL, five, tmp_path / "one", None)
    given = (FULL, five, tmp_path / "two")
    with pytest.raises(BrewlineError, match="the machine is needed") as caught:
        in_ranks(run_and_end, given, 2, CPU, tmp_path / "failures")
    assert caught.value.kind == "crash"
    run_and_keep(*given, None)
    assert difference(tmp_path / "one", tmp_path / "two") < 1e-5


def test_one_that_dies_ends_all_with_a_sentence(tmp_path: Path, five: RecipeParams) -> None:
    start_s = time.monotonic()
    with pytest.raises(BrewlineError, match=r"process 1 of the 2 .* was killed \(signal 9\)"):
        given = (FULL, five, tmp_path / "work")
        in_ranks(run_and_be_killed, given, 2, CPU, tmp_path / "failures")
    assert time.monotonic() - start_s < 60


def test_what_a_user_can_mend_keeps_its_sentence(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(BrewlineError, match="there is nothing to learn") as caught:
        in_ranks(refuse, (), 2, CPU, tmp_path / "failures")
    assert caught.value.kind == "settings"
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("number", "end"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_all_of_them_end_when_asked_and_what_was_reached_is_kept(
    tmp_path: Path, five: RecipeParams, number: int, end: type[BaseException]
) -> None:
    long = five.model_copy(update={"steps": 900, "evaluate_every": 900})
    with pytest.raises(end):
        in_ranks(run_and_ask, (long, tmp_path / "work", number), 2, CPU, tmp_path / "failures")
    saved = load_checkpoint(tmp_path / "work" / CHECKPOINT_FILE)
    assert saved is not None
    assert 3 <= saved["progress"].step < 900


@pytest.mark.parametrize(
    ("wanted", "gpus", "batch_size", "expected"),
    [("auto", 8, 64, 8), ("auto", 6, 32, 4), ("auto", 3, 32, 2), ("auto", 1, 7, 1), (2, 8, 64, 2)],
)
def test_a_batch_is_shared_by_as_many_gpus_as_divide_it(
    monkeypatch: pytest.MonkeyPatch, wanted: Any, gpus: int, batch_size: int, expected: int
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert count_processes(wanted, torch.device("cuda"), batch_size) == expected


@pytest.mark.parametrize(
    ("device", "wanted", "batch_size", "words"),
    [
        ("cuda", 4, 64, "train_processes is 4, and PyTorch finds 2 GPUs"),
        ("mps", 2, 64, "train_processes is 2, and PyTorch finds 1 GPUs"),
        ("cpu", 2, 7, "a batch of 7 cannot be shared equally by 2 processes"),
    ],
)
def test_processes_that_cannot_be_are_refused_before_any_begins(
    monkeypatch: pytest.MonkeyPatch, device: str, wanted: int, batch_size: int, words: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(BrewlineError, match=words):
        count_processes(wanted, torch.device(device), batch_size)
