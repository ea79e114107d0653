"""The devices and precisions that a user may ask for.

`brewline.core.devices` says what they are on this machine; naming one needs no torch.
"""

from typing import Literal

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
