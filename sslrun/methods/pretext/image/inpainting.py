"""Inpainting: cut holes into a picture, ask for what was there (Pathak et al. 2016, arXiv:1604.07379)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.restoration import Restoration
from sslrun.rng import Rng

MASKS = ("block", "random")


class Inpainting(Restoration):
    """The reconstruction loss of a context encoder: hidden pixels from the visible ones.

    Pathak et al. 2016, arXiv:1604.07379. Hidden pixels are NaN in the inputs, and the encoder sees the mean of their
    channel there; they alone are asked for. `block` hides rectangles, wide enough that copying from their border is no
    answer; `random` hides single pixels. Skill is measured against the mean picture of the training part.

    Args:
        mask: `block` or `random`.
        share: share of pixels that are hidden, in (0, 1); blocks may overlap and then hide less.
        blocks: rectangles in a picture, which divide `share` among them.
        hidden: width of the decoder's hidden layer.
        recipe: augmentation before the holes.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        mask: str = "block",
        share: float = 0.25,
        blocks: int = 1,
        hidden: int = 256,
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec, recipe, hidden)
        if mask not in MASKS:
            raise ValueError(f"mask={mask} is unknown; choose one of {', '.join(MASKS)}")
        if not 0 < share < 1:
            raise ValueError(f"share={share} must lie between 0 and 1, for example 0.25")
        if blocks < 1:
            raise ValueError(f"blocks={blocks} must be 1 or more")
        self.mask, self.share, self.blocks = mask, share, blocks

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        size = x.shape[2:]
        if self.mask == "random":
            holes = rng.chance(self.share, *size)
        else:
            holes = rectangles(rng, self.blocks, self.share / self.blocks, *size)
        holes = holes.unsqueeze(1)  # (B, 1, H, W): a pixel with all its channels
        return x.masked_fill(holes, math.nan), x.masked_fill(~holes, math.nan)

    def answer(self, encoder: Encoder, inputs: Tensor) -> Tensor:
        return super().answer(encoder, torch.where(inputs.isnan(), self.mean.to(inputs.dtype), inputs))

    def guess(self, inputs: Tensor, target: Tensor) -> Tensor:
        return self.picture.to(target.dtype).expand_as(target)

    def complete(self, encoder: Encoder, x: Tensor) -> Tensor:
        """The pictures with their NaN pixels filled, and all others as they were, (B, C, H, W)."""
        return torch.where(x.isnan(), super().complete(encoder, x), x)

    def figure(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        shown = super().figure(encoder, batch)
        shown["target"] = torch.where(shown["target"].isnan(), shown["input"], shown["target"])
        return shown


def rectangles(rng: Rng, count: int, share: float, height: int, width: int) -> Tensor:
    """Where `count` rectangles lie, each of about `share` of the area and up to twice as long as wide, (B, H, W)."""
    area = share * height * width
    tall = (math.sqrt(area) * rng.uniform(count, low=-0.5, high=0.5).exp2()).round().clamp(1, height)  # (B, count)
    wide = (area / tall).round().clamp(1, width)
    top = (rng.uniform(count) * (height - tall + 1)).floor()
    left = (rng.uniform(count) * (width - wide + 1)).floor()
    down, across = between(top, tall, height), between(left, wide, width)
    return (down.unsqueeze(3) & across.unsqueeze(2)).any(1)


def between(start: Tensor, length: Tensor, n: int) -> Tensor:
    """Which of n positions lie within `length` of `start`, (B, count, n) for (B, count)."""
    offset = torch.arange(n, device=start.device) - start.unsqueeze(2)
    return (offset >= 0) & (offset < length.unsqueeze(2))
