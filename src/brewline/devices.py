"""Which device computes, and in which precision."""

import torch

from brewline.params import Precision

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device() -> torch.device:
    """The first CUDA device if there is one, else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type that matrix products run in.

    `auto` is bf16 where the device has units for it (on a processor: AVX-512 BF16 or AMX), fp16 on
    older GPUs, and fp32 elsewhere, where emulated half precision would be slower.
    """
    if precision != "auto":
        return _DTYPES[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    has_bf16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has_bf16 else torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """A context in which matrix products run in `dtype`; none needed for fp32."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
