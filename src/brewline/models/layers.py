"""How the layers of frozen towers are run: as they are, computed again, or compiled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_Layer = Callable[..., Tensor]

_runner: ContextVar[Callable[[_Layer], _Layer]] = ContextVar("runner", default=lambda layer: layer)
_compiled = cache(torch.compile)


@contextmanager
def layers_run(recomputed: bool, compiled: bool) -> Iterator[None]:
    """Inside, layers are run in another way; what they give is the same but for rounding.

    Args:
        recomputed: For gradients a layer keeps what it takes, and nothing else; the backward pass
            computes it once more.
        compiled: By `torch.compile`, one layer for all of a tower, and for lengths that change.
    """

    def runner(layer: _Layer) -> _Layer:
        if compiled:
            layer = _compiled(layer)
        # Nothing of a frozen tower is drawn at random.
        options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        return partial(checkpoint, layer, **options) if recomputed else layer

    token = _runner.set(runner)
    try:
        yield
    finally:
        _runner.reset(token)


def run_layer(layer: _Layer, *arguments: Any) -> Tensor:
    """Calls a function, which is one layer of a tower, in the way that is asked for."""
    return _runner.get()(layer)(*arguments)
