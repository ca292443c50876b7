"""The inputs themselves, for methods and references without an encoder."""

from __future__ import annotations

import math

from torch import Tensor

from sslrun.contracts import DataSpec, Encoder


class Identity(Encoder):
    """Standardised, flattened inputs with 0 for missing values, as features (B, prod(shape)); nothing to train."""

    grid = (1,)

    def __init__(self, spec: DataSpec):
        super().__init__(spec)
        self.dim = math.prod(spec.shape)

    def forward(self, x: Tensor) -> Tensor:
        return self.standardise(x).flatten(1).nan_to_num(0.0, 0.0, 0.0)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, None]:
        """The one token of each sample, (B, 1, D); there is nothing to leave out."""
        return self(x).unsqueeze(1), None
