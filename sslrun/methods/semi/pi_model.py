"""Pi-model: two noisy looks at a sample agree (Laine and Aila 2017, arXiv:1610.02242)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.semi import SemiSupervised


class PiModel(SemiSupervised):
    """Squared difference of the probabilities of two views, over rows and classes; one of them is the target.

    Laine and Aila 2017, arXiv:1610.02242.

    Args:
        unlabelled_weight: weight of the mean over rows and classes.
        ramp: share of training during which that weight rises.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
        recipe: augmentation of the view that learns; of the labelled samples too.
        recipe_target: augmentation of the view that is the target.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        unlabelled_weight: float = 10.0,
        ramp: float = 0.4,
        ema: float = 0.99,
        recipe: str = "strong",
        recipe_target: str = "strong",
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema, ramp)
        self.views = {"labelled": {"view": recipe}, "unlabelled": {"view": recipe, "target": recipe_target}}

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        x, u, target = self.logits(encoder, labelled["view"], unlabelled["view"], unlabelled["target"])
        target = torch.softmax(target.detach(), 1)  # (mu B, K)
        loss_u = (torch.softmax(u, 1) - target).square().mean()
        return self.total(x, labelled["y"], loss_u, **self.judged(target.argmax(1), unlabelled["y"]))

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        streams = {
            "labelled": {"view": ((0.5, 0.3, 0.2),), "y": (1,)},
            "unlabelled": {
                "view": ((0.6, 0.3, 0.1), (0.2, 0.6, 0.2)),
                "target": ((0.8, 0.1, 0.1), (0.1, 0.6, 0.3)),
            },
        }
        apart = (0.04 + 0.04 + 0.01 + 0.01) / 6
        return [
            Example(
                "Mean over rows and classes of the squared difference of two views; one of them has no gradient.",
                streams,
                settings={"unlabelled_weight": 3.0, "ramp": 0.4},
                expected={"loss": -log(0.3) + 3 * apart, "loss_labelled": -log(0.3), "loss_unlabelled": apart},
                learns={"unlabelled.view": (0, 1)},
            ),
            Example(
                "The weight rises as exp(-5 (1 - t / T)^2).",
                streams,
                done=0.2,
                settings={"unlabelled_weight": 3.0, "ramp": 0.4},
                expected={"loss": -log(0.3) + 3 * math.exp(-1.25) * apart},
            ),
        ]
