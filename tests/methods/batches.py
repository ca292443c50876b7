"""Hand-made batches for one objective at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslrun.check.byhand import held_against
from sslrun.contracts import Batch, DataSpec, Objective, Stream
from sslrun.nn.example import Example
from sslrun.rng import Rng


class Linear(nn.Module):
    """An encoder (B, ...) -> (B, dim) without bias: what a loss is by hand can be followed through it."""

    def __init__(self, inputs: int, dim: int):
        super().__init__()
        self.dim = dim
        self.layer = nn.Linear(inputs, dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


def picture(classes: int = 3, size: int = 4) -> DataSpec:
    return DataSpec("pictures", "image", (1, size, size), classes, mean=(0.0,), std=(1.0,))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batch(**streams: dict[str, Any]) -> Batch:
    """`batch(all={"x": x})`: streams of tensors, with draws that depend on the purpose alone."""
    made = {}
    for name, values in streams.items():
        n = len(next(iter(values.values())))
        hidden = torch.full((n,), -1)
        made[name] = Stream(
            {"index": torch.arange(n), "y": hidden, **values},
            lambda *purpose, n=n, name=name: Rng(name, *purpose, total=n),
        )
    return Batch(made)


def after(kind: type[Objective], *steps: dict[str, Any], **settings: Any) -> Objective:
    """The objective in training mode after these batches, each `{stream: {view: class probabilities}}`."""
    kept: list[Objective] = []
    *earlier, last = steps
    held_against(kind, Example("", last, earlier=tuple(earlier), settings=settings, rule=lambda o, _: kept.append(o)))
    return kept[0]


class Cells(nn.Module):
    """An encoder whose tokens are the squares of 2 x 2 pixels of one-channel pictures of 4 x 4."""

    dim, grid = 4, (2, 2)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, None]:
        return x.unfold(2, 2, 2).unfold(3, 2, 2).reshape(len(x), 4, 4), None  # (B, N, D)


class Rows:
    """What `prepare` reads of a data module: training samples."""

    def __init__(self, x: Tensor):
        self.train, self.x = self, x

    def sample(self, at_most: int) -> Tensor:
        return torch.arange(len(self.x))

    def inputs(self, positions: Tensor) -> Tensor:
        return self.x[positions]
