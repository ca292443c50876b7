"""Collectives that carry gradient: what a loss needs to see the samples of all processes.

The rule: each process back-propagates its local mean, these operations sum gradients over processes in their backward,
and the data-parallel wrapper divides by the number of processes; then every gradient is that of the global mean.
Without a process group, or with one process, all of them return their input.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

_alone = False


def world() -> int:
    """The number of processes that share the work."""
    return dist.get_world_size() if not _alone and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if not _alone and dist.is_available() and dist.is_initialized() else 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Makes this process its own world: for what every process computes in full, such as a look at validation."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def sizes(x: Tensor) -> list[int]:
    """The length of `x` on every process."""
    if world() == 1:
        return [len(x)]
    counts = [torch.empty(1, dtype=torch.int64, device=x.device) for _ in range(world())]
    dist.all_gather(counts, torch.tensor([len(x)], device=x.device))
    return torch.cat(counts).tolist()


def gather(x: Tensor, counts: Sequence[int] | None = None) -> Tensor:
    """The rows of all processes in the order of their ranks, (B, ...) -> (sum of B, ...).

    `counts` are the rows of each process where they are known (see `sizes`); they may differ.
    """
    return x if world() == 1 else Gather.apply(x, list(counts or sizes(x)))


def all_sum(x: Tensor) -> Tensor:
    """The sum of `x` over all processes, on each of them."""
    return x if world() == 1 else Sum.apply(x)


class Gather(torch.autograd.Function):
    """Concatenates over processes; its gradient is the sum over processes, this one's rows of it."""

    @staticmethod
    def forward(ctx, x: Tensor, counts: list[int]) -> Tensor:
        ctx.start, ctx.count = sum(counts[: rank()]), counts[rank()]
        padded = x.new_zeros(max(counts), *x.shape[1:])
        padded[: len(x)] = x
        pieces = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(pieces, padded)
        return torch.cat([piece[:n] for piece, n in zip(pieces, counts, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[ctx.start : ctx.start + ctx.count], None


class Sum(torch.autograd.Function):
    """Adds over processes, forward and backward."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient
