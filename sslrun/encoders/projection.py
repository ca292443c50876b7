"""A linear map of the inputs to few features: random until a method such as pca has set it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, UserError

FEATURES = 32  # where the user names no number


class Projection(Encoder):
    """Standardised, flattened inputs with 0 for missing values, less a centre, on orthonormal directions: (B, dim).

    At first the directions are random ones (Johnson and Lindenstrauss 1984). `back` goes from features to inputs.
    """

    grid = (1,)

    def __init__(self, spec: DataSpec, dim: int | None = None):
        super().__init__(spec)
        self.shape, columns = spec.shape, math.prod(spec.shape)
        self.dim = dim or min(FEATURES, columns)
        if self.dim > columns:
            raise UserError(f"encoder.dim={dim} is above the {columns} numbers of a sample of data={spec.name}.")
        self.components = nn.Parameter(nn.init.orthogonal_(torch.empty(self.dim, columns)))
        self.register_buffer("centre", torch.zeros(columns))

    def flat(self, x: Tensor) -> Tensor:
        """Standardised inputs as rows, (B, *shape) to (B, columns)."""
        return self.standardise(x).flatten(1).nan_to_num(0.0, 0.0, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return (self.flat(x) - self.centre) @ self.components.T

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, None]:
        """The one token of each sample, (B, 1, D); there is nothing to leave out."""
        return self(x).unsqueeze(1), None

    def back(self, features: Tensor) -> Tensor:
        """The inputs that have these features (B, dim) and nothing beside them, (B, *shape)."""
        flat = (features @ self.components + self.centre).view(-1, *self.shape)
        tail = (1,) * (flat.dim() - 2)
        return flat * self.std.view(1, -1, *tail) + self.mean.view(1, -1, *tail)
