"""Augmentations of table rows (B, D), on the raw scale, with NaN where a value is missing."""

from __future__ import annotations

import torch
from torch import Tensor

from sslrun.augment.op import Op, Params, probability
from sslrun.contracts import UserError
from sslrun.rng import Rng

DONORS = 10_000


class TableOp(Op):
    """An operation on tables that learns from the training rows."""

    dims = 2

    def require(self, learned: Tensor, columns: int) -> None:
        if learned.shape[-1] != columns:
            raise UserError(
                f"augmentation: {type(self).__name__} was prepared on {learned.shape[-1]} columns but got {columns}; "
                "call prepare with the training rows of the same table first."
            )


class Corrupt(TableOp):
    """Replaces each cell, with probability `rate`, by that column's value in a random training row.

    SCARF (Bahri et al., 2022): every cell has a donor row of its own, so that columns are drawn from their marginals
    and not together. At most 10,000 evenly spaced training rows are kept as donors.
    """

    def __init__(self, rate: float = 0.6):
        super().__init__()
        self.rate = probability("rate", rate)
        self.register_buffer("donors", torch.empty(0, 0))

    def prepare(self, x_train: Tensor) -> None:
        keep = torch.linspace(
            0, len(x_train) - 1, min(len(x_train), DONORS), device=x_train.device, dtype=torch.float64
        )
        self.donors = x_train[keep.round().long()].to(torch.get_default_dtype())

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        self.require(self.donors, shape[1])
        return {"hit": rng.chance(self.rate, shape[1]), "donor": rng.integers(len(self.donors), shape[1])}

    def apply(self, x: Tensor, hit: Tensor, donor: Tensor) -> Tensor:
        return torch.where(hit, self.donors.to(x).gather(0, donor), x)


class GaussianNoise(TableOp):
    """Adds normal noise of `std` standard deviations of each column; missing cells stay missing."""

    def __init__(self, std: float = 0.1):
        super().__init__()
        self.std = std
        self.register_buffer("spread", torch.empty(0))

    def prepare(self, x_train: Tensor) -> None:
        known = ~x_train.isnan()
        count = known.sum(0).clamp_min(1)
        x = x_train.nan_to_num(0.0).double()
        mean = x.sum(0) / count
        self.spread = ((x - mean).square() * known).sum(0).div(count).sqrt().to(torch.get_default_dtype())

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        self.require(self.spread, shape[1])
        return {"noise": rng.normal(shape[1]) * self.std}

    def apply(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + noise.to(x.dtype) * self.spread.to(x)
