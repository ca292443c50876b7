"""SoftMatch: a guess weighs the more, the surer it is among the others (Chen et al. 2023, arXiv:2301.10921)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.gather import all_sum
from sslrun.nn.semi import WeakToStrong, follow


class SoftMatch(WeakToStrong):
    """FixMatch whose pseudo-labels are weighted by a truncated Gaussian of their confidence.

    Chen et al. 2023, arXiv:2301.10921. A row as confident as the running mean, or more so, weighs 1. Weights are made
    of probabilities that are aligned to a uniform distribution over the classes; labels are the raw ones.

    Args:
        sigmas: n of the Gaussian, whose standard deviation is that of confidence divided by n; the higher n, the less
            unsure rows weigh.
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
            follow(self.classes, p, self.decay)
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
        self.variance.lerp_(variance.to(self.variance), 1 - self.decay).clamp_min_(1e-12)  # is divided by

    @staticmethod
    def examples() -> list[Example]:
        log, exp = math.log, math.exp
        labelled = {"weak": ((0.5, 0.5),), "y": (0,)}
        half = exp(-1.5)
        return [
            Example(
                "Below the mean confidence m, rows weigh exp(-(m - c)^2 / (2 v / n^2)), v the unbiased variance.",
                {
                    "labelled": labelled,
                    "unlabelled": {
                        "weak": ((0.9, 0.1), (0.1, 0.9), (0.6, 0.4), (0.4, 0.6)),  # alike in both classes
                        "strong": ((0.7, 0.3), (0.4, 0.6), (0.5, 0.5), (0.8, 0.2)),
                    },
                },
                # m = 0.75, v = 4 * 0.15^2 / 3 = 0.03: 0.15^2 / (0.06 / 4) = 1.5
                settings={"decay": 0.0, "sigmas": 2.0, "unlabelled_weight": 2.0},
                expected={
                    "loss": log(2) - (log(0.7) + log(0.6) + half * log(0.5) + half * log(0.2)) / 2,
                    "loss_unlabelled": -(log(0.7) + log(0.6) + half * log(0.5) + half * log(0.2)) / 4,
                    "mask_rate": (1 + half) / 2,
                },
                learns={"unlabelled.strong": (0, 1, 2, 3)},
            ),
            Example(
                "Weights are made of predictions aligned to equal classes, labels of the raw ones.",
                {
                    "labelled": labelled,
                    "unlabelled": {
                        "weak": ((0.9, 0.1), (0.9, 0.1), (0.55, 0.45)),
                        "strong": ((0.7, 0.3), (0.7, 0.3), (0.6, 0.4)),
                    },
                },
                # divided by the mean, 0.783 and 0.217, confidences are 0.71, 0.71 and 0.75, in the second class: the
                # last row is the surest. With d between them, m - c = d / 3 and v = d^2 / 3: 2 (1/9) / (1/3) = 2/3
                settings={"decay": 0.0, "sigmas": 2.0},
                expected={
                    "mask_rate": (2 * exp(-2 / 3) + 1) / 3,
                    "loss_unlabelled": -(2 * exp(-2 / 3) * log(0.7) + log(0.6)) / 3,
                },
            ),
            Example(
                "The mean starts at 1 / K and the variance at 1, and both follow slowly.",
                {
                    "labelled": labelled,
                    "unlabelled": {
                        "weak": ((0.9, 0.1), (0.1, 0.9), (0.6, 0.4), (0.4, 0.6)),
                        "strong": ((0.7, 0.3), (0.4, 0.6), (0.5, 0.5), (0.8, 0.2)),
                    },
                },
                # m = 0.625, v = 0.515 and n = 10: 0.025^2 / (1.03 / 100)
                settings={"decay": 0.5, "sigmas": 10.0},
                expected={"mask_rate": (1 + exp(-0.0625 / 1.03)) / 2},
            ),
        ]
