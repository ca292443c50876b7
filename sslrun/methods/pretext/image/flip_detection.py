"""Flip detection: along which axes was the picture mirrored?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, Predict, UserError
from sslrun.rng import Rng

FLIPS = {"none": (), "horizontal": (3,), "vertical": (2,), "both": (2, 3)}


class FlipDetection(Predict):
    """Classification of mirrorings, with every copy of each picture in the batch.

    After RotNet (Gidaris et al. 2018, arXiv:1803.07728), with mirrorings instead of turns. They only move pixels, so
    that no trace of resampling gives the answer away. A symmetrical picture cannot be told from its mirror image.

    Args:
        flips: two or more of none, horizontal (left and right change places), vertical and both.
        recipe: augmentation before the flip; one that flips by itself makes that flip a matter of chance.

    Raises UserError where `flips` holds fewer than two, one twice or an unknown one.
    """

    modalities = ("image",)
    kind = "class"

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        flips: Sequence[str] = tuple(FLIPS),
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec)
        if len(flips) < 2 or len(set(flips)) < len(flips) or not set(flips) <= set(FLIPS):
            raise UserError(
                f"method.flip_detection.flips=[{','.join(map(str, flips))}] must be two or more of {', '.join(FLIPS)}, "
                f"each once."
            )
        self.flips = tuple(flips)
        self.num_targets = len(flips)
        self.views = {"all": {"view": recipe}}
        self.head = nn.Linear(encoder.dim, len(flips))

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        flipped = torch.cat([x.flip(FLIPS[name]) for name in self.flips])  # (K B, C, H, W)
        return flipped, torch.arange(len(self.flips), device=x.device).repeat_interleave(len(x))  # (K B,)

    def answer(self, encoder: Encoder, inputs: Tensor) -> Tensor:
        return self.head(encoder(inputs))
