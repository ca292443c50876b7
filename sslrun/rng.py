"""Randomness that depends on a position, never on process state."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor


def seed_of(*key: Any) -> int:
    """A 63-bit seed that depends on the key alone: no process state, no hash randomisation."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


class Rng:
    """Draws whose first axis is the samples of the global batch, of which this rank keeps its rows.

    Every rank draws for the whole batch from the same key, so that the parameters of a sample do not depend on how
    many processes share the work.
    """

    def __init__(self, *key: Any, total: int, rows: slice | None = None, device: torch.device | str = "cpu"):
        self.total, self.rows, self.device = total, rows or slice(0, total), torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed_of(*key))
        self.key = key

    def __len__(self) -> int:
        return len(range(*self.rows.indices(self.total)))

    def child(self, *purpose: Any) -> Rng:
        """An independent stream of draws for the same rows."""
        return Rng(*self.key, *purpose, total=self.total, rows=self.rows, device=self.device)

    def whole(self) -> Rng:
        """The same draws for the whole global batch: for objectives that mix rows and gather them first."""
        return Rng(*self.key, total=self.total, device=self.device)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        draw = torch.rand(self.total, *shape, generator=self.generator, device=self.device)
        return draw[self.rows] * (high - low) + low  # (B, *shape)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.total, *shape, generator=self.generator, device=self.device)[self.rows]

    def integers(self, high: int, *shape: int) -> Tensor:
        draw = torch.randint(high, (self.total, *shape), generator=self.generator, device=self.device)
        return draw[self.rows]

    def chance(self, p: float, *shape: int) -> Tensor:
        """Booleans that are true with probability p."""
        return self.uniform(*shape) < p

    def orders(self, n: int) -> Tensor:
        """A random permutation of range(n) for each sample, (B, n)."""
        return self.uniform(n).argsort(1)
