"""Supervised learning on the labels there are: everyone's baseline."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.classifier import Classifier


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
