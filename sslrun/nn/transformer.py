"""Parts of transformers that encoders and decoders share: patches of pictures, their positions, and blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def patchify(x: Tensor, patch: int, fill: float = 0.0) -> tuple[Tensor, tuple[int, int]]:
    """Pictures (B, C, H, W) as flat patches, row by row (B, N, C * patch * patch), and their grid.

    Sides that `patch` does not divide are padded with `fill` at the right and at the bottom.
    """
    x = F.pad(x, (0, -x.shape[3] % patch, 0, -x.shape[2] % patch), value=fill)
    b, c, h, w = x.shape
    rows, columns = h // patch, w // patch
    x = x.reshape(b, c, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)  # (B, rows, columns, C, p, p)
    return x.reshape(b, rows * columns, c * patch * patch), (rows, columns)


def unpatchify(patches: Tensor, patch: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `patchify` for pictures of `size` (height, width): the padding is cut off, (B, C, H, W)."""
    rows, columns = (-(-n // patch) for n in size)
    x = patches.unflatten(2, (-1, patch, patch)).unflatten(1, (rows, columns))  # (B, rows, columns, C, p, p)
    x = x.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)  # (B, C, rows * p, columns * p)
    return x[:, :, : size[0], : size[1]]


def sincos_positions(grid: tuple[int, int], dim: int, base: tuple[int, int]) -> Tensor:
    """Fixed two-dimensional sine-cosine position embeddings (He et al. 2022), (rows * columns, dim).

    The first half of the features encodes the row, the second the column. Positions of a grid other than `base` are
    spread over the extent of `base`, as interpolation would.
    """
    omega = 10000 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    halves = []
    for cells, extent in zip(grid, base, strict=True):
        place = (torch.arange(cells, dtype=torch.float64) + 0.5) * extent / cells - 0.5
        angle = place.unsqueeze(1) * omega  # (cells, dim / 4)
        halves.append(torch.cat([angle.sin(), angle.cos()], 1))
    rows = halves[0].repeat_interleave(grid[1], 0)
    columns = halves[1].repeat(grid[0], 1)
    return torch.cat([rows, columns], 1).float()


class Block(nn.Module):
    """Pre-norm self-attention and a perceptron four times as wide, each added to its input."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D / heads)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, d)
        x = x + self.out(mixed)
        return x + self.mlp(self.norm2(x))


def initialise(module: nn.Module) -> None:
    """Xavier-uniform linear layers without bias, as in MAE (He et al. 2022)."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
