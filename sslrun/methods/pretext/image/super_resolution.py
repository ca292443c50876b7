"""Super-resolution: shrink a picture, ask for the details that were lost (Dong et al. 2014, arXiv:1501.00092)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.restoration import Restoration
from sslrun.rng import Rng


class SuperResolution(Restoration):
    """Restores a picture that was shrunk and enlarged again.

    Dong et al. 2014, arXiv:1501.00092: inputs are enlarged by bicubic interpolation before the network, which therefore
    sees them at the data's own size. Shrinking is the exact mean over squares of `factor` pixels a side, cut at the
    right and lower border where that does not divide the picture. Skill is measured against the bicubic
    enlargement itself, or the training part's mean picture where that is better.

    Args:
        factor: 2 or 4.
        hidden: width of the decoder's hidden layer.
        recipe: augmentation before shrinking.
    """

    def __init__(self, encoder: Encoder, spec: DataSpec, factor: int = 4, hidden: int = 256, recipe: str = "plain"):
        super().__init__(encoder, spec, recipe, hidden)
        if factor not in (2, 4):
            raise ValueError(f"factor={factor} must be 2 or 4")
        self.factor = factor

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        height, width = x.shape[2:]
        small = F.avg_pool2d(x, self.factor, ceil_mode=True)
        large = F.interpolate(small, scale_factor=self.factor, mode="bicubic")
        return large[:, :, :height, :width], x
