"""FixMatch: a confident guess on a weak view is the label of the strong view (Sohn et al. 2020, arXiv:2001.07685)."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.classifier import Classifier
from sslrun.nn.ema import Ema


class FixMatch(Classifier):
    """Cross-entropy on labelled samples plus cross-entropy to thresholded pseudo-labels on unlabelled ones.

    Sohn et al. 2020, arXiv:2001.07685. The unlabelled term is the sum over confident rows divided by ALL unlabelled
    rows, so that few confident rows weigh little.

    Args:
        threshold: confidence from which a pseudo-label counts, in (0, 1].
        unlabelled_weight: weight of the unlabelled term.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
    """

    streams = ("labelled", "unlabelled")
    views = {"labelled": {"weak": "weak"}, "unlabelled": {"weak": "weak", "strong": "strong"}}

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        threshold: float = 0.95,
        unlabelled_weight: float = 1.0,
        ema: float = 0.999,
    ):
        super().__init__(encoder, spec)
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold={threshold} must lie above 0 and not above 1, for example 0.95")
        self.threshold, self.unlabelled_weight = threshold, unlabelled_weight
        self.ema = Ema(nn.ModuleList([copy.deepcopy(encoder), copy.deepcopy(self.head)]), decay=ema)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        sizes = [len(labelled), len(unlabelled), len(unlabelled)]
        # One pass over everything: batch statistics of all (1 + 2 mu) B rows, as the paper's code has it.
        x = torch.cat([labelled["weak"], unlabelled["weak"], unlabelled["strong"]])
        logits_x, logits_w, logits_s = self.head(encoder(x)).float().split(sizes)
        confidence, guess = torch.softmax(logits_w.detach(), 1).max(1)  # (mu B,) in fp32
        mask = (confidence >= self.threshold).float()
        loss_x = F.cross_entropy(logits_x, labelled["y"])
        loss_u = (F.cross_entropy(logits_s, guess, reduction="none") * mask).mean()
        return {
            "loss": loss_x + self.unlabelled_weight * loss_u,
            "loss_labelled": loss_x,
            "loss_unlabelled": loss_u,
            "mask_rate": mask.mean(),
            "accuracy": (logits_x.argmax(1) == labelled["y"]).float().mean(),
        }

    def after_step(self, encoder: Encoder) -> None:
        self.ema.update(nn.ModuleList([encoder, self.head]))

    def ema_predict(self, encoder: Encoder, x: Any) -> Tensor:
        averaged, head = self.ema.module
        return torch.softmax(head(averaged(x)).float(), 1)
