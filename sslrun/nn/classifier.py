"""What methods that learn from labels share: a linear head, its predictions, and what the labels' shares alone get."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslrun.contracts import Batch, DataSpec, Encoder, Objective


class Classifier(Objective):
    """A linear head of class logits on the encoder, trained on the labels that are shown.

    Raises ValueError for data of fewer than two classes.
    """

    def __init__(self, encoder: Encoder, spec: DataSpec):
        super().__init__(encoder, spec)
        if spec.num_classes < 2:
            raise ValueError(f"labels need at least 2 classes, and data={spec.name} has {spec.num_classes}")
        self.head = nn.Linear(encoder.dim, spec.num_classes)
        # learned anew by every process that trains, and read by no other
        self.register_buffer("prior", torch.full((spec.num_classes,), 1 / spec.num_classes), persistent=False)

    def prepare(self, data: Any, encoder: Encoder) -> None:
        counts = torch.bincount(data.train.y[data.labelled], minlength=len(self.prior))
        # one more of each class, so that a single class among the labels leaves a doubt to divide by
        self.prior = ((counts + 1) / (counts + 1).sum()).to(self.prior)

    def trivial_loss(self, batch: Batch) -> Tensor:
        """The cross-entropy of guessing every class as often as it was shown."""
        return -(self.prior * self.prior.log()).sum()

    def predict(self, encoder: Encoder, x: Any) -> Tensor:
        return torch.softmax(self.head(encoder(x)).float(), 1)
