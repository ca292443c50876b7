"""Randomness that depends on a position, never on process state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

BLOCK = 64  # samples that share a generator where draws depend on the sample


def seed_of(*key: Any) -> int:
    """A 63-bit seed that depends on the key alone: no process state, no hash randomisation."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


class Rng:
    """Draws whose first axis is the samples of the global batch, of which this rank keeps its rows.

    Every rank draws for the whole batch from the same key, so that the parameters of a sample do not depend on how
    many processes share the work. With `first`, the place of the batch's first sample in its part (a multiple of
    `BLOCK`), a sample's draws depend on its own place instead, whatever the size of the batch that it comes in.
    """

    def __init__(
        self,
        *key: Any,
        total: int,
        rows: slice | None = None,
        device: torch.device | str = "cpu",
        first: int | None = None,
    ):
        self.total, self.rows, self.device = total, rows or slice(0, total), torch.device(device)
        self.key, self.first = key, first
        if first is None:
            self.size, keys = total, [key]
        else:
            if first % BLOCK:
                raise ValueError(f"first={first} must be a multiple of {BLOCK}")
            self.size, keys = BLOCK, [(*key, block) for block in range(first // BLOCK, -(-(first + total) // BLOCK))]
        self.generators = [torch.Generator(self.device).manual_seed(seed_of(*k)) for k in keys]

    def __len__(self) -> int:
        return len(range(*self.rows.indices(self.total)))

    def child(self, *purpose: Any) -> Rng:
        """An independent stream of draws for the same rows."""
        return Rng(*self.key, *purpose, total=self.total, rows=self.rows, device=self.device, first=self.first)

    def whole(self) -> Rng:
        """The same draws for the whole global batch: for objectives that mix rows and gather them first."""
        return Rng(*self.key, total=self.total, device=self.device, first=self.first)

    def _draw(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        drawn = [draw((self.size, *shape), generator=g, device=self.device) for g in self.generators]
        return (drawn[0] if len(drawn) == 1 else torch.cat(drawn))[: self.total][self.rows]  # (B, *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return self._draw(partial(torch.rand, dtype=torch.float32), *shape) * (high - low) + low

    def normal(self, *shape: int) -> Tensor:
        return self._draw(partial(torch.randn, dtype=torch.float32), *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        return self._draw(partial(torch.randint, high), *shape)

    def chance(self, p: float, *shape: int) -> Tensor:
        """Booleans that are true with probability p."""
        return self.uniform(*shape) < p

    def orders(self, n: int) -> Tensor:
        """A random permutation of range(n) for each sample, (B, n)."""
        return self.uniform(n).argsort(1)


class Joint(Rng):
    """The draws of several, one after the other along the first axis: each as if it had been asked alone."""

    def __init__(self, *parts: Rng):
        self.parts, self.device = parts, parts[0].device

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def child(self, *purpose: Any) -> Joint:
        return Joint(*(part.child(*purpose) for part in self.parts))

    def whole(self) -> Joint:
        return Joint(*(part.whole() for part in self.parts))

    def _draw(self, draw: Callable[..., Tensor], *shape: int) -> Tensor:
        return torch.cat([part._draw(draw, *shape) for part in self.parts])
