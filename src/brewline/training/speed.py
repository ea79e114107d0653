"""How fast a training is, and how well it uses its device."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from brewline.core.system import peak_memory_mb
from brewline.models.folder import Row

# Operations a second of a card: dense products in half precision with fp32 sums, from its maker's
# data sheet (H100 and H200: the SXM modules).
_PEAK_FLOPS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}


class SpeedMeter:
    """Counts steps and what was waited for, from one row to the next.

    Args:
        device: What computes.
        batch_size: Utterances of a step, of all processes.
    """

    def __init__(self, device: torch.device, batch_size: int) -> None:
        self._device, self._batch_size = device, batch_size
        self._peak_flops = _peak_flops(device)
        # Of this process; see `brewline.training.step.count_flops`.
        self._flops_per_step: float | None = None
        self.start()

    @property
    def wants_flops(self) -> bool:
        """Whether the operations of a step are of use, and were not counted yet."""
        return self._peak_flops is not None and self._flops_per_step is None

    def set_flops(self, flops_per_step: float) -> None:
        """Takes the operations of a step of this process, and begins anew."""
        self._flops_per_step = flops_per_step
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        self.start()

    def start(self) -> None:
        """Begins anew: what was done since the last row is no training."""
        self._steps, self._waited_s, self._start_s = 0, 0.0, time.perf_counter()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Inside, the next batch is waited for; then comes its step."""
        start_s = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - start_s
        self._steps += 1

    def row(self) -> Row:
        """What was measured since the start.

        `samples_per_second`; `step_s`, seconds of a step with what it waited for; `data_wait`, the
        share of that in which no batch was ready; `peak_memory_mb` of the GPU, or of the process;
        `model_flops_utilisation`, the floating-point operations of forward and backward pass a
        second over those that the card can do, where that is known.
        """
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            memory_mb = torch.cuda.max_memory_allocated(self._device) / 2**20
        else:
            memory_mb = peak_memory_mb()
        elapsed_s = time.perf_counter() - self._start_s
        step_s = elapsed_s / max(1, self._steps)
        row = {
            "samples_per_second": self._batch_size / step_s,
            "step_s": step_s,
            "data_wait": self._waited_s / elapsed_s,
            "peak_memory_mb": memory_mb,
        }
        if self._flops_per_step is not None and self._peak_flops is not None:
            row["model_flops_utilisation"] = self._flops_per_step / step_s / self._peak_flops
        return row


def _peak_flops(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in _PEAK_FLOPS.items() if part in name), None)
