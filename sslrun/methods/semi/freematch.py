"""FreeMatch: the bar follows the network's own confidence (Wang et al. 2023, arXiv:2205.07246)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.gather import all_sum
from sslrun.nn.semi import WeakToStrong


class FreeMatch(WeakToStrong):
    """FixMatch with self-adaptive thresholds, and fairness among the classes of trusted rows.

    Wang et al. 2023, arXiv:2205.07246. The global threshold is the running mean of confidence, and each class has its
    share of it by how likely the network finds that class on average. `loss_fairness` is minus the cross-entropy of the
    running and the trusted rows' mean prediction, each divided by its own histogram.

    Args:
        decay: of the running means, in [0, 1).
        fairness: weight of the fairness term.
        highest: upper end of the thresholds, in (0, 1]; the authors' code needs 0.95 on SVHN.
        unlabelled_weight: weight of the unlabelled term.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        decay: float = 0.999,
        fairness: float = 0.01,
        highest: float = 1.0,
        unlabelled_weight: float = 1.0,
        ema: float = 0.999,
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema)
        if not 0 <= decay < 1:
            raise ValueError(f"decay={decay} must lie in [0, 1), for example 0.999")
        if not 0 < highest <= 1:
            raise ValueError(f"highest={highest} must lie above 0 and not above 1, for example 0.95")
        self.decay, self.fairness, self.highest = decay, fairness, highest
        uniform = torch.full((spec.num_classes,), 1 / spec.num_classes)
        self.register_buffer("confidence", torch.tensor(1 / spec.num_classes))
        self.register_buffer("mean", uniform.clone())  # (K,) of the weak probabilities
        self.register_buffer("histogram", uniform.clone())  # (K,) of the weak guesses

    def trust(self, p: Tensor, index: Tensor) -> Tensor:
        confidence, guess = p.max(1)
        if self.training:
            self._follow(p, confidence, guess)
        bar = self.confidence.clamp_max(self.highest) * self.mean / self.mean.max()  # (K,)
        return (confidence >= bar[guess]).float()

    def _follow(self, p: Tensor, confidence: Tensor, guess: Tensor) -> None:
        seen = F.one_hot(guess, p.shape[1]).to(p.dtype)
        sums = all_sum(torch.cat([confidence.sum().view(1), p.sum(0), seen.sum(0), p.new_ones(1) * len(p)]))
        confidence, mean, histogram = (sums[:-1] / sums[-1]).split([1, p.shape[1], p.shape[1]])
        self.confidence.lerp_(confidence.squeeze(0).to(self.confidence), 1 - self.decay)
        self.mean.lerp_(mean.to(self.mean), 1 - self.decay)
        self.histogram.lerp_(histogram.to(self.histogram), 1 - self.decay)

    def extra(self, strong: Tensor, trust: Tensor) -> dict[str, tuple[float, Tensor]]:
        """The fairness term, of the strong predictions of trusted rows over all processes."""
        p = torch.softmax(strong, 1)
        guess = F.one_hot(p.argmax(1), p.shape[1]).to(p.dtype)
        sums = all_sum(torch.stack([(p * trust.unsqueeze(1)).sum(0), (guess * trust.unsqueeze(1)).sum(0)]))
        mean, histogram = sums / sums[1].sum().clamp_min(1)
        ours, theirs = level(mean, histogram.detach()), level(self.mean, self.histogram).to(mean)
        return {"loss_fairness": (self.fairness, (theirs * torch.log(ours + 1e-12)).sum())}

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        streams = {
            "labelled": {"weak": ((0.5, 0.5),), "y": (0,)},
            "unlabelled": {
                "weak": ((0.9, 0.1), (0.55, 0.45), (0.45, 0.55), (0.8, 0.2)),
                "strong": ((0.7, 0.3), (0.9, 0.1), (0.4, 0.6), (0.6, 0.4)),
            },
        }
        unlabelled = -(log(0.7) + log(0.6) + log(0.6)) / 4
        # weak views: running mean 0.5875 and 0.4125, of guesses 0.625 and 0.375
        # strong views of trusted rows: sums 1.7 and 1.3, 2 guesses and 1
        theirs = (0.5875 / 0.625, 0.4125 / 0.375)
        ours = (1.7 / 2, 1.3 / 1)
        fairness = sum(a / sum(theirs) * log(b / sum(ours)) for a, b in zip(theirs, ours, strict=True))
        return [
            Example(
                "The bar is the running mean of confidence, and lower for a class that is expected less.",
                streams,
                # confidence goes from 1/2 half of the way to 0.7, and the mean from 1/2 to 0.675 and 0.325: the bars
                # are 0.6 and 0.6 * 0.4125 / 0.5875 = 0.42
                settings={"decay": 0.5, "fairness": 0.1, "unlabelled_weight": 2.0},
                expected={
                    "loss": log(2) + 2 * unlabelled + 0.1 * fairness,
                    "loss_unlabelled": unlabelled,
                    "loss_fairness": fairness,
                    "mask_rate": 0.75,
                },
                learns={"unlabelled.strong": (0, 2, 3)},
            ),
            Example(
                "Fairness is minus the cross-entropy of both mean predictions, over their histograms, of trusted rows.",
                streams,
                settings={"decay": 0.5, "fairness": 0.1},
                expected={"loss_fairness": fairness},
                term="loss_fairness",
                learns={"unlabelled.strong": (0, 2, 3)},
            ),
            Example(
                "Bars have an upper end.",
                streams,
                settings={"decay": 0.5, "highest": 0.5},
                expected={"mask_rate": 1.0},
            ),
        ]


def level(mean: Tensor, histogram: Tensor) -> Tensor:
    """A mean prediction (K,) over its histogram, as shares; 0 for a class that nobody guessed."""
    ratio = torch.where(histogram > 0, mean / histogram.clamp_min(1e-12), torch.zeros_like(mean))
    return ratio / ratio.sum().clamp_min(1e-12)
