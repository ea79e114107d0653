"""The devices, precisions and engines that a user may ask for.

`brewline.core.devices` and `brewline.core.engines` say what they are; naming one imports neither.
"""

from typing import Literal

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
EngineName = Literal["processes", "ray"]
