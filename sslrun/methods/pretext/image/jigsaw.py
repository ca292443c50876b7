"""Jigsaw: in which order were the tiles of the picture laid? (Noroozi and Favaro 2016, arXiv:1603.09246)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder, Predict, UserError
from sslrun.nn.heads import mlp_head
from sslrun.nn.tiles import Axis, Tiles, cut, join, some_grey, split
from sslrun.rng import Rng


class Jigsaw(Predict):
    """Classification of the permutation by which a picture's tiles were shuffled.

    Noroozi and Favaro 2016, arXiv:1603.09246. Tiles are cut apart with gaps and jitter, so that edges do not
    continue, and normalised one by one, so that brightness and contrast do not tell neighbours; of pictures with
    several channels a share is grey, so that colour fringes do not tell the place. The encoder sees one tile at a
    time; a perceptron reads the features of all of them in the order in which they lie.

    Args:
        grid: tiles a side, 2 or 3; null is 3 from 24 pixels on and 2 below.
        permutations: how many there are to tell apart, chosen far from each other; at most all of them (24 for 2 x 2).
        hidden: width of the head's hidden layer.
        grey: share of the pictures without colour.
        recipe: augmentation before cutting.

    Raises UserError where tiles of two pixels and a gap do not fit, or there are fewer than two permutations.
    """

    modalities = ("image",)
    kind = "class"

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        grid: int | None = None,
        permutations: int = 100,
        hidden: int = 512,
        grey: float = 0.66,
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec)
        height, width = spec.shape[1:]
        self.grid = grid or (3 if min(height, width) >= 24 else 2)
        if self.grid not in (2, 3):
            raise UserError(f"method.jigsaw.grid={grid} is no number of tiles a side; 2, 3 and null work.")
        if permutations < 2:
            raise UserError(f"method.jigsaw.permutations={permutations} leaves nothing to tell apart; 100 works.")
        self.rows, self.columns = Axis.of(height, self.grid), Axis.of(width, self.grid)
        if min(self.rows.gap, self.columns.gap) < 1:
            least = 3 * self.grid - 1
            raise UserError(
                f"method.jigsaw.grid={self.grid} needs pictures of {least} x {least} pixels or more, and those of "
                f"data={spec.name} have {height} x {width}; "
                + ("grid=2 or method=rotation works." if self.grid == 3 else "method=rotation works on square ones.")
            )
        self.grey = grey
        self.views = {"all": {"view": recipe}}
        tiles = self.grid**2
        self.register_buffer("orders", far_permutations(tiles, permutations))  # (K, T)
        self.num_targets = len(self.orders)
        self.tiles = Tiles(encoder, spec, (self.rows.size, self.columns.size))
        self.head = mlp_head(tiles * encoder.dim, hidden, self.num_targets)

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        x = some_grey(x, rng, self.grey)
        tiles = self.tiles.normalise(cut(x, rng, self.rows, self.columns))  # (B, T, C, h, w)
        target = rng.integers(self.num_targets)  # (B,)
        order = self.orders.to(x.device)[target]  # (B, T): place i shows the tile of place order[i]
        shuffled = tiles[torch.arange(len(x), device=x.device).unsqueeze(1), order]
        return join(shuffled, self.grid), target

    def answer(self, encoder: Encoder, inputs: Tensor) -> Tensor:
        return self.head(self.tiles.encode(encoder, split(inputs, self.grid, self.grid)))


def far_permutations(n: int, count: int) -> Tensor:
    """Up to `count` permutations of `n` things, each greedily as far as can be from all before it, (count, n).

    Far is the Hamming distance: the number of places that differ. The choice is always the same.
    """
    every = torch.zeros(1, 1, dtype=torch.int8)
    for i in range(1, n):  # the next thing at every place of every shorter permutation
        new = torch.full((len(every), 1), i, dtype=torch.int8)
        every = torch.cat([torch.cat([every[:, :p], new, every[:, p:]], 1) for p in range(i + 1)])
    if count >= math.factorial(n):
        return every.long()
    every = every[torch.randperm(len(every), generator=torch.Generator().manual_seed(0))]  # ties are broken anyhow
    chosen, distance = [0], torch.full((len(every),), n, dtype=torch.int64)
    while len(chosen) < count:
        distance = torch.minimum(distance, (every != every[chosen[-1]]).sum(1))
        chosen.append(int(distance.argmax()))
    return every[chosen].long()
