"""Supervised learning on the labels there are: everyone's baseline."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.classifier import Classifier
from sslrun.nn.example import Example


class Supervised(Classifier):
    """Cross-entropy of a linear head on the labelled samples; with `weights=RUN` this is fine-tuning.

    Args:
        recipe: augmentation of the labelled samples.
        smoothing: label smoothing (Szegedy et al. 2016, arXiv:1512.00567), 0 to below 1.
    """

    streams = ("labelled",)

    def __init__(self, encoder: Encoder, spec: DataSpec, recipe: str = "weak", smoothing: float = 0.0):
        super().__init__(encoder, spec)
        self.views = {"labelled": {"view": recipe}}
        self.smoothing = smoothing

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        y = batch["labelled"]["y"]  # (B,)
        logits = self.head(encoder(batch["labelled"]["view"])).float()  # (B, K)
        loss = F.cross_entropy(logits, y, label_smoothing=self.smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(1) == y).float().mean()}

    @staticmethod
    def examples() -> list[Example]:
        log, rows = math.log, ((0.5, 0.25, 0.25), (0.2, 0.2, 0.6))
        given = {
            "streams": {"labelled": {"view": rows, "y": (0, 1)}},
            "term": "loss",
            "learns": {"labelled.view": (0, 1)},
        }
        return [
            Example(
                "Mean cross-entropy of the labelled rows.",
                expected={"loss": -(log(0.5) + log(0.2)) / 2, "accuracy": 0.5},
                **given,
            ),
            Example(
                "Smoothing moves a share of the label to all classes alike, its own included.",
                settings={"smoothing": 0.3},  # 0.7 + 0.1 of the label's class, 0.1 of each other one
                expected={"loss": -(0.8 * log(0.5) + 0.2 * log(0.25) + 0.9 * log(0.2) + 0.1 * log(0.6)) / 2},
                **given,
            ),
        ]
