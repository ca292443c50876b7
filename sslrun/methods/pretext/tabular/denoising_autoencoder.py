"""Denoising autoencoder: swap some cells of a row, ask for the clean row (Vincent et al. 2008)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder, Predict
from sslrun.nn.heads import mlp_head
from sslrun.rng import Rng


class DenoisingAutoencoder(Predict):
    """Reconstructs a row from a copy in which some cells come from other rows (swap noise).

    Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders". Numbers are asked for
    in standard deviations (squared error), categories as codes (cross-entropy); missing cells are not asked for.

    Args:
        rate: share of cells that are swapped, each with its own donor row, in (0, 1).
        hidden: width of the decoder's hidden layer.
    """

    modalities = ("table",)
    kind = "real"

    def __init__(self, encoder: Encoder, spec: DataSpec, rate: float = 0.3, hidden: int = 128):
        super().__init__(encoder, spec)
        if not 0 < rate < 1:
            raise ValueError(f"rate={rate} must lie between 0 and 1, for example 0.3")
        self.rate = rate
        columns = spec.shape[0]
        sizes = [f.size if f.kind == "categorical" else 0 for f in spec.fields] or [0] * columns
        self.numeric = [i for i, size in enumerate(sizes) if not size]
        self.categorical = [(i, size) for i, size in enumerate(sizes) if size]
        self.register_buffer("mean", torch.tensor(spec.mean)[self.numeric])
        self.register_buffer("std", torch.tensor(spec.std)[self.numeric])
        self.register_buffer("donors", torch.zeros(0, columns))
        self.register_buffer("frequencies", torch.zeros(0))  # of the categories' codes, column after column
        outputs = len(self.numeric) + sum(size for _, size in self.categorical)
        self.decoder = mlp_head(encoder.dim, hidden, outputs)

    def prepare(self, data: Any, encoder: Encoder) -> None:
        self.donors = data.train.inputs(data.sample(10_000))
        counts = [torch.bincount(self.donors[:, i].long(), minlength=size) for i, size in self.categorical]
        for count in counts:
            count[0] = 0  # missing: never asked for
        self.frequencies = torch.cat([self.frequencies, *counts]).to(self.frequencies)

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        columns = x.shape[1]
        donors = self.donors.to(x.device)
        swap = rng.chance(self.rate, columns)  # (B, D)
        row = rng.integers(len(donors), columns)  # (B, D): each cell its own donor, so that columns come apart
        noisy = torch.where(swap, donors.gather(0, row), x)
        return noisy, x

    def answer(self, encoder: Encoder, inputs: Tensor) -> Tensor:
        return self.decoder(encoder(inputs))

    def losses(self, answer: Tensor, target: Tensor) -> Tensor:
        wanted = (target[:, self.numeric] - self.mean) / self.std  # (B, numeric)
        known = ~wanted.isnan()
        n = len(self.numeric)
        total = ((answer[:, :n].float() - wanted.nan_to_num(0)).square() * known).sum(1)
        count = known.sum(1)
        start = n
        for i, size in self.categorical:
            code = target[:, i].nan_to_num(0).long().clamp(0, size - 1)
            total = total + F.cross_entropy(
                answer[:, start : start + size].float(), code, ignore_index=0, reduction="none"
            )
            count = count + (code > 0)
            start += size
        return total / count.clamp_min(1)  # (B,)

    def guess(self, inputs: Tensor, target: Tensor) -> Tensor:
        """Column means, and the training frequencies of categories."""
        logs = self.frequencies.to(target.device).clamp_min(1e-6).log()
        return torch.cat([logs.new_zeros(len(self.numeric)), logs]).expand(len(target), -1)

    def complete(self, encoder: Encoder, x: Tensor) -> Tensor:
        """The reconstructed row in the table's own units, (B, D)."""
        answer = self.answer(encoder, x).float()
        full = x.clone()
        full[:, self.numeric] = answer[:, : len(self.numeric)] * self.std + self.mean
        start = len(self.numeric)
        for i, size in self.categorical:
            full[:, i] = answer[:, start + 1 : start + size].argmax(1).float() + 1
            start += size
        return full
