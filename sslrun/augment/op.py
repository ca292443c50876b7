"""The base of all augmentations: parameters are drawn for every sample, then applied to the whole batch at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sslrun.contracts import UserError
from sslrun.rng import Rng

Params = dict[str, Tensor]


class Op(nn.Module):
    """One random operation on a batch.

    `draw` gives the parameters, each (B, ...), from the shape of the input alone; `apply` is deterministic. Keeping the
    two apart lets a recipe draw for the whole batch and then work through it in pieces that fit the cache.
    """

    dims = 4  # axes of the input: 4 for images (B, C, H, W), 2 for tables (B, D)
    whole = False  # true where `apply` is faster on the whole batch than on pieces of it

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        """The parameters of each sample of an input of that shape."""
        raise NotImplementedError

    def apply(self, x: Tensor, **params: Tensor) -> Tensor:
        """The operation at given parameters; returns a new tensor or `x` itself, and never writes into `x`."""
        raise NotImplementedError

    def forward(self, x: Tensor, rng: Rng) -> Tensor:
        self.check(x)
        return self.apply(x, **self.draw(rng.child(type(self).__name__), x.shape))

    def prepare(self, x_train: Tensor) -> None:
        """Learns statistics from the training part; called once, before the first draw."""

    def check(self, x: Tensor) -> None:
        if x.dim() != self.dims:
            wanted = "images (B, C, H, W)" if self.dims == 4 else "tables (B, D)"
            raise UserError(
                f"augmentation: {type(self).__name__} reads {wanted} but got a batch of shape {tuple(x.shape)}; "
                "choose an augmentation file made for this kind of data."
            )


def probability(key: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise UserError(f"{key}={value} is not a probability; give a number from 0 to 1.")
    return value


def on_rows(
    x: Tensor, chosen: Tensor, change: Callable[..., Tensor], *params: Tensor, in_place: bool = False
) -> Tensor:
    """`change(x, *params)` for the chosen (B,) samples, so that only they pay for it; the others stay.

    `in_place` writes into `x`, where it is the caller's own.
    """
    rows = chosen.nonzero().squeeze(1)
    if len(rows) == 0:
        return x
    if len(rows) == len(x):
        return change(x, *params)
    changed = change(x.index_select(0, rows), *(p[rows] for p in params))
    return x.index_copy_(0, rows, changed) if in_place else x.index_copy(0, rows, changed)
