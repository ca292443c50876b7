"""Gaussian naive Bayes that learns from unlabelled rows by EM (Dempster et al. 1977; Nigam et al. 2000)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.em import LabelledEm, log_shares

FLOOR = 0.1  # least variance of a feature as a share of the mean one: what hardly varies would decide everything


class EmGaussian(LabelledEm):
    """Each class is a Gaussian with a diagonal covariance.

    Dempster, Laird and Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm", with the weight of
    unlabelled samples of Nigam et al. 2000. Variances shrink towards those of all samples, as by an inverse gamma
    prior, so that a class with one label has some.

    Args:
        shrinkage: how many samples the variances of all samples count as, above 0.
        grid: weights of unlabelled samples to choose from by cross-validation on the labelled ones.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        shrinkage: float = 5.0,
        grid: Sequence[float] = (0, 0.01, 0.1, 1),
    ):
        super().__init__(encoder, spec, 1 + 2 * encoder.dim, grid)
        if shrinkage <= 0:
            raise ValueError(f"shrinkage={shrinkage} must be above 0, for example 5")
        self.shrinkage = shrinkage
        self.register_buffer("origin", torch.zeros(encoder.dim, dtype=torch.float64))
        self.register_buffer("variance", torch.ones(encoder.dim, dtype=torch.float64))

    def settle(self, features: Tensor) -> None:
        self.origin = features.mean(0)
        variance = features.var(0, correction=0)
        self.variance = variance.clamp_min(max(FLOOR * float(variance.mean()), 1e-12))

    def statistics(self, features: Tensor) -> Tensor:
        z = features - self.origin  # centred, or squares would lose digits
        return torch.cat([torch.ones_like(z[:, :1]), z, z.square()], 1)

    def fit(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        d = len(self.origin)
        n, first, second = sums.split([1, d, d], -1)
        mean = first / n.clamp_min(1e-12)
        scatter = (second - n * mean.square()).clamp_min(0)
        variance = (scatter + self.shrinkage * self.variance) / (n + self.shrinkage)  # (..., K, D)
        shares = log_shares(n.squeeze(-1))
        level = shares - 0.5 * (mean.square() / variance + variance.log() + math.log(2 * math.pi)).sum(-1)
        theta = torch.cat([level.unsqueeze(-1), mean / variance, -0.5 / variance], -1)
        spread = variance.log() + self.variance / variance
        return theta, shares.sum(-1) - 0.5 * self.shrinkage * spread.sum((-1, -2))
