"""Entropy minimisation: be sure of unlabelled samples (Grandvalet and Bengio 2005)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.semi import SemiSupervised


class EntropyMinimisation(SemiSupervised):
    """Mean entropy of the predictions on unlabelled samples; its gradient flows through both factors.

    Grandvalet and Bengio 2005, "Semi-supervised Learning by Entropy Minimization". One class for all has no entropy
    either: `marginal_entropy`, of the mean prediction, falls when that happens.

    Args:
        unlabelled_weight: weight of the entropy.
        ramp: share of training during which that weight rises.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
        recipe: augmentation of all samples.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        unlabelled_weight: float = 0.5,
        ramp: float = 0.4,
        ema: float = 0.99,
        recipe: str = "weak",
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema, ramp)
        self.views = {"labelled": {"view": recipe}, "unlabelled": {"view": recipe}}

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        x, u = self.logits(encoder, labelled["view"], unlabelled["view"])
        log_p = torch.log_softmax(u, 1)
        p = log_p.exp()  # (mu B, K)
        marginal = torch.special.entr(p.detach().mean(0)).sum()
        loss_u = -(p * log_p).sum(1).mean()
        told = {"marginal_entropy": marginal, **self.judged(p.argmax(1), unlabelled["y"])}
        return self.total(x, labelled["y"], loss_u, **told)

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        entropy = -(0.6 * log(0.6) + 0.3 * log(0.3) + 0.1 * log(0.1) + 2 * 0.1 * log(0.1) + 0.8 * log(0.8)) / 2
        streams = {
            "labelled": {"view": ((0.5, 0.3, 0.2),), "y": (1,)},
            "unlabelled": {"view": ((0.6, 0.3, 0.1), (0.1, 0.1, 0.8))},
        }
        return [
            Example(
                "Mean entropy of the unlabelled rows, with a gradient through both of its factors.",
                streams,
                settings={"unlabelled_weight": 3.0, "ramp": 0.4},
                expected={
                    "loss": -log(0.3) + 3 * entropy,
                    "loss_unlabelled": entropy,
                    "marginal_entropy": -(0.35 * log(0.35) + 0.2 * log(0.2) + 0.45 * log(0.45)),
                },
                learns={"unlabelled.view": (0, 1)},
            )
        ]
