"""Blur detection: is the picture blurred or clean?"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, Predict, UserError
from sslrun.nn.blur import blur
from sslrun.nn.warp import loose, resample
from sslrun.rng import Rng

ZOOM = 0.85  # the least extent of what is kept of a picture
SHARP = 1e-3  # pixels: a kernel of this width is 1 at its centre and 0 beside it


class BlurDetection(Predict):
    """Two-way classification: a Gaussian blur of random width, or none.

    A corruption to tell, as in RotNet (Gidaris et al. 2018, arXiv:1803.07728); 1 is blurred. Both classes go through
    the same bilinear crop of random size and place and the same filter, with a width of nothing for clean pictures:
    that values lie off the file's own steps, or that a picture was interpolated, tells nothing.

    Args:
        sigma: range of the width as a share of the shorter side, up to 0.25; the kernel ends at twice the largest.
        recipe: augmentation before the blur.

    Raises UserError where `sigma` is no ascending range in (0, 0.25], or the widest blur is below 0.5 pixels.
    """

    modalities = ("image",)
    kind = "class"
    num_targets = 2

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        sigma: tuple[float, float] = (0.05, 0.1),
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec)
        given = f"method.blur_detection.sigma=[{','.join(map(str, sigma))}]"
        if len(sigma) != 2 or not 0 < sigma[0] <= sigma[1] <= 0.25:
            raise UserError(f"{given} must be two ascending shares of the side up to 0.25; [0.05,0.1] works.")
        side = min(spec.shape[1:])
        if sigma[1] * side < 0.5:
            raise UserError(
                f"{given} is a blur below half a pixel on data={spec.name}, whose shorter side has {side}; "
                f"sigma=[{0.5 / side:.2g},{1 / side:.2g}] works."
            )
        self.sigma = tuple(sigma)
        self.views = {"all": {"view": recipe}}
        self.head = nn.Linear(encoder.dim, 2)

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        target = rng.chance(0.5)  # (B,)
        whole = torch.eye(3, device=x.device).expand(len(x), 3, 3)
        x = resample(x, loose(rng, whole, ZOOM))
        side = min(x.shape[2:])
        width = rng.uniform(low=self.sigma[0], high=self.sigma[1]) * side
        radius = math.ceil(2 * self.sigma[1] * side)
        return blur(x, width.where(target, torch.full_like(width, SHARP)), min(radius, side - 1)), target.long()

    def answer(self, encoder: Encoder, inputs: Any) -> Tensor:
        return self.head(encoder(inputs))
