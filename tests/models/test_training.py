import json
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import (
    E2E,
    FULL,
    PROMPTED,
    SPEECHCLIP_C,
    SPEECHCLIP_P,
    damaged_data,
    data_for,
    make_world,
    variant,
    world_data,
)

from brewline.config.runtime import RuntimeParams
from brewline.core.errors import BrewlineError
from brewline.core.ranks import ALONE
from brewline.evaluation.embedding import embed_split
from brewline.evaluation.scores import SELECTION_METRIC, score_retrieval
from brewline.models.brewclip import BrewClip
from brewline.models.card import ModelCard
from brewline.models.folder import save_model
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator
from brewline.training.checkpoint import CHECKPOINT_FILE, load_checkpoint
from brewline.training.loop import NON_FINITE_FILE, TrainingData, TrainingJob, train
from brewline.training.tasks.retrieval import Retrieval

VARIANTS = {"prompted": PROMPTED, "e2e": E2E, "full": FULL, "no-prompts": variant(prompts=0)}
VARIANTS |= {"speechclip-p": SPEECHCLIP_P, "speechclip-c": SPEECHCLIP_C}
OPTIONS = {
    "gate": variant(fusion="gate", prompt_depth=2, long_texts="chunk", pictures="letterbox"),
    "unit-sum": variant(fusion="unit_sum", prompts=0, pictures="multicrop"),
}
# Behind the words of a cascaded branch nothing is learned, and the tiny CLIP, which is random, ties
# no word to a picture: `test_speechclip.py` has words that can be found.
LEARNERS = {name: one for name, one in VARIANTS.items() if name != "speechclip-c"}


@pytest.fixture
def run(backbone, recipe, tmp_path):
    def train_one(
        switches,
        folder="work",
        seed=0,
        on_row=None,
        data=None,
        checkpoint_every_s=0,
        part_size=None,
        recompute=False,
        compiled=False,
        max_skipped_samples=0,
        ranks=ALONE,
        start=None,
        **changes,
    ):
        work_dir = tmp_path / folder
        work_dir.mkdir(exist_ok=True)
        chosen = recipe.model_copy(update=changes)
        job = TrainingJob(Retrieval(switches, chosen, backbone), chosen, seed, start)
        runtime = RuntimeParams(
            parallel_stages=1,
            engine="processes",
            ray_address="local",
            device="auto",
            download_workers=1,
            inspect_workers=1,
            inspect_decode_limit_s=60.0,
            transcribe_workers=1,
            shard_workers=1,
            transcribe_batch_limit_s=60.0,
            max_transcription_failure_rate=0.0,
            train_workers=1,
            train_processes=1,
            train_part_size=part_size,
            train_recompute=recompute,
            train_compile=compiled,
            evaluate_tf32=False,
            max_skipped_samples=max_skipped_samples,
            checkpoint_every_s=checkpoint_every_s,
            embed_batch_size=8,
            image_cache_mb=16,
        )
        return train(job, data or data_for(switches), work_dir, runtime, on_row, ranks=ranks)

    return train_one


def same(one, two) -> bool:
    tensors = one.model.trained_tensors(), two.model.trained_tensors()
    return (
        tensors[0].keys() == tensors[1].keys()
        and all(torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0])
        and one.history == two.history
        and (one.best_step, one.dev) == (two.best_step, two.dev)
    )


def losses(trained):
    return [row["loss"] for row in trained.history if "loss" in row]


@pytest.mark.parametrize("switches", LEARNERS.values(), ids=LEARNERS)
def test_the_loss_falls(run, switches):
    found = losses(run(switches, steps=60, warmup_steps=4))
    assert sum(found[-5:]) < 0.9 * sum(found[:5])


def test_the_sigmoid_loss_falls_and_goes_on_after_a_kill(run):
    """With its bias, which has nothing of the loop in it."""
    settings = {"loss": "sigmoid", "temperature": 0.1, "steps": 60, "warmup_steps": 4}
    undisturbed = run(FULL, "undisturbed", **settings)
    found = losses(undisturbed)
    assert sum(found[-5:]) < 0.9 * sum(found[:5])
    assert undisturbed.history[0]["logit_bias"] == -10
    assert "logit_bias" in undisturbed.model.trained_tensors()

    def stop(row):
        if row["step"] == 31:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(FULL, "killed", on_row=stop, **settings)
    assert same(run(FULL, "killed", **settings), undisturbed)


