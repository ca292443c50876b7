"""A linear map of the inputs to few features: random until a method such as pca has set it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, UserError
from sslrun.encoders.identity import Identity

FEATURES = 32  # where the user names no number


class Projection(Identity):
    """What `Identity` gives, less a centre, on orthonormal directions: (B, dim).

    At first the directions are random ones (Johnson and Lindenstrauss 1984).
    """

    def __init__(self, spec: DataSpec, dim: int | None = None):
        super().__init__(spec)
        self.shape, given = spec.shape, self.dim
        self.dim = dim or min(FEATURES, given)
        if self.dim > given:
            raise UserError(f"encoder.dim={dim} is above the {given} numbers of a sample of data={spec.name}.")
        self.components = nn.Parameter(nn.init.orthogonal_(torch.empty(self.dim, given)))
        self.register_buffer("centre", torch.zeros(given))

    def forward(self, x: Tensor) -> Tensor:
        return (super().forward(x) - self.centre) @ self.components.T

    def restored(self, features: Tensor) -> Tensor:
        """What `Identity` gives of the samples that have these features (B, dim) and nothing beside them."""
        return features @ self.components + self.centre

    def back(self, features: Tensor) -> Tensor:
        """The samples that have these features (B, dim) and nothing beside them, (B, *shape); categories as codes."""
        flat, numeric = self.restored(features), self.columns.numeric
        whole = flat.new_zeros(len(flat), len(numeric) + len(self.columns.categories))
        whole[:, numeric] = flat[:, : len(numeric)]
        whole = whole.view(-1, *self.shape)
        tail = (1,) * (whole.dim() - 2)
        whole = whole * self.std.view(1, -1, *tail) + self.mean.view(1, -1, *tail)
        start = len(numeric)
        for column, size in self.columns.categories.items():
            whole[:, column] = flat[:, start : start + size - 1].argmax(1) + 1.0
            start += size - 1
        return whole
