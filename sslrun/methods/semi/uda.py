"""UDA: the strong view agrees with the sharpened guess on the weak one (Xie et al. 2020, arXiv:1904.12848)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.semi import WeakToStrong, refuse_threshold

SIGNALS = {  # share of training that is over -> how far the bar for labelled samples has risen, from 0 to 1
    "linear": lambda t: t,
    "log": lambda t: 1 - torch.exp(-5 * t),
    "exp": lambda t: torch.exp(5 * (t - 1)),
}


class UDA(WeakToStrong):
    """Unsupervised data augmentation: KL divergence from sharpened weak guesses to strong predictions.

    Xie et al. 2020, arXiv:1904.12848. The threshold is held against the guess before it is sharpened.

    Args:
        threshold: confidence from which a guess counts, in (0, 1].
        temperature: that sharpens the guess, above 0 and up to 1.
        signal: training signal annealing: a labelled sample counts only while its class is less likely than a bar that
            rises from 1 / K to 1 as `linear`, `log` or `exp` of the time; null: every labelled sample counts.
        unlabelled_weight: weight of the unlabelled term.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        threshold: float = 0.8,
        temperature: float = 0.4,
        signal: str | None = None,
        unlabelled_weight: float = 1.0,
        ema: float = 0.999,
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema)
        refuse_threshold(threshold)
        if not 0 < temperature <= 1:
            raise ValueError(f"temperature={temperature} must lie above 0 and not above 1, for example 0.4")
        if signal is not None and signal not in SIGNALS:
            raise ValueError(f"signal={signal} is unknown; choose one of {', '.join(SIGNALS)}, or null")
        self.threshold, self.temperature, self.signal = threshold, temperature, signal

    def trust(self, p: Tensor, index: Tensor) -> Tensor:
        return (p.amax(1) >= self.threshold).float()

    def disagreement(self, strong: Tensor, weak: Tensor) -> Tensor:
        target = torch.log_softmax(weak / self.temperature, 1)
        return F.kl_div(torch.log_softmax(strong, 1), target, reduction="none", log_target=True).sum(1)

    def labelled_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        if self.signal is None:
            return super().labelled_loss(logits, y)
        loss = F.cross_entropy(logits, y, reduction="none")
        chance = 1 / logits.shape[1]
        bar = chance + (1 - chance) * SIGNALS[self.signal](self.done)
        counts = (loss.detach() > -torch.log(bar)).float()  # the probability of its class lies below the bar
        return (loss * counts).sum() / counts.sum().clamp_min(1)

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        streams = {
            "labelled": {"weak": ((0.7, 0.2, 0.1), (0.2, 0.5, 0.3), (0.6, 0.3, 0.1)), "y": (0, 1, 1)},
            "unlabelled": {
                "weak": ((0.9, 0.05, 0.05), (0.7, 0.2, 0.1)),  # the second one, sharpened: 0.91
                "strong": ((0.5, 0.3, 0.2), (0.1, 0.1, 0.8)),
            },
        }
        sure, doubt = 0.81 / 0.815, 0.0025 / 0.815  # the first guess to the power of 1 / 0.5, as probabilities
        divergence = sure * log(sure / 0.5) + doubt * log(doubt / 0.3) + doubt * log(doubt / 0.2)
        return [
            Example(
                "KL divergence from the sharpened guess, of rows confident before sharpening, over all rows.",
                streams,
                settings={"threshold": 0.8, "temperature": 0.5, "unlabelled_weight": 2.0},
                expected={
                    "loss": -(log(0.7) + log(0.5) + log(0.3)) / 3 + divergence,
                    "loss_unlabelled": divergence / 2,
                    "mask_rate": 0.5,
                },
                learns={"unlabelled.strong": (0,)},
            ),
            Example(
                "Half-way, labelled rows whose class is likelier than 1/3 + 2/3 * 1/2 are left out of their mean.",
                streams,
                settings={"signal": "linear"},
                done=0.5,
                expected={"loss_labelled": -(log(0.5) + log(0.3)) / 2},
                term="loss_labelled",
                learns={"labelled.weak": (1, 2)},
            ),
        ]
