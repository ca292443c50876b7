"""The weights at the last steps of a run, for scores that no choice of a step has flattered."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from sslrun.record.callbacks import AtomicCheckpoints
from sslrun.record.folder import RunFolder

LAST = 20  # evaluations whose median is told


class Tail(pl.Callback):
    """Keeps the weights at the last 20 of 100 even steps of a run of `total_steps` in `checkpoints/tail`.

    A run of fewer than 100 steps keeps none.
    """

    def __init__(self, folder: RunFolder, total_steps: int):
        apart = total_steps // (5 * LAST)
        self.folder = folder / "checkpoints/tail"
        self.steps = [total_steps - i * apart for i in reversed(range(LAST))] if apart else []
        self._done = -1

    def path(self, step: int) -> Path:
        return self.folder / f"{step}.ckpt"

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, *_: Any) -> None:
        step = trainer.global_step
        if step in self.steps and step != self._done and trainer.is_global_zero:
            learner.refuse_nan()
            AtomicCheckpoints().save_checkpoint(learner.state_dict(), self.path(step))
        self._done = step

    def states(self) -> Iterator[dict[str, Any]]:
        """The weights of each step, first to last; none where the run ended before the last of them."""
        if self.steps and all(self.path(step).exists() for step in self.steps):
            yield from (torch.load(self.path(step), map_location="cpu", weights_only=True) for step in self.steps)

    def drop(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
