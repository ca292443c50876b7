"""Autoencoder: squeeze a sample into the encoder's features, ask for it back (Hinton & Salakhutdinov 2006)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.cells import Cells
from sslrun.rng import Rng


class Autoencoder(Cells):
    """Reconstructs samples from their pooled features, which are the code.

    Hinton and Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks". The encoder's size is
    the code's: a smaller encoder.width, or smaller last one of encoder.widths, reduces more. Nothing is hidden or
    noisy; no token passes the pooling by.

    Args:
        hidden: width of the decoder's hidden layer.
    """

    modalities = ("image", "table")

    def __init__(self, encoder: Encoder, spec: DataSpec, hidden: int = 256):
        super().__init__(encoder, spec, hidden)

    def prepare(self, data: Any, encoder: Encoder) -> None:
        super().prepare(data, encoder)
        x = data.train.inputs(data.sample(10_000)).flatten(1)
        self.typical = self.scaled(x).nanmean(0).nan_to_num(0.0)  # of pictures, each pixel has a mean of its own

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        return x, x
