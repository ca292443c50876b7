"""Heads that several methods put on an encoder."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import Encoder, UserError


def mlp_head(
    dim_in: int, hidden: int, dim_out: int, layers: int = 2, batch_norm: bool = True, last_norm: bool = False
) -> nn.Sequential:
    """A perceptron (B, dim_in) -> (B, dim_out) of `layers` linear layers with ReLU between them.

    `batch_norm` normalises the hidden layers; `last_norm` the output, without scale and shift, as in SimSiam (Chen and
    He 2021). One layer is linear and has no hidden part.
    """
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts.append(nn.Linear(dim_in, hidden, bias=not batch_norm))
        parts += [nn.BatchNorm1d(hidden)] if batch_norm else []
        parts.append(nn.ReLU(inplace=True))
        dim_in = hidden
    parts.append(nn.Linear(dim_in, dim_out, bias=not last_norm))
    parts += [nn.BatchNorm1d(dim_out, affine=False)] if last_norm else []
    return nn.Sequential(*parts)


class DenseHead(nn.Module):
    """Tokens on a grid to maps of the pictures' size: a 3x3 convolution, then a block of pixels from each cell.

    Shi et al. 2016, arXiv:1609.05158 (sub-pixel convolution). (B, rows * columns, D) -> (B, out, height, width) for
    `size` (height, width); `hidden` is the width between the two layers. The tokens are all there is: no skip
    connection lets pixels pass the encoder by. Blocks that jut out at the right and at the bottom are cut, as encoders
    that pad expect. Raises UserError where tokens form no such grid, such as those of pictures of another size.
    """

    def __init__(self, encoder: Encoder, size: tuple[int, int], out: int, hidden: int = 256):
        super().__init__()
        name = type(encoder).__name__.lower()
        if len(encoder.grid) != 2:
            raise UserError(
                f"encoder={name} has no rows and columns of tokens to make pixels of; encoder=cnn, encoder=resnet18 "
                "and encoder=vit_tiny have."
            )
        self.grid, self.size, self.out = tuple(encoder.grid), tuple(size), out
        self.block = tuple(-(-n // cells) for n, cells in zip(size, encoder.grid, strict=True))
        self.mix = nn.Conv2d(encoder.dim, hidden, 3, padding=1)
        self.pixels = nn.Conv2d(hidden, out * math.prod(self.block), 1)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.shape[1] != math.prod(self.grid):
            raise UserError(
                f"a head for {self.grid[0]} x {self.grid[1]} tokens got {tokens.shape[1]}; choose a recipe that leaves "
                "the size of the pictures alone."
            )
        x = tokens.transpose(1, 2).unflatten(2, self.grid)  # (B, D, h, w)
        x = self.pixels(F.gelu(self.mix(x))).unflatten(1, (self.out, *self.block))  # (B, out, p, q, h, w)
        x = x.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)  # (B, out, h * p, w * q)
        return x[:, :, : self.size[0], : self.size[1]]
