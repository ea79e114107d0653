"""The precisions that a user may ask for.

`brewline.core.devices` says what they are on a device; naming one needs no torch.
"""

from typing import Literal

Precision = Literal["auto", "fp32", "bf16", "fp16"]