@pytest.mark.parametrize("same_image", ["multi_positive", "contrast"])
def test_the_loss_falls_whatever_other_takes_are(run, same_image):
    found = losses(run(FULL, steps=60, warmup_steps=4, same_image=same_image))
    assert sum(found[-5:]) < 0.95 * sum(found[:5])


def test_a_longer_training_begins_like_a_shorter_one(run):
    """In particular with the same initial weights."""
    short, long = (run(FULL, folder=f"{steps}", steps=steps, warmup_steps=4) for steps in (12, 60))
    assert losses(short)[:4] == losses(long)[:4]


def test_a_start_is_taken_over(run):
    """A second training begins where the first one ended, as its loss shows."""
    first = run(FULL, folder="first", steps=60, warmup_steps=4)
    start = first.model.trained_tensors()
    again = run(FULL, folder="again", start=start)
    anew = run(FULL, folder="anew")
    assert losses(again)[0] < 0.8 * losses(anew)[0]
    with pytest.raises(ValueError, match="expected"):
        run(PROMPTED, folder="other", start=start)


def test_full_learns_the_tiny_world(run):
    trained = run(FULL, steps=50, evaluate_every=10)
    assert trained.dev[SELECTION_METRIC] > 0.8


@pytest.mark.parametrize("switches", (VARIANTS | OPTIONS).values(), ids=VARIANTS | OPTIONS)
def test_a_killed_run_ends_in_the_same_bytes(run, switches):
    """Stops with an error at three moments, one right after another's checkpoint."""
    undisturbed = run(switches, "undisturbed")
    for stop_at in (2, 7, 10):

        def stop(row, stop_at=stop_at):
            if row["step"] == stop_at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(switches, "killed", on_row=stop)
    assert same(run(switches, "killed"), undisturbed)


def test_a_finished_run_is_not_repeated(run):
    rows = []
    first = run(PROMPTED)
    again = run(PROMPTED, on_row=rows.append)
    assert same(first, again)
    assert rows == []


def test_a_run_killed_while_it_writes_goes_on_from_before(run, tmp_path, monkeypatch):
    undisturbed = run(PROMPTED, "undisturbed")
    save, calls = torch.save, []

    def cut(content, path):
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        save(content, path)

    monkeypatch.setattr(torch, "save", cut)
    with pytest.raises(KeyboardInterrupt):
        run(PROMPTED, "killed")
    assert [path.name for path in (tmp_path / "killed").iterdir()] == [CHECKPOINT_FILE]
    assert same(run(PROMPTED, "killed"), undisturbed)


@pytest.mark.parametrize("damage", ["empty", "cut", "other bytes"])
def test_a_damaged_checkpoint_is_set_aside_and_training_starts_anew(run, tmp_path, capsys, damage):
    undisturbed = run(FULL, "undisturbed")
    run(FULL, "damaged")
    path = tmp_path / "damaged" / CHECKPOINT_FILE
    content = bytearray(path.read_bytes())
    if damage == "other bytes":
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(byte ^ 0xFF for byte in content[middle : middle + 64])
    path.write_bytes({"empty": b"", "cut": content[:-200]}.get(damage, content))
    assert same(run(FULL, "damaged"), undisturbed)
    assert f"{path} is damaged and is set aside" in capsys.readouterr().err
    assert path.with_name(f"{CHECKPOINT_FILE}.damaged").exists()


def test_how_often_a_checkpoint_is_written_changes_nothing(run):
    assert same(run(FULL, "often"), run(FULL, "rarely", checkpoint_every_s=1e6))


def test_layers_that_are_computed_again_change_nothing(run):
    assert same(run(FULL, "kept"), run(FULL, "again", recompute=True))


def test_seeds_differ_and_repeat(run):
    zero, again, one = run(FULL, "a"), run(FULL, "b"), run(FULL, "c", seed=1)
    assert same(zero, again)
    assert not same(zero, one)


