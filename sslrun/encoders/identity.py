"""The inputs themselves, for methods and references without an encoder."""

from __future__ import annotations

from torch import Tensor

from sslrun.nn.columns import FlatInputs


class Identity(FlatInputs):
    """Standardised, flattened inputs as features, categories of a table as indicators."""

    grid = (1,)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, None]:
        """The one token of each sample, (B, 1, D); there is nothing to leave out."""
        return self(x).unsqueeze(1), None
