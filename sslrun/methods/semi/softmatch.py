"""SoftMatch: a guess weighs the more, the surer it is among the others (Chen et al. 2023, arXiv:2301.10921)."""

from __future__ import annotations

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.gather import all_sum
from sslrun.nn.semi import WeakToStrong


class SoftMatch(WeakToStrong):
    """FixMatch whose pseudo-labels are weighted by a truncated Gaussian of their confidence.

    Chen et al. 2023, arXiv:2301.10921. A row as confident as the running mean, or more so, weighs 1. Weights are made
    of probabilities that are aligned to a uniform distribution over the classes; labels are the raw ones.

    Args:
        sigmas: standard deviations of confidence at which the Gaussian's own is set is their inverse; the higher, the
            less unsure rows weigh.
        decay: of the running mean, variance and distribution over classes, in [0, 1).
        unlabelled_weight: weight of the unlabelled term.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        sigmas: float = 2.0,
        decay: float = 0.999,
        unlabelled_weight: float = 1.0,
        ema: float = 0.999,
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema)
        if sigmas <= 0:
            raise ValueError(f"sigmas={sigmas} must lie above 0, for example 2")
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} must lie in [0, 1), for example 0.999")
        self.sigmas, self.decay = sigmas, decay
        self.register_buffer("mean", torch.tensor(1 / spec.num_classes))
        self.register_buffer("variance", torch.tensor(1.0))
        self.register_buffer("classes", torch.full((spec.num_classes,), 1 / spec.num_classes))

    def trust(self, p: Tensor, index: Tensor) -> Tensor:
        if self.training:
            sums = all_sum(torch.cat([p.sum(0), p.new_ones(1) * len(p)]))
            self.classes.lerp_((sums[:-1] / sums[-1]).to(self.classes), 1 - self.decay)
        aligned = p / self.classes
        confidence = (aligned / aligned.sum(1, keepdim=True)).amax(1)
        if self.training:
            self._follow(confidence)
        short = (confidence - self.mean).clamp_max(0)
        return torch.exp(-short.square() / (2 * self.variance / self.sigmas**2))

    def _follow(self, confidence: Tensor) -> None:
        total, count = all_sum(torch.stack([confidence.sum(), confidence.new_tensor(len(confidence))]))
        mean = total / count
        variance = all_sum((confidence - mean).square().sum()) / (count - 1).clamp_min(1)
        self.mean.lerp_(mean.to(self.mean), 1 - self.decay)
        self.variance.lerp_(variance.to(self.variance), 1 - self.decay)