def test_rows_hold_what_was_promised(run):
    rows = []
    trained = run(FULL, on_row=rows.append)
    speed = [row for row in rows if "samples_per_second" in row]
    assert [row["step"] for row in speed] == [4, 8, 12]
    assert all(0 <= row["data_wait"] <= 1 and row["peak_memory_mb"] > 0 for row in speed)
    assert all(row["samples_per_second"] == pytest.approx(8 / row["step_s"]) for row in speed)
    rows = [row for row in rows if row not in speed]
    assert rows == trained.history
    training = [row for row in rows if "loss" in row]
    dev = [row for row in rows if SELECTION_METRIC in row]
    assert [row["step"] for row in training] == list(range(1, 13))
    assert [row["step"] for row in dev] == [4, 8, 12]
    assert set(training[0]) == {
        "step",
        "loss",
        "outer_loss",
        "inner_loss",
        "learning_rate",
        "logit_scale",
        "grad_norm",
        "text_norm",
        "acoustic_norm",
    }
    assert "dev/speech_to_image/recall_at_1" in dev[0]


def test_a_single_channel_has_no_inner_loss(run):
    row = run(PROMPTED).history[0]
    assert "inner_loss" not in row
    assert "acoustic_norm" not in row


def test_alpha_zero_gives_only_the_outer_loss(run):
    row = run(variant(alpha=0.0)).history[0]
    assert "inner_loss" not in row
    assert row["loss"] == row["outer_loss"]


def test_the_best_on_dev_is_kept_and_the_earlier_of_equals(run):
    trained = run(E2E, steps=24, evaluate_every=2)
    scores = {r["step"]: r[SELECTION_METRIC] for r in trained.history if SELECTION_METRIC in r}
    best = max(scores.values())
    assert trained.best_step == min(step for step, score in scores.items() if score == best)
    assert trained.dev[SELECTION_METRIC] == best


def test_the_returned_model_is_the_best_and_not_the_last(run, backbone):
    trained = run(E2E, steps=24, evaluate_every=2)
    assert trained.best_step < 24
    collator = Collator(input_transforms(backbone, E2E), E2E)
    embeddings = embed_split(trained.model, collator, world_data().read_split("dev"), 8)
    scores = score_retrieval(embeddings, "dev", (1, 5, 10)).metrics
    assert trained.dev.items() <= scores.items()
    # A finished model's `history.jsonl` stays as it is when `score` learns another metric.
    assert {name.rpartition("/")[2] for name in scores.keys() - trained.dev.keys()} == {
        "mean_rank",
        "mean_reciprocal_rank",
        "ndcg_at_10",
    }


def test_a_fixed_temperature_stays(run):
    trained = run(PROMPTED, learn_temperature=False)
    assert trained.history[-2]["logit_scale"] == pytest.approx(1 / 0.07)
    assert "log_logit_scale" not in trained.model.trained_tensors()


def test_a_loss_that_is_no_number_stops_the_run(run):
    with pytest.raises(BrewlineError, match="lower the recipe's learning_rate") as caught:
        run(E2E, learning_rate=1e38, grad_clip=1e38, weight_decay=1.0)
    assert caught.value.kind == "settings"


def test_the_batch_whose_loss_was_no_number_is_written_down(run, tmp_path, monkeypatch):
    """Of a step that has no row, and after which the parameters are no numbers either."""
    monkeypatch.setattr("brewline.training.loop._MAX_TRAINING_ROWS", 1)
    data, bad = world_data(), 5
    ids = [one.utterance_id for one in data.read_training(0, 8 * bad, 8 * bad + 8)]

    def read_training(seed, start, stop):
        found = data.read_training(seed, start, stop)
        if start <= 8 * bad < stop:
            found[0] = replace(found[0], states=np.full_like(found[0].states, np.nan))
        return found

    with pytest.raises(BrewlineError, match=r"no number at step 6.*non_finite_batch.json"):
        run(
            E2E,
            data=TrainingData(read_training, data.read_split, data.read_split),
            evaluate_every=99,
        )
    told = json.loads((tmp_path / "work" / NON_FINITE_FILE).read_text())
    assert told == {"step": 6, "utterance_ids": ids}


