"""Multinomial naive Bayes that learns from unlabelled rows by EM (Nigam et al. 2000)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.em import LabelledEm, log_shares


class EmNaiveBayes(LabelledEm):
    """A sample is read as counts of its features, drawn by the shares of its class.

    Nigam, McCallum, Thrun and Mitchell 2000, "Text classification from labeled and unlabeled documents using EM".
    Features count from their smallest value among training samples, so that none is negative.

    Args:
        counts: the sum of a sample's counts, on average; it says how much a sample is believed.
        smoothing: what is added to each count (Laplace), above 0.
        grid: weights of unlabelled samples to choose from by cross-validation on the labelled ones.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        counts: float = 256.0,
        smoothing: float = 1.0,
        grid: Sequence[float] = (0, 0.01, 0.1, 1),
    ):
        super().__init__(encoder, spec, 1 + encoder.dim, grid)
        for name, value in (("counts", counts), ("smoothing", smoothing)):
            if value <= 0:
                raise ValueError(f"{name}={value} must be above 0, for example 1")
        self.counts, self.smoothing = counts, smoothing
        self.register_buffer("floor", torch.zeros(encoder.dim, dtype=torch.float64))
        self.register_buffer("scale", torch.ones((), dtype=torch.float64))

    def settle(self, features: Tensor) -> None:
        self.floor = features.amin(0)
        self.scale = self.counts / (features - self.floor).sum(1).mean().clamp_min(1e-12)

    def statistics(self, features: Tensor) -> Tensor:
        count = (features - self.floor).clamp_min(0) * self.scale
        return torch.cat([torch.ones_like(count[:, :1]), count], 1)

    def fit(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        shares = log_shares(sums[..., 0])
        more = sums[..., 1:] + self.smoothing
        words = (more / more.sum(-1, keepdim=True)).log()  # (..., K, D)
        log_prior = shares.sum(-1) + self.smoothing * words.sum((-1, -2))
        return torch.cat([shares.unsqueeze(-1), words], -1), log_prior
