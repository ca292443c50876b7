"""Denoising: add noise to a picture and hide some pixels, ask for the clean one (Vincent et al. 2008)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.restoration import Restoration, span
from sslrun.rng import Rng


class Denoising(Restoration):
    """Reconstructs a picture from a copy with Gaussian noise and masking noise.

    Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders". The noise level differs
    from picture to picture, so that it cannot be learned by heart, and the network is not told which pixels are hidden:
    these have the mean of their channel. All pixels are asked for. Skill is measured against the noisy picture itself,
    or the training part's mean picture where that is better.

    Args:
        std: range of the noise level, in standard deviations of each channel; [0, 0]: none.
        rate: share of pixels that are hidden, in [0, 1).
        hidden: width of the decoder's hidden layer.
        recipe: augmentation before the noise.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        std: Sequence[float] = (0.25, 0.75),
        rate: float = 0.25,
        hidden: int = 256,
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec, recipe, hidden)
        if not 0 <= rate < 1:
            raise ValueError(f"rate={rate} must be a share from 0 to below 1, for example 0.25")
        self.levels, self.rate = span("std", std, [0.25, 0.75]), rate
        if not self.levels[1] and not rate:
            raise ValueError("std=[0, 0] and rate=0 leave the pictures clean; raise one of them")

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        level = rng.uniform(1, 1, 1, low=self.levels[0], high=self.levels[1])  # (B, 1, 1, 1)
        noisy = x + rng.normal(*x.shape[1:]) * (level * self.std.to(x.dtype))
        hidden = rng.chance(self.rate, 1, *x.shape[2:])  # (B, 1, H, W): a pixel with all its channels
        return torch.where(hidden, self.mean.to(x.dtype), noisy), x