class EndedError(Exception):
    pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_whoever_is_asked_to_end_finishes_the_step_and_keeps_it(run, tmp_path, number):
    undisturbed = run(FULL, "undisturbed")
    steps = []

    def ask(row):
        steps.append(row["step"])
        if row["step"] == 5:
            os.kill(os.getpid(), number)

    def end(number, frame):
        raise EndedError

    before = signal.signal(number, end)
    try:
        # Nothing else would have written a checkpoint.
        with pytest.raises(EndedError):
            run(FULL, "asked", on_row=ask, checkpoint_every_s=1e6)
    finally:
        signal.signal(number, before)
    assert steps[-1] == 5
    assert load_checkpoint(tmp_path / "asked" / CHECKPOINT_FILE)["progress"].step == 5
    assert same(run(FULL, "asked"), undisturbed)


def test_missing_states_are_one_sentence(run):
    with pytest.raises(BrewlineError, match="needs encoder states"):
        run(FULL, data=world_data(with_states=False))


def test_a_missing_dev_split_is_told_before_the_first_step(run):
    def read_split(split):
        raise BrewlineError("no dev utterances")
        yield

    rows = []
    with pytest.raises(BrewlineError, match="no dev"):
        run(
            PROMPTED,
            data=TrainingData(world_data().read_training, read_split, read_split),
            on_row=rows.append,
        )
    assert rows == []


def test_text_alone_needs_no_states(run):
    assert run(PROMPTED, data=world_data(with_states=False)).history


def test_test_is_never_read(run):
    data = world_data()

    def read_split(split):
        assert split == "dev"
        return data.read_split(split)

    run(FULL, data=replace(data, read_split=read_split))


def test_a_long_run_keeps_about_a_thousand_rows(run, monkeypatch):
    monkeypatch.setattr("brewline.training.loop._MAX_TRAINING_ROWS", 4)
    rows = [row for row in run(PROMPTED).history if "loss" in row]
    assert [row["step"] for row in rows] == [3, 6, 9, 12]


def test_a_batch_larger_than_the_corpus_goes_round(run):
    small = make_world(2, takes=1)
    data = world_data()
    whole = TrainingData(data.read_training, lambda split: small, lambda split: small)
    assert len(losses(run(PROMPTED, data=whole, batch_size=40, steps=2))) == 2


# Both takes of a picture, which is one file.
BAD = {"image": ["u3-0", "u3-1"], "states": ["u5-0"]}


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("prompts", [2, 0])
def test_a_bad_sample_is_skipped_counted_and_named(run, tmp_path, caplog, what, prompts):
    data, rows, seen = damaged_data(BAD[what], what), [], []
    read = data.read_training

    def noted(*numbers):
        found = read(*numbers)
        seen.extend(found)
        return found

    data = replace(data, read_training=noted)
    switches = variant(prompts=prompts)
    trained = run(switches, data=data, max_skipped_samples=2, on_row=rows.append)
    assert sorted(trained.skipped) == BAD[what]
    assert all(repr(name) in why for name, why in trained.skipped.items()) or what == "image"
    assert f"{len(BAD[what])} samples were skipped: {', '.join(BAD[what])}" in caplog.text
    counts = [row["skipped_samples"] for row in rows if "skipped_samples" in row]
    assert counts[-1] == len(BAD[what])
    assert np.isfinite(losses(trained)).all() and len(losses(trained)) == 12
    # A run that is killed on its way ends alike, and counts none twice.
    killed = replace(data, read_training=dying_after(20, read))
    with pytest.raises(RuntimeError, match="killed"):
        run(switches, "again", data=killed, max_skipped_samples=2)
    again = run(switches, "again", data=data, max_skipped_samples=2)
    assert same(trained, again) and again.skipped == trained.skipped


def dying_after(count, read):
    left = iter(range(count))

    def reading(*numbers):
        if next(left, None) is None:
            raise RuntimeError("killed")
        return read(*numbers)

    return reading


def test_nothing_behind_the_last_batch_is_read(run):
    """What is made ahead would be counted, or not, as one thread is faster than another."""
    data, stops = world_data(), []

    def read_training(seed, start, stop):
        stops.append(stop)
        return data.read_training(seed, start, stop)

    run(PROMPTED, data=replace(data, read_training=read_training))
    assert max(stops) == 12 * 8


def test_too_many_bad_samples_end_the_run_with_their_name(run):
    data = damaged_data(BAD["image"], "image")
    with pytest.raises(BrewlineError, match=r"'u3-[01]' is damaged.*max_skipped_samples \(1\)"):
        run(PROMPTED, data=data, max_skipped_samples=1)


