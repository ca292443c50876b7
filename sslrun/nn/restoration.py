"""What tasks that ask for a picture back have in common."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder, Predict
from sslrun.nn.heads import DenseHead


class Pictures(Predict):
    """A task whose targets are pixels; knows each channel's mean and spread, and the training part's mean picture.

    Args:
        recipe: augmentation of the pictures that the task starts from.
    """

    modalities = ("image",)
    kind = "real"

    def __init__(self, encoder: Encoder, spec: DataSpec, recipe: str):
        super().__init__(encoder, spec)
        self.views = {"all": {"view": recipe}}
        channels = spec.shape[0]
        self.register_buffer("mean", torch.tensor(spec.mean or (0.0,) * channels).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std or (1.0,) * channels).view(1, -1, 1, 1))
        self.register_buffer("picture", torch.zeros(spec.shape))  # (C, H, W), the training part's mean

    def prepare(self, data: Any, encoder: Encoder) -> None:
        self.picture = data.train.inputs(data.sample(10_000)).mean(0)


class Restoration(Pictures):
    """A task whose inputs are damaged pictures and whose target are the clean ones, both (B, C, H, W) in [0, 1].

    A subclass writes `make`. Answers come from the tokens alone, and the loss is their squared error in units of each
    channel's standard deviation. The answer without learning is the damaged picture itself, or the mean picture of the
    training part where that is the better one.

    Args:
        recipe: augmentation before the damage; it has to leave the size alone.
        hidden: width of the decoder's hidden layer.
    """

    def __init__(self, encoder: Encoder, spec: DataSpec, recipe: str, hidden: int):
        super().__init__(encoder, spec, recipe)
        channels, *size = spec.shape
        self.decoder = DenseHead(encoder, tuple(size), channels, hidden)

    def answer(self, encoder: Encoder, inputs: Any) -> Tensor:
        return self.decoder(encoder.tokens(inputs)[0]) * self.std + self.mean

    def losses(self, answer: Tensor, target: Tensor) -> Tensor:
        return super().losses(answer / self.std, target / self.std)

    def guess(self, inputs: Any, target: Tensor) -> Tensor:
        picture = self.picture.to(target.dtype).expand_as(target)
        own, other = (self.losses(answer, target).mean() for answer in (inputs, picture))
        return torch.where(own <= other, inputs, picture)

    def complete(self, encoder: Encoder, x: Any) -> Tensor:
        """The restored pictures, (B, C, H, W)."""
        return self.answer(encoder, x).to(x.dtype)


def span(key: str, value: Any, example: list[float]) -> tuple[float, float]:
    """The two ends of a range of strengths, 0 or more; ValueError for what is none."""
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not 0 <= low <= high:
        raise ValueError(f"{key}={value} is no range; give two ascending numbers, for example {example}")
    return low, high
