"""Vision transformers."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, UserError
from sslrun.encoders.cnn import image_shape


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


class ViT(Encoder):
    """A vision transformer (Dosovitskiy et al. 2021) with fixed sine-cosine positions and pooled patch tokens.

    `patch` null is 2 up to 16 pixels (the longer side), 4 up to 48, 8 up to 96 and 16 above; pictures that it does not
    divide are padded at the right and at the bottom with the data's mean. Pictures of another size than the data's
    (crops) are taken as well. There is no class token. `stages` are the blocks. Raises UserError where `heads` does not
    divide `dim`, or `dim` is not a multiple of 4.
    """

    modalities = ("image",)

    def __init__(self, spec: DataSpec, dim: int = 192, depth: int = 12, heads: int = 3, patch: int | None = None):
        super().__init__(spec)
        channels, *size = image_shape(spec, "vit")
        if dim % heads or dim % 4:
            raise UserError(
                f"encoder.dim={dim} must be a multiple of 4 and of encoder.heads={heads}; {4 * heads * 16} would do."
            )
        if patch is None:
            side = max(size)
            patch = 2 if side <= 16 else 4 if side <= 48 else 8 if side <= 96 else 16
        self.dim, self.patch, self.grid = dim, patch, tuple(math.ceil(n / patch) for n in size)
        self.embed = nn.Linear(channels * patch * patch, dim)
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.register_buffer("positions", sincos_positions(self.grid, dim, self.grid), persistent=False)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def patches(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Standardised pictures (B, C, H, W) as flat patches (B, N, C * patch * patch), and their grid."""
        x, p = self.standardise(x), self.patch
        x = F.pad(x, (0, -x.shape[3] % p, 0, -x.shape[2] % p))
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5)  # (B, rows, columns, C, p, p)
        return x.reshape(b, -1, c * p * p), (h // p, w // p)

    def embedded(self, x: Tensor, keep: Tensor | None) -> Tensor:
        x, grid = self.patches(x)
        positions = self.positions
        if grid != self.grid:
            positions = sincos_positions(grid, self.dim, self.grid).to(positions)
        if keep is None:
            return self.embed(x) + positions
        x = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[2]))  # (B, M, C * p * p)
        return self.embed(x) + positions[keep]

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, None]:
        """Normalised patch tokens, row by row (B, N, D), or those at positions `keep` (B, M) alone: (B, M, D)."""
        x = self.embedded(x, keep)
        for block in self.blocks:
            x = block(x)
        return self.norm(x), None

    def stages(self, x: Tensor) -> list[Tensor]:
        x, pooled = self.embedded(x, None), []
        for block in self.blocks:
            x = block(x)
            pooled.append(x.mean(1))
        return [*pooled[:-1], self.norm(x).mean(1)]