def test_a_corpus_of_bad_samples_ends_the_run(run):
    """Though there are fewer of them than may be skipped."""
    bad = [one.utterance_id for one in make_world()]
    with pytest.raises(BrewlineError, match="no states for"):
        run(FULL, data=damaged_data(bad, "states"), max_skipped_samples=99)


def test_what_was_skipped_lies_beside_the_model_and_nothing_does_where_nothing_was(run, tmp_path):
    card = ModelCard.model_validate(
        {"experiment": "e", "variant": "v", "corpus": "c", "switches": PROMPTED.model_dump()}
        | {"task": "retrieval", "backbones": {}, "recipe": None, "seed": 0}
    )
    trained = run(PROMPTED)
    for folder, skipped in (("none", {}), ("some", {"u1": "why"})):
        save_model(tmp_path / folder, card, replace(trained, skipped=skipped))
    assert not (tmp_path / "none/skipped_samples.json").exists()
    assert json.loads((tmp_path / "some/skipped_samples.json").read_text()) == {"u1": "why"}


def test_what_is_worked_out_beforehand_reads_no_states(run):
    """Layers of HuBERT are a hundred times as large as pictures and texts."""
    data = world_data()

    def read_split(split):
        assert split == "dev"
        return data.read_split(split)

    rows = losses(run(VARIANTS["no-prompts"], data=replace(data, read_split=read_split), steps=2))
    assert len(rows) == 2


def test_towers_without_prompts_see_dev_once(run, monkeypatch):
    counts = {"images": 0, "texts": 0}
    encode_images, encode_text = BrewClip.encode_images, BrewClip.encode_text

    def images(self, pictures):
        counts["images"] += pictures.num_pictures
        return encode_images(self, pictures)

    def text(self, inputs):
        counts["texts"] += inputs.num_utterances
        return encode_text(self, inputs)

    monkeypatch.setattr(BrewClip, "encode_images", images)
    monkeypatch.setattr(BrewClip, "encode_text", text)
    trained = run(VARIANTS["no-prompts"], steps=4, evaluate_every=1)
    # Eight pictures in training, with two takes each; and eight of dev, with one.
    assert counts == {"images": 16, "texts": 24}
    measure = Retrieval.measure

    def measure_anew(self, *arguments):
        self._known_collators.clear()
        return measure(self, *arguments)

    monkeypatch.setattr(Retrieval, "measure", measure_anew)
    assert same(trained, run(VARIANTS["no-prompts"], "slow", steps=4, evaluate_every=1))


@pytest.mark.gpu
@pytest.mark.parametrize("switches", LEARNERS.values(), ids=LEARNERS)
@pytest.mark.parametrize("precision", ["auto", "fp16"])
def test_the_loss_falls_on_a_gpu(run, switches, precision):
    assert torch.cuda.is_available()
    found = losses(run(switches, steps=40, warmup_steps=4, precision=precision))
    assert sum(found[-5:]) < 0.9 * sum(found[:5])


@pytest.mark.gpu
def test_a_killed_run_ends_alike_on_a_gpu(run):
    """Not in the same bytes: sums are taken in another order."""

    def stop(row):
        if row["step"] == 7:
            raise KeyboardInterrupt

    undisturbed = run(FULL, "undisturbed")
    with pytest.raises(KeyboardInterrupt):
        run(FULL, "killed", on_row=stop)
    assert losses(run(FULL, "killed")) == pytest.approx(losses(undisturbed), rel=1e-3)


@pytest.mark.gpu
def test_compiled_layers_train_alike_on_a_gpu(run):
    plain, compiled = (losses(run(FULL, str(one), compiled=one)) for one in (False, True))
    assert compiled == pytest.approx(plain, rel=1e-2)


@pytest.mark.gpu
def test_parts_take_less_of_a_gpu_and_so_do_layers_that_are_computed_again(run):
    peaks = {}
    for name, options in {
        "whole": {},
        "parts": {"part_size": 8},
        "again": {"recompute": True},
    }.items():
        rows = []
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        run(FULL, name, on_row=rows.append, steps=2, evaluate_every=2, batch_size=256, **options)
        (peaks[name],) = [row["peak_memory_mb"] for row in rows if "peak_memory_mb" in row]
    assert max(peaks["parts"], peaks["again"]) < peaks["whole"]
