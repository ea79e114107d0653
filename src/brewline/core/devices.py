"""Which device computes, in which precision, and in how many processes."""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from typing import Literal, TypeVar

import torch

from brewline.core.compute import DeviceName, Precision
from brewline.core.errors import BrewlineError
from brewline.core.system import GOOD_BYE_S, end_with_parent, keep_freed_memory

Task = TypeVar("Task")

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(wanted: DeviceName = "auto") -> torch.device:
    """The device asked for; `auto` is the first CUDA device if there is one, else the processor.

    Apple's GPU (`mps`) is used only when asked for: nobody has compared its results yet.

    Raises:
        BrewlineError: this machine has no such device.
    """
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.mps.is_available()}
    if wanted == "auto":
        wanted = "cuda" if there["cuda"] else "cpu"
    elif not there[wanted]:
        raise BrewlineError(
            f"runtime.device is {wanted}, which PyTorch {torch.__version__} does not find here; "
            "cpu works everywhere, and auto takes a CUDA device where there is one",
            "settings",
        )
    return torch.device(wanted)


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type that matrix products run in.

    `auto` is bf16 where the device has units for it (on a processor: AVX-512 BF16 or AMX), fp16 on
    older GPUs, and fp32 elsewhere, where emulated half precision would be slower.
    """
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bf16 else torch.float16
    if device.type == "mps":
        return torch.float32
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bf16 else torch.float32


def set_tf32(allowed: bool) -> None:
    """Says whether a GPU may round what fp32 products take to 10 bits, for a multiple of its speed.

    Half precision is not touched; a processor knows no such thing.
    """
    if torch.cuda.is_available():
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed


def count_processes(wanted: int | Literal["auto"], device: torch.device, batch_size: int) -> int:
    """How many processes share the batches of one model.

    Args:
        wanted: `auto`: as many as there are GPUs, or fewer where the batch cannot be shared equally
            by all of them; one elsewhere.
        device: What they compute on.
        batch_size: Of the recipe.

    Raises:
        BrewlineError: there are fewer devices, or the batch cannot be shared equally.
    """
    # Processors are shared by any number; Apple's GPU knows no other process.
    there = {"cuda": torch.cuda.device_count(), "mps": 1}.get(device.type)
    if wanted == "auto":
        return next(n for n in range(there or 1, 0, -1) if batch_size % n == 0)
    if there is not None and wanted > there:
        raise BrewlineError(
            f"runtime.train_processes is {wanted}, and PyTorch finds {there} GPUs here", "settings"
        )
    if batch_size % wanted:
        raise BrewlineError(
            f"a batch of {batch_size} cannot be shared equally by {wanted} processes; change the "
            "recipe's batch_size or runtime.train_processes",
            "settings",
        )
    return wanted


def name_computation(engine: str, device: DeviceName) -> list[str]:
    """What a work folder is named by: who goes on elsewhere should not mix precisions.

    Args:
        engine: What does the units; what a cluster has is not seen from here.
        device: Where their models run.
    """
    if engine != "processes":
        return [device, engine]
    return [device, str(choose_dtype("auto", choose_device(device)))]


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """A context in which matrix products run in `dtype`; none needed for fp32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def in_processes(function: Callable[[Task], None], tasks: Sequence[Task], workers: int) -> None:
    """Does every task; several at a time in processes that share the threads of this one.

    Models as small as ours gain nothing from a second thread, but all of a second process. With
    one worker, or one task, the work is done in this process.

    Args:
        function: Of a module, so that another process can import it.
        tasks: What it is called with.
        workers: How many processes at most.

    Raises:
        Exception: what the first failing task raised; those not begun are not begun any more.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        for task in tasks:
            function(task)
        return
    others = multiprocessing.active_children()
    with ProcessPoolExecutor(
        workers,
        # A fork would inherit the locks of whatever threads this process runs.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(max(1, torch.get_num_threads() // workers),),
    ) as pool:
        waiting = [pool.submit(function, task) for task in tasks]
        try:
            for one in waiting:
                one.result()
        except BaseException:
            # It would wait for what runs now, which may take hours.
            pool.shutdown(wait=False, cancel_futures=True)
            _end([child for child in multiprocessing.active_children() if child not in others])
            raise


def _end(children: Sequence[BaseProcess]) -> None:
    """Asks processes to end, and makes those that have not ended 5 s later."""
    for child in children:
        child.terminate()
    deadline = time.monotonic() + GOOD_BYE_S
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))
        child.kill()


def compute_in_one_thread() -> None:
    """Sets up a process that is one of several which run a model.

    What it computes then depends on the number of neither processes nor cores; and it keeps the
    memory that it frees, as a model asks for the same again and again.
    """
    torch.set_num_threads(1)
    keep_freed_memory()


def _start_worker(num_threads: int) -> None:
    # Who is gone before we looked is not to be taken for whoever we belong to since.
    starter = multiprocessing.parent_process()
    end_with_parent(starter.pid if starter else None)
    torch.set_num_threads(num_threads)
