"""The columns of a table, numbers and categories apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import DataSpec


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
        return [
            F.one_hot(c, n)[:, 1:].to(x.dtype) for c, n in zip(self.codes(x), self.categories.values(), strict=True)
        ]

    def spread(self, numbers: Tensor, x: Tensor) -> Tensor:
        """Numbers of each column (B, columns), and samples with codes x alike, to numbers and indicators (B, width)."""
        return torch.cat([numbers[:, self.numeric], *self.indicators(x)], 1) if self.categories else numbers

    @property
    def width(self) -> int:
        """How many numbers a sample makes: one of a number, an indicator for each value of a category."""
        return len(self.numeric) + sum(size - 1 for size in self.categories.values())
