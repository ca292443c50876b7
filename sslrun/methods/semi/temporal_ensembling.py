"""Temporal ensembling: agree with the average of your own past guesses (Laine and Aila 2017, arXiv:1610.02242)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.gather import gather
from sslrun.nn.semi import SemiSupervised


class TemporalEnsembling(SemiSupervised):
    """Squared difference of the probabilities and their running mean over the passes so far, kept for each sample.

    Laine and Aila 2017, arXiv:1610.02242. The mean Z <- a Z + (1 - a) z is divided by 1 - a^t, since it starts at 0;
    a sample that was not seen before has no target and no loss. Samples outside training have none either.

    Args:
        momentum: a, of the running mean, in [0, 1).
        unlabelled_weight: weight of the mean over rows and classes.
        ramp: share of training during which that weight rises.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
        recipe: augmentation of all samples.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        momentum: float = 0.6,
        unlabelled_weight: float = 10.0,
        ramp: float = 0.4,
        ema: float = 0.99,
        recipe: str = "strong",
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema, ramp)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum} must lie in [0, 1), for example 0.6")
        self.momentum = momentum
        self.views = {"labelled": {"view": recipe}, "unlabelled": {"view": recipe}}
        self.register_buffer("memory", torch.zeros(0, spec.num_classes))  # (N, K) by place in the data
        self.register_buffer("visits", torch.zeros(0, dtype=torch.int64))  # (N,)

    def prepare(self, data: Any, encoder: Encoder) -> None:
        super().prepare(data, encoder)
        places = int(data.train.index.max()) + 1
        self.memory = torch.zeros(places, self.memory.shape[1])
        self.visits = torch.zeros(places, dtype=torch.int64)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        x, u = self.logits(encoder, labelled["view"], unlabelled["view"])
        p = torch.softmax(u, 1)  # (mu B, K)
        if not self.training:
            return self.total(x, labelled["y"], 0 * p.sum(), **self.judged(p.argmax(1), unlabelled["y"]))
        place = unlabelled["index"]
        visits = self.visits[place].unsqueeze(1)  # (mu B, 1)
        target = self.memory[place] / (1 - self.momentum ** visits.clamp_min(1))
        loss_u = ((p - target).square() * (visits > 0)).mean()
        self._remember(gather(place), gather(p.detach()))
        return self.total(x, labelled["y"], loss_u, remembered=(visits > 0).float().mean())

    def _remember(self, place: Tensor, p: Tensor) -> None:
        self.memory[place] = self.momentum * self.memory[place] + (1 - self.momentum) * p.to(self.memory)
        self.visits[place] += 1

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        labelled = {"view": ((0.7, 0.3),), "y": (1,)}
        first = {"view": ((0.9, 0.1), (0.5, 0.5))}
        second = {"view": ((0.7, 0.3),)}
        now = {"view": ((0.6, 0.4), (0.2, 0.8), (0.3, 0.7))}
        seen = [{"labelled": labelled, "unlabelled": u} for u in (first, second, now)]
        # the first row has two guesses behind it: (0.6 * 0.4 * 0.9 + 0.4 * 0.7) / (1 - 0.36) = 0.775
        # the second row has one, 0.5, and the third one has none
        apart = (0.175**2 + 0.3**2) / 3  # alike in both classes
        return [
            Example(
                "The mean of a sample's earlier guesses, divided by 1 - a^t, is its target; others count as 0.",
                seen[2],
                earlier=(seen[0], seen[1]),
                settings={"momentum": 0.6, "unlabelled_weight": 3.0, "ramp": 0.4},
                expected={"loss": -log(0.3) + 3 * apart, "loss_unlabelled": apart, "remembered": 2 / 3},
                learns={"unlabelled.view": (0, 1)},
            ),
            Example(
                "The first pass has no target, and no loss.",
                seen[2],
                expected={"loss": -log(0.3), "loss_unlabelled": 0.0},
            ),
        ]
