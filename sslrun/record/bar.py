"""The progress of a fit: for whoever looks at the terminal, and in the run's status for whoever looks from outside."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl

from sslrun.progress import LINES, SILENCE, duration
from sslrun.record.folder import RunFolder

TELL = 2.0  # seconds between the steps that status.json names


class Progress(pl.Callback):
    """A bar with the time left on a terminal, a few plain lines elsewhere; the step in `folder`'s status for others."""

    def __init__(self, title: str, total_steps: int, folder: RunFolder | None = None):
        self.title, self.total, self.folder = title, max(1, total_steps), folder
        self._bar: Any = None
        self._told = 0.0

    def on_train_start(self, trainer: pl.Trainer, learner: Any) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        if not trainer.is_global_zero:
            return
        self._began, self._first, self._said = time.monotonic(), trainer.global_step, 0
        console = Console(stderr=True)
        self._console = console
        if console.is_terminal:
            columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total} steps")]
            columns += [
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            ]
            self._bar = Progress(*columns, console=console, refresh_per_second=4)
            self._task = self._bar.add_task(self.title, total=self.total, completed=self._first, note="")
            self._bar.start()

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, *_: Any) -> None:
        if not trainer.is_global_zero:
            return
        step = self._step(trainer)
        if self.folder is not None and (time.monotonic() - self._told > TELL or step >= self.total):
            self._told = time.monotonic()
            self.folder.set_status("running", step=step, steps=self.total)
        if self._bar is not None:
            note = (
                f"loss {learner.scalars['loss'].item():.3f}" if "loss" in learner.scalars and step % 10 == 0 else None
            )
            self._bar.update(self._task, completed=step, **({"note": note} if note else {}))
            return
        part = LINES * step // self.total
        spent = time.monotonic() - self._began
        if part > self._said and spent > SILENCE and step < self.total:
            self._said = part
            left = duration(spent / max(1, step - self._first) * (self.total - step))
            self._console.print(f"{self.title}: step {step} of {self.total}, about {left} left", highlight=False)

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    @staticmethod
    def _step(trainer: pl.Trainer) -> int:
        return trainer.global_step or trainer.fit_loop.epoch_loop.total_batch_idx + 1

    def on_train_end(self, trainer: pl.Trainer, learner: Any) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, learner: Any, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
