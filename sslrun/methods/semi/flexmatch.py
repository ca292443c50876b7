"""FlexMatch: FixMatch whose bar is lower for classes that are learned late (Zhang et al. 2021, arXiv:2110.08263)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.gather import gather
from sslrun.nn.semi import WeakToStrong, refuse_threshold


class FlexMatch(WeakToStrong):
    """FixMatch with a threshold of each class, by how many unlabelled samples are confidently in it so far.

    Zhang et al. 2021, arXiv:2110.08263 (curriculum pseudo labelling, with the warm-up of eq. 8 and the convex mapping
    x / (2 - x)). Of every sample the last confident guess is remembered, by its place in the data.

    Args:
        threshold: the highest threshold that a class has, in (0, 1].
        unlabelled_weight: weight of the unlabelled term.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        threshold: float = 0.95,
        unlabelled_weight: float = 1.0,
        ema: float = 0.999,
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema)
        refuse_threshold(threshold)
        self.threshold = threshold
        self.register_buffer(
            "guesses", torch.zeros(0, dtype=torch.int64)
        )  # by place in the data; K: none, or no sample

    def prepare(self, data: Any, encoder: Encoder) -> None:
        super().prepare(data, encoder)
        self.guesses = torch.full((int(data.train.index.max()) + 1,), len(self.prior))
        self.register_buffer("samples", torch.tensor(len(data.unlabelled)), persistent=False)

    def thresholds(self) -> Tensor:
        """The threshold of each class, (K,)."""
        learned = torch.bincount(self.guesses, minlength=len(self.prior) + 1)[:-1]
        waiting = self.samples - learned.sum()  # while most samples are not used yet, they set the scale
        share = learned / torch.maximum(learned.max(), waiting).clamp_min(1)
        return self.threshold * share / (2 - share)

    def trust(self, p: Tensor, index: Tensor) -> Tensor:
        confidence, guess = p.max(1)
        trusted = (confidence >= self.thresholds()[guess]).float()
        if self.training:
            sure = torch.where(confidence >= self.threshold, guess, -1)
            index, sure = gather(index), gather(sure)
            self.guesses[index[sure >= 0]] = sure[sure >= 0]
        return trusted

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        labelled = {"weak": ((0.5, 0.25, 0.25),), "y": (0,)}
        strong = ((0.5, 0.3, 0.2), (0.4, 0.4, 0.2), (0.3, 0.6, 0.1), (0.1, 0.7, 0.2), (0.2, 0.5, 0.3), (0.1, 0.3, 0.6))
        zero, one = (0.95, 0.03, 0.02), (0.03, 0.95, 0.02)
        before = {"weak": (zero, zero, zero, one, one, (0.2, 0.2, 0.6)), "strong": strong}
        now = {
            "weak": ((0.8, 0.1, 0.1), zero, (0.3, 0.4, 0.3), (0.3, 0.5, 0.2), (0.3, 0.3, 0.4), (0.2, 0.3, 0.5)),
            "strong": strong,
        }
        return [
            Example(
                "At first no class has been learned, and every row counts.",
                {"labelled": labelled, "unlabelled": now},
                expected={"mask_rate": 1.0},
                learns={"unlabelled.strong": (0, 1, 2, 3, 4, 5)},
            ),
            Example(
                "A class found b times as often as the most frequent one has the threshold tau * b / (2 - b).",
                {"labelled": labelled, "unlabelled": now},
                earlier=({"labelled": labelled, "unlabelled": before},),
                # 3, 2 and 0 confident guesses, 1 row without: 0.9 times (1, (2/3) / (4/3), 0)
                settings={"threshold": 0.9},
                expected={
                    "mask_rate": 4 / 6,
                    "loss_unlabelled": -(log(0.4) + log(0.7) + log(0.3) + log(0.6)) / 6,
                },
                learns={"unlabelled.strong": (1, 3, 4, 5)},
            ),
            Example(
                "While more rows are without a confident guess than the most frequent class has, they set the scale.",
                {
                    "labelled": labelled,
                    "unlabelled": {"weak": ((0.5, 0.3, 0.2), (0.4, 0.3, 0.3)), "strong": strong[:2]},
                },
                earlier=(
                    {"labelled": labelled, "unlabelled": {**before, "weak": (zero, zero, one, *now["weak"][2:5])}},
                ),
                # 2 confident guesses of the first class, 3 rows without any: 0.9 times (2/3) / (4/3)
                settings={"threshold": 0.9},
                expected={"mask_rate": 0.5, "loss_unlabelled": -log(0.5) / 2},
                learns={"unlabelled.strong": (0,)},
            ),
        ]
