"""Denoising autoencoder: swap some cells of a row, ask for the clean row (Vincent et al. 2008)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.cells import Cells
from sslrun.rng import Rng


class DenoisingAutoencoder(Cells):
    """Reconstructs a row from a copy in which some cells come from other rows (swap noise).

    Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders". Numbers are asked for
    in standard deviations (squared error), categories as codes (cross-entropy); missing cells are not asked for.

    Args:
        rate: share of cells that are swapped, each with its own donor row, in (0, 1).
        hidden: width of the decoder's hidden layer.
    """

    modalities = ("table",)

    def __init__(self, encoder: Encoder, spec: DataSpec, rate: float = 0.3, hidden: int = 128):
        super().__init__(encoder, spec, hidden)
        if not 0 < rate < 1:
            raise ValueError(f"rate={rate} must lie between 0 and 1, for example 0.3")
        self.rate = rate
        self.register_buffer("donors", torch.zeros(0, spec.shape[0]))

    def prepare(self, data: Any, encoder: Encoder) -> None:
        super().prepare(data, encoder)
        self.donors = data.train.inputs(data.sample(10_000))

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        columns = x.shape[1]
        donors = self.donors.to(x.device)
        swap = rng.chance(self.rate, columns)  # (B, D)
        row = rng.integers(len(donors), columns)  # (B, D): each cell its own donor, so that columns come apart
        noisy = torch.where(swap, donors.gather(0, row), x)
        return noisy, x
