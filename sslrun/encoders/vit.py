"""Vision transformers."""

from __future__ import annotations

import math

from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, UserError
from sslrun.encoders.cnn import image_shape
from sslrun.nn.transformer import Block, initialise, patchify, sincos_positions


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
        initialise(self)

    def patches(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Standardised pictures (B, C, H, W) as flat patches (B, N, C * patch * patch), and their grid."""
        return patchify(self.standardise(x), self.patch)

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
