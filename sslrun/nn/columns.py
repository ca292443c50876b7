"""Samples as rows of numbers, and the columns of a table: numbers and categories apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder


class Columns(nn.Module):
    """Which columns of a sample (B, columns) are numbers, and the codes of the others.

    `numeric` are the places of numbers, `categories` those of categories and how many codes each has, 0 for missing
    included. Samples without named columns, pictures among them, are numbers throughout once they are flattened.
    """

    def __init__(self, spec: DataSpec):
        super().__init__()
        kinds = [field.kind for field in spec.fields] or ["numeric"] * math.prod(spec.shape)
        numeric = [i for i, kind in enumerate(kinds) if kind != "categorical"]
        self.register_buffer("numeric", torch.tensor(numeric, dtype=torch.int64), persistent=False)
        self.categories = {i: spec.fields[i].size for i, kind in enumerate(kinds) if kind == "categorical"}

    def codes(self, x: Tensor) -> list[Tensor]:
        """The codes of each category, (B,) each; 0 where missing or unknown."""
        found = []
        for i, size in self.categories.items():
            code = x[:, i].nan_to_num(0.0).long()
            found.append(code * ((code >= 0) & (code < size)))
        return found

    def indicators(self, x: Tensor) -> list[Tensor]:
        """For each category, 1 at the value that a sample has, (B, codes - 1); missing ones have none."""
        sizes = self.categories.values()
        return [F.one_hot(code, size)[:, 1:].to(x.dtype) for code, size in zip(self.codes(x), sizes, strict=True)]


class FlatInputs(Encoder):
    """Standardised, flattened inputs with 0 for missing values, (B, dim); nothing to train.

    A category of a table becomes an indicator for each of its values, after the numbers: two rows that differ in one
    are as far apart there as two rows are on average in a number.
    """

    isometric = True

    def __init__(self, spec: DataSpec):
        super().__init__(spec)
        self.columns = Columns(spec)
        self.dim = len(self.columns.numeric) + sum(size - 1 for size in self.columns.categories.values())

    def forward(self, x: Tensor) -> Tensor:
        flat = self.standardise(x).flatten(1).nan_to_num(0.0, 0.0, 0.0)
        if not self.columns.categories:
            return flat
        return torch.cat([flat[:, self.columns.numeric], *self.columns.indicators(x)], 1)
