"""The spectrogram of a sound: logarithms of mel energies, as Kaldi's `fbank` computes them.

With the settings that audio transformers are trained with (AST, VIP-ANT): 128 bins, a Hann window
of 25 ms every 10 ms, each window without its mean and with pre-emphasis. T frames, N samples.
"""

from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE_HZ = 16_000
NUM_BINS = 128
FRAME_S = 0.01
_SHIFT = 160
_WINDOW = 400
_FFT = 512
_LOWEST_HZ = 20.0
_PREEMPHASIS = 0.97
# What VIP-ANT normalises by (of AudioSet).
_MEAN, _DEVIATION = -4.938, 5.758


class Spectrogram(NamedTuple):
    """What is heard of a sound every 10 ms, (T, bins), and how many of the frames are its own.

    Those that stand behind its own are what an encoder of one length wants there.
    """

    frames: Tensor
    num_own: int


def log_mel(samples_N: Tensor) -> Tensor:
    """Log-mel energies, (T, 128); only whole windows count, and at least one does.

    Args:
        samples_N: From -1 to 1, at 16 kHz.
    """
    samples_N = samples_N - samples_N.mean() if len(samples_N) else samples_N
    samples_N = F.pad(samples_N, (0, max(0, _WINDOW - len(samples_N))))
    windows_TN = samples_N.unfold(0, _WINDOW, _SHIFT)
    windows_TN = windows_TN - windows_TN.mean(dim=1, keepdim=True)
    before_TN = torch.cat([windows_TN[:, :1], windows_TN[:, :-1]], dim=1)
    shaped_TN = (windows_TN - _PREEMPHASIS * before_TN) * torch.hann_window(_WINDOW, periodic=False)
    power = torch.fft.rfft(shaped_TN, _FFT).abs().square()
    energies = power @ _mel_filters().T
    logarithms: Tensor = energies.clamp(min=torch.finfo(torch.float32).eps).log()
    return logarithms


def normalised_log_mel(samples_N: Tensor, max_duration_s: float) -> Tensor:
    """`log_mel` of the beginning of a sound, with mean 0 and deviation 1 over many sounds."""
    max_samples = round(max_duration_s * SAMPLE_RATE_HZ)
    return (log_mel(samples_N[:max_samples]) - _MEAN) / _DEVIATION


@cache
def _mel_filters() -> Tensor:
    """Triangles on the mel scale, (128, frequencies)."""
    ends_hz = torch.tensor([_LOWEST_HZ, SAMPLE_RATE_HZ / 2], dtype=torch.float64)
    low, high = _mel(ends_hz)
    step = (high - low) / (NUM_BINS + 1)
    left = low + step * torch.arange(NUM_BINS, dtype=torch.float64)[:, None]
    frequencies_hz = torch.arange(_FFT // 2 + 1, dtype=torch.float64) * SAMPLE_RATE_HZ / _FFT
    mels = _mel(frequencies_hz)[None]
    up, down = (mels - left) / step, (left + 2 * step - mels) / step
    return torch.minimum(up, down).clamp(min=0).float()


def _mel(hz: Tensor) -> Tensor:
    return 1127 * torch.log1p(hz / 700)
