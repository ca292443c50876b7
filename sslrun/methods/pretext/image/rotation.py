"""Rotation prediction: which of four turns was the picture given? (Gidaris et al. 2018, arXiv:1803.07728)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, Predict
from sslrun.rng import Rng


class Rotation(Predict):
    """Four-way classification of exact quarter turns, all four copies of each picture in the batch.

    Gidaris et al. 2018, arXiv:1803.07728. Turns are transposes and flips, never interpolated, so that no trace of
    resampling gives the answer away.

    Args:
        recipe: augmentation before the turn; one that resamples hides the traces of JPEG, by which turns can be told.
    """

    modalities = ("image",)
    kind = "class"
    num_targets = 4

    def __init__(self, encoder: Encoder, spec: DataSpec, recipe: str = "crop_only"):
        super().__init__(encoder, spec)
        if spec.shape[1] != spec.shape[2]:
            raise ValueError(f"rotation needs square pictures, and these are {spec.shape[1]} x {spec.shape[2]}")
        self.views = {"all": {"view": recipe}}
        self.head = nn.Linear(encoder.dim, 4)

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        turned = torch.cat([torch.rot90(x, k, (2, 3)) for k in range(4)])  # (4B, C, H, W)
        return turned, torch.arange(4, device=x.device).repeat_interleave(len(x))  # (4B,)

    def answer(self, encoder: Encoder, inputs: Any) -> Tensor:
        return self.head(encoder(inputs))
