"""What a GPU is spared in a step, as far as a processor can tell."""

import shutil
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tiny_models import E2E, FULL, PROMPTED, make_world, variant
from torch.utils._python_dispatch import TorchDispatchMode

from brewline.core.devices import set_tf32
from brewline.core.ranks import ALONE
from brewline.models.layers import layers_run
from brewline.training.step import Step
from brewline.training.tasks.retrieval import Retrieval

VARIANTS = {
    "prompted": PROMPTED,
    "e2e": E2E,
    "full": FULL,
    "deep": variant(prompt_depth=2),
    "chunked": variant(long_texts="chunk", pictures="multicrop"),
}
# What hands a number, or a size, from the device to the program.
WAITS = ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "unique", "item")


class Listener(TorchDispatchMode):
    """Hears every operation, of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.cast: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        name = function.overloadpacket.__name__
        self.names.append(name)
        if name == "_to_copy":
            self.cast.add(args[0].untyped_storage().data_ptr())
        return function(*args, **(kwargs or {}))


@pytest.fixture
def make(backbone, recipe):
    """A step of a variant, with its model and batch."""

    def make_step(switches, dtype=torch.float32, running=None):
        task = Retrieval(switches, recipe, backbone)
        world = make_world(4)
        torch.manual_seed(0)
        model = task.make_model(world[0])
        if dtype != torch.float32:
            model.keep_frozen_in(dtype)
        model.train()
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        more = () if running is None else (running,)
        return Step(task, model, dtype, scaler, ALONE, *more), model, task.collate(world)

    return make_step


@contextmanager
def evaluating_afterwards(model):
    """The tiny CLIP is that of all tests: it has to get its own weights back."""
    try:
        yield
    finally:
        model.eval()


def gradients(model):
    return {name: p.grad.clone() for name, p in model.trained_parameters().items()}


@pytest.mark.parametrize("switches", VARIANTS.values(), ids=VARIANTS)
def test_no_step_waits_for_the_device(make, switches):
    step, _, batch = make(switches)
    step([batch], 0, 0)
    with Listener() as heard:
        step([batch], 0, 1)
    assert len(heard.names) > 100
    assert not [name for name in heard.names if any(wait in name for wait in WAITS)]


@pytest.mark.parametrize("switches", VARIANTS.values(), ids=VARIANTS)
def test_frozen_weights_are_in_half_precision_once_and_change_nothing(make, switches, monkeypatch):
    step, model, batch = make(switches, torch.bfloat16)
    with evaluating_afterwards(model):
        frozen = {p.untyped_storage().data_ptr() for _, p, _ in model._frozen}
        assert frozen
        with Listener() as heard:
            loss = step([batch], 0, 0).total
        assert not heard.cast & frozen
        assert {p.dtype for p, _, _ in model._frozen} == {torch.bfloat16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    ours = gradients(model)
    monkeypatch.setattr(type(model), "keep_frozen_in", lambda *_: None)
    plain, other, batch = make(switches, torch.bfloat16)
    with Listener() as heard:
        assert plain([batch], 0, 0).total == loss
    weights = {p.untyped_storage().data_ptr() for p in other.clip.parameters()}
    assert heard.cast & weights, "autocast makes them anew"
    theirs = gradients(other)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def kept_bytes(step, batch):
    """What a step keeps for its backward pass, each memory once."""
    sizes = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = step([batch], 0, 0).total
    return loss, sum(sizes.values())


@pytest.mark.parametrize("switches", [PROMPTED, FULL, VARIANTS["deep"]])
def test_layers_that_are_computed_again_change_nothing_and_keep_less(make, switches):
    step, model, batch = make(switches)
    loss, kept = kept_bytes(step, batch)
    again, same, batch = make(switches, running=lambda: layers_run(True, False))
    loss_again, kept_again = kept_bytes(again, batch)
    assert loss_again == loss
    assert kept_again < 0.8 * kept
    ours, theirs = gradients(same), gradients(model)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_layers_give_the_same(make):
    step, model, batch = make(FULL)
    loss = step([batch], 0, 0).total
    compiled, same, batch = make(FULL, running=lambda: layers_run(False, True))
    torch.testing.assert_close(compiled([batch], 0, 0).total, loss, rtol=1e-5, atol=1e-5)
    ours, theirs = gradients(same), gradients(model)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_taken_where_it_is_asked_for(monkeypatch, allowed):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    places = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [place.allow_tf32 for place in places]
    try:
        for place in places:
            place.allow_tf32 = not allowed
        set_tf32(allowed)
        assert [place.allow_tf32 for place in places] == [allowed, allowed]
    finally:
        for place, value in zip(places, before, strict=True):
            place.allow_tf32 = value
