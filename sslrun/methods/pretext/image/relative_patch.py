"""Relative patch: on which side of the first tile lies the second? (Doersch et al. 2015, arXiv:1505.05192)."""

from __future__ import annotations

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder, Predict, UserError
from sslrun.nn.heads import mlp_head
from sslrun.nn.tiles import Axis, Tiles, cut, join, some_grey, split
from sslrun.rng import Rng

GRID = 3


class RelativePatch(Predict):
    """Eight-way classification of where a tile lies about the central one.

    Doersch et al. 2015, arXiv:1505.05192. Tiles are cut apart with gaps and jitter, so that edges do not continue,
    and normalised one by one, so that a gradient of brightness does not point the way; of pictures with several
    channels a share is grey, so that colour fringes do not tell the place. The encoder sees one tile at a time; a
    perceptron reads the features of both. Classes are the places row by row, without the centre.

    Args:
        hidden: width of the head's hidden layer.
        grey: share of the pictures without colour.
        recipe: augmentation before cutting; a flip in it would be harmless, because the labels come after it.

    Raises UserError for pictures below 8 pixels a side, where three tiles of two pixels with gaps do not fit. At 8
    pixels a tile has 2 x 2 of them and does not move.
    """

    modalities = ("image",)
    kind = "class"
    num_targets = GRID**2 - 1

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        hidden: int = 512,
        grey: float = 0.66,
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec)
        height, width = spec.shape[1:]
        self.rows, self.columns = Axis.of(height, GRID), Axis.of(width, GRID)
        if min(self.rows.gap, self.columns.gap) < 1:
            raise UserError(
                f"method=relative_patch needs pictures of 8 x 8 pixels or more, and those of data={spec.name} have "
                f"{height} x {width}; method=rotation works on square ones."
            )
        self.grey = grey
        self.views = {"all": {"view": recipe}}
        self.tiles = Tiles(encoder, spec, (self.rows.size, self.columns.size))
        self.head = mlp_head(2 * encoder.dim, hidden, self.num_targets)

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        x = some_grey(x, rng, self.grey)
        tiles = cut(x, rng, self.rows, self.columns)  # (B, 9, C, h, w)
        target = rng.integers(self.num_targets)  # (B,)
        centre = GRID**2 // 2
        place = target + (target >= centre)  # the centre is not asked for
        rows = torch.arange(len(x), device=x.device)
        both = torch.stack([tiles[:, centre], tiles[rows, place]], 1)  # (B, 2, C, h, w)
        return join(self.tiles.normalise(both), 1), target

    def answer(self, encoder: Encoder, inputs: Tensor) -> Tensor:
        return self.head(self.tiles.encode(encoder, split(inputs, 1, 2)))
