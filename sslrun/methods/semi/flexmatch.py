"""FlexMatch: FixMatch whose bar is lower for classes that are learned late (Zhang et al. 2021, arXiv:2110.08263)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
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
