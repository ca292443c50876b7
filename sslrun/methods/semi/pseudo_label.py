"""Pseudo-label: the likeliest class of an unlabelled sample is its label (Lee 2013)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.semi import SemiSupervised


class PseudoLabel(SemiSupervised):
    """Cross-entropy of unlabelled samples to their own likeliest class, with a weight that rises from 0.

    Lee 2013, "Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks". The
    weight is 0 until `start`, rises as a straight line until `end`, and stays. The term is a mean over ALL rows.

    Args:
        unlabelled_weight: weight of the unlabelled term after `end`.
        start, end: shares of training between which it rises.
        threshold: confidence from which a pseudo-label counts, in [0, 1]; the paper has none.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
        recipe: augmentation of all samples.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        unlabelled_weight: float = 1.0,
        start: float = 0.1,
        end: float = 0.6,
        threshold: float = 0.0,
        ema: float = 0.99,
        recipe: str = "weak",
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema)
        if not 0 <= start < end <= 1:
            raise ValueError(
                f"start={start} and end={end} must be ascending shares of training, for example 0.1 and 0.6"
            )
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold={threshold} must lie between 0 and 1, for example 0.95")
        self.start, self.end, self.threshold = start, end, threshold
        self.views = {"labelled": {"view": recipe}, "unlabelled": {"view": recipe}}

    def rise(self) -> Tensor:
        return ((self.done - self.start) / (self.end - self.start)).clamp(0, 1)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        x, u = self.logits(encoder, labelled["view"], unlabelled["view"])
        confidence, guess = torch.softmax(u.detach(), 1).max(1)
        mask = (confidence >= self.threshold).float()
        loss_u = (F.cross_entropy(u, guess, reduction="none") * mask).mean()
        return self.total(x, labelled["y"], loss_u, mask_rate=mask.mean(), **self.judged(guess, unlabelled["y"]))

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        streams = {
            "labelled": {"view": ((0.5, 0.3, 0.2),), "y": (1,)},
            "unlabelled": {"view": ((0.6, 0.3, 0.1), (0.1, 0.1, 0.8))},
        }
        ramp = {"unlabelled_weight": 3.0, "start": 0.1, "end": 0.6}
        unlabelled = -(log(0.6) + log(0.8)) / 2
        return [
            Example(
                "Mean cross-entropy of all unlabelled rows to their likeliest class.",
                streams,
                settings=ramp,
                expected={"loss": -log(0.3) + 3 * unlabelled, "loss_unlabelled": unlabelled, "mask_rate": 1.0},
                learns={"unlabelled.view": (0, 1)},
            ),
            Example("The weight is 0 at first.", streams, done=0.1, settings=ramp, expected={"loss": -log(0.3)}),
            Example(
                "The weight rises as a straight line.",
                streams,
                done=0.35,
                settings=ramp,
                expected={"loss": -log(0.3) + 1.5 * unlabelled},
            ),
            Example(
                "With a threshold, the sum over confident rows is divided by all rows.",
                streams,
                settings={**ramp, "threshold": 0.7},
                expected={"loss_unlabelled": -log(0.8) / 2, "mask_rate": 0.5},
                learns={"unlabelled.view": (1,)},
            ),
        ]
