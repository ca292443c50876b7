"""Deblurring: blur a picture, ask for the sharp one (Xu et al. 2014)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.blur import blur
from sslrun.nn.restoration import Restoration, span
from sslrun.rng import Rng


class Deblurring(Restoration):
    """Reconstructs a picture from a copy with Gaussian blur of a width of its own.

    Xu et al. 2014, "Deep Convolutional Neural Network for Image Deconvolution". Skill is measured against the blurred
    picture itself, or the training part's mean picture where that is better.

    Args:
        sigma: range of the blur's standard deviation, as a share of the shorter side.
        hidden: width of the decoder's hidden layer.
        recipe: augmentation before the blur.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        sigma: Sequence[float] = (0.05, 0.15),
        hidden: int = 256,
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec, recipe, hidden)
        self.sigma = span("sigma", sigma, [0.05, 0.15])
        if not self.sigma[0]:
            raise ValueError(f"sigma={list(sigma)} must be above 0, for example [0.05, 0.15]")

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        side = min(x.shape[2:])
        low, high = (share * side for share in self.sigma)  # pixels
        radius = min(math.ceil(3 * high), side - 1)  # beyond three standard deviations lies .3 % of the weight
        return blur(x, rng.uniform(low=low, high=high), radius), x
