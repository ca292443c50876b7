"""Mean Teacher: agree with the average of your own past (Tarvainen and Valpola 2017, arXiv:1703.01780)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.semi import SemiSupervised


class MeanTeacher(SemiSupervised):
    """Squared difference of the student's and the averaged network's probabilities, over labelled rows too.

    Tarvainen and Valpola 2017, arXiv:1703.01780. Each network sees a view of its own; the gradient reaches the student
    alone. The teacher normalises by its own batch, as in the authors' code; its buffers follow the student's.

    Args:
        unlabelled_weight: weight of the mean over rows and classes.
        ramp: share of training during which that weight rises.
        ema: decay of the teacher, in [0, 1).
        recipe: augmentation of what the student sees; of the labelled samples too.
        recipe_teacher: augmentation of what the teacher sees.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        unlabelled_weight: float = 10.0,
        ramp: float = 0.4,
        ema: float = 0.99,
        recipe: str = "strong",
        recipe_teacher: str = "strong",
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema, ramp)
        both = {"student": recipe, "teacher": recipe_teacher}
        self.views = {"labelled": both, "unlabelled": both}

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        with torch.no_grad():
            teacher = self.averaged(torch.cat([labelled["teacher"], unlabelled["teacher"]]))
        target = torch.softmax(teacher, 1)  # (B + mu B, K)
        x, u = self.logits(encoder, labelled["student"], unlabelled["student"])
        loss_u = (torch.softmax(torch.cat([x, u]), 1) - target).square().mean()
        return self.total(x, labelled["y"], loss_u, **self.judged(target[len(x) :].argmax(1), unlabelled["y"]))

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        streams = {
            "labelled": {"student": ((0.7, 0.3),), "teacher": ((0.5, 0.5),), "y": (1,)},
            "unlabelled": {"student": ((0.6, 0.4), (0.2, 0.8)), "teacher": ((0.8, 0.2), (0.25, 0.75))},
        }
        # the teacher doubles its logits: 0.5, 0.64 / 0.68 and 0.0625 / 0.625 for the first class
        apart = (0.2**2 + (0.6 - 0.64 / 0.68) ** 2 + 0.1**2) / 3  # alike in both classes
        return [
            Example(
                "Mean over all rows and classes of (student - teacher)^2; only the student's side has a gradient.",
                streams,
                averaged=2.0,
                settings={"unlabelled_weight": 3.0, "ramp": 0.4},
                expected={"loss": -log(0.3) + 3 * apart, "loss_labelled": -log(0.3), "loss_unlabelled": apart},
                learns={"labelled.student": (0,), "unlabelled.student": (0, 1)},
            ),
            Example(
                "The weight rises as exp(-5 (1 - t / T)^2).",
                streams,
                averaged=2.0,
                done=0.1,
                settings={"unlabelled_weight": 3.0, "ramp": 0.4},
                expected={"loss": -log(0.3) + 3 * math.exp(-5 * 0.75**2) * apart},
            ),
        ]
