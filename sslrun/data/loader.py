"""The order of samples: what each step of each process reads, as a function of the seed and the step's place alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from sslrun.contracts import UserError
from sslrun.data.module import Data
from sslrun.data.plan import Plan, Share
from sslrun.rng import seed_of


class Loader:
    """Yields the plans of an epoch; keeps no state, the trainer's counters say where it stands.

    `batch_size` counts `all` or `labelled` samples over all ranks, `unlabelled` is `mu` times that. One epoch is one
    pass over the driving stream; labelled samples cycle, and where they drive, an epoch shows as many samples as the
    training part has, so that a few labels are trained on for as long as many. `whole` keeps the last, shorter batch.
    """

    def __init__(
        self, data: Data, streams: tuple[str, ...], batch_size: int, mu: int, rank=0, world=1, whole: bool = False
    ):
        self.data, self.batch_size, self.rank, self.world = data, batch_size, rank, world
        self.pools = {
            "all": torch.arange(len(data.train)), "labelled": data.labelled, "unlabelled": data.unlabelled
        }  # fmt: skip
        self.sizes = {s: batch_size * (mu if s == "unlabelled" else 1) for s in streams}
        self.driver = next((s for s in ("unlabelled", "all", "labelled") if s in streams), None)
        if self.driver is None:
            raise UserError("the chosen method reads no stream; use method=none to evaluate without training.")
        if "labelled" in streams and not len(data.labelled):
            raise UserError(
                f"data={data.name} has no labels, and the chosen method needs some; use a self-supervised one."
            )
        if "unlabelled" in streams and not len(data.unlabelled):
            raise UserError(
                f"data.exclude_labelled=true leaves no unlabelled sample of data={data.name}: all {len(data.train)} "
                "are labelled; say labels=N to hide the labels of the others, or data.exclude_labelled=false."
            )
        n = len(data.train) if self.driver == "labelled" else len(self.pools[self.driver])
        size = self.sizes[self.driver]
        if size > n and not whole:
            unit = f"batch_size={batch_size}" + (f" times mu={mu}" if self.driver == "unlabelled" and mu > 1 else "")
            raise UserError(
                f"{unit} is larger than the {n} training samples of data={data.name}; "
                f"use batch_size={max(1, n // (size // batch_size))} or less."
            )
        if batch_size % world:
            raise UserError(
                f"batch_size={batch_size} cannot be shared by {world} processes; use a multiple of {world}."
            )
        self.length = -(-n // size) if whole else n // size
        self.samples = n if whole else self.length * size
        self.position = lambda: (0, 0)  # replaced by the trainer's counters
        self._turns: dict[tuple[str, int], Tensor] = {}

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Plan]:
        epoch, start = self.position()
        pending: list[Plan] = []
        for step in range(start, self.length):
            pending.append(self._start(self.plan(epoch, step)))
            if len(pending) > (0 if isinstance(self.data.train.store, Tensor) else 2):
                yield pending.pop(0)
        yield from pending

    def _start(self, plan: Plan) -> Plan:
        """Lets a store that decodes begin with this plan's samples."""
        part = self.data.train
        if not isinstance(part.store, Tensor):
            for share in plan.streams.values():
                future = part.store.prefetch(part.rows[share.positions])
                share.ready = lambda future=future: future.result().float().div_(part.scale)
        return plan

    def plan(self, epoch: int, step: int) -> Plan:
        streams = {}
        for name, size in self.sizes.items():
            pool = self.pools[name]
            if name == self.driver and name != "labelled":
                positions = self._shuffled(pool, name, epoch)[step * size : (step + 1) * size]
            else:
                first = (epoch * self.length + step) * size
                cycles = range(first // len(pool), (first + size - 1) // len(pool) + 1)
                flat = torch.cat([self._shuffled(pool, name, c) for c in cycles])
                first -= cycles[0] * len(pool)
                positions = flat[first : first + size]
            bounds = [round(r * len(positions) / self.world) for r in (self.rank, self.rank + 1)]
            rows = slice(*bounds)
            streams[name] = Share(positions[rows], len(positions), rows)
        return Plan(epoch, step, streams)

    def first(self, samples: int = 512) -> list[Plan]:
        """The first steps, as one process alone would see them, until about so many samples are shown."""
        alone = copy.copy(self)
        alone.rank, alone.world, alone._turns = 0, 1, {}
        return [alone.plan(0, step) for step in range(min(self.length, -(-samples // self.batch_size)))]

    def _shuffled(self, pool: Tensor, stream: str, turn: int) -> Tensor:
        if (stream, turn) not in self._turns:
            generator = torch.Generator().manual_seed(seed_of(self.data.seed, "order", stream, turn))
            # A step never needs more than the turn it is in and the next one, of each stream.
            self._turns = {k: v for k, v in self._turns.items() if k[0] != stream or k[1] == turn - 1}
            self._turns[stream, turn] = pool[torch.randperm(len(pool), generator=generator)]
        return self._turns[stream, turn]
