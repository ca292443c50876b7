"""The inputs themselves, for methods and references without an encoder."""

from __future__ import annotations

from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.columns import Columns


class Identity(Encoder):
    """Standardised, flattened inputs with 0 for missing values, as features (B, dim); nothing to train.

    A category of a table becomes an indicator for each of its values, after the numbers: two rows that differ in one
    are as far apart there as two rows are on average in a number.
    """

    grid = (1,)
    isometric = True

    def __init__(self, spec: DataSpec):
        super().__init__(spec)
        self.columns = Columns(spec)
        self.dim = self.columns.width

    def forward(self, x: Tensor) -> Tensor:
        return self.columns.spread(self.standardise(x).flatten(1).nan_to_num(0.0, 0.0, 0.0), x)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, None]:
        """The one token of each sample, (B, 1, D); there is nothing to leave out."""
        return self(x).unsqueeze(1), None
