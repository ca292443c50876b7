"""What watches a fit: checkpoints that survive a kill, curves, and the look at the validation part."""

from __future__ import annotations

import contextlib
import csv
import errno
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from sslrun.nn.gather import all_sum
from sslrun.record.folder import RunFolder

FULL = 1 << 20  # bytes: a disk with less to spare is full


class AtomicCheckpoints(TorchCheckpointIO):
    """Checkpoints written beside their final name, synced and renamed: a kill while writing leaves the old one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        beside = f"{path}.tmp"
        try:
            with open(beside, "wb") as f:
                torch.save(checkpoint, f)
                f.flush()
                os.fsync(f.fileno())
        except (OSError, RuntimeError) as error:
            free = shutil.disk_usage(os.path.dirname(path)).free
            with contextlib.suppress(OSError):
                os.remove(beside)
            if isinstance(error, RuntimeError) and free < FULL:  # torch hides why a write failed
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
            raise
        os.replace(beside, path)


class Keeper(pl.Callback):
    """Keeps `last.ckpt` by time and at epoch ends, and stops cleanly on Ctrl-C, SIGTERM or after `max_seconds`.

    A save inside an epoch comes every `every` seconds, at an epoch's end every thirtieth of that, so that tiny epochs
    do not drown in writes. Rank 0 decides and the others follow. It comes last among the callbacks, so that it saves
    what they hold.
    """

    def __init__(self, folder: RunFolder, every: float, max_seconds: float | None = None):
        self.folder, self.every, self.max_seconds = folder, every, max_seconds
        self.interrupted = self.timed_out = False
        self._asked = False
        self._handlers: dict[int, Any] = {}
        self._began = self._saved = time.monotonic()
        self.path = folder / "checkpoints/last.ckpt"

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Turns the first Ctrl-C or SIGTERM into a request to stop; the second one acts at once."""

        def ask(number: int, frame: Any) -> None:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = True

        if threading.current_thread() is not threading.main_thread():  # the caller handles signals
            yield
            return
        self._handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM), ask)
        old = {s: signal.getsignal(s) for s in self._handlers}
        self._listen(self._handlers)
        try:
            yield
        finally:
            self._listen(old)
            self._handlers = {}

    @staticmethod
    def _listen(handlers: dict[int, Any]) -> None:
        for s, handler in handlers.items():
            signal.signal(s, handler)

    def on_train_start(self, trainer: pl.Trainer, learner: Any) -> None:
        self._listen(self._handlers)  # Lightning's own handler of SIGTERM would end the run with an error

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, out: Any, batch: Any, batch_idx: int) -> None:
        ends = ends_epoch(trainer, batch_idx)
        if not ends and (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # gradients that wait for the optimiser's step are not saved
        if not ends and trainer.world_size > 1 and self.every > 0 and trainer.global_step % 10:
            return
        last = trainer.should_stop or trainer.global_step >= trainer.max_steps
        if self._ask(trainer, 0 if last else self.every / 30 if ends else self.every):
            self.save(trainer, learner)

    def _ask(self, trainer: pl.Trainer, patience: float) -> bool:
        """Whether to save, `patience` seconds after the last time; stops the trainer where somebody wants it to."""
        now = time.monotonic()
        over = self.max_seconds is not None and now - self._began > self.max_seconds
        flags = (now - self._saved >= patience, self._asked, over)
        due, self.interrupted, self.timed_out = trainer.strategy.broadcast(flags) if trainer.world_size > 1 else flags
        if self.interrupted or self.timed_out:
            trainer.should_stop = True
        return due or trainer.should_stop

    def save(self, trainer: pl.Trainer, learner: Any) -> None:
        learner.refuse_nan()
        trainer.save_checkpoint(self.path)
        self._saved = time.monotonic()
        if trainer.is_global_zero:
            self.folder.set_status("running", step=trainer.global_step)


def ends_epoch(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether this was the last batch of an epoch (or of the run).

    What is due at the end of an epoch is done here, after its last step: from a checkpoint that is saved in the
    trainer's hook of the epoch's end, Lightning repeats a step of that epoch where there is no validation loop.
    """
    return batch_idx + 1 == trainer.num_training_batches or trainer.global_step >= trainer.max_steps


class Curves(pl.Callback):
    """Writes every logged scalar to `metrics.csv` and to the logger, about `points` times over the run."""

    def __init__(self, folder: RunFolder, total_steps: int, logger: Any = None, points: int = 200):
        self.path, self.logger = folder / "metrics.csv", logger
        self.every = max(1, total_steps // points)
        self.speeds: list[float] = []
        self.waited = self.worked = 0.0
        self._steps: list[tuple[int, float, float]] = []  # samples, seconds of work and of waiting, since the last row
        self._done = -1

    def forget_after(self, step: int) -> None:
        """Drops rows that a resumed run will write again."""
        if self.path.exists():
            with open(self.path, newline="") as f:
                rows = [r for r in csv.reader(f) if len(r) == 4 and (r[1] == "step" or int(r[1]) <= step)]
            with open(self.path, "w", newline="") as f:
                csv.writer(f).writerows(rows)

    def write(self, values: dict[str, float], epoch: int, step: int) -> None:
        new = not self.path.exists()
        with open(self.path, "a", newline="") as f:
            writer = csv.writer(f)
            if new:
                writer.writerow(["epoch", "step", "name", "value"])
            writer.writerows([epoch, step, k, f"{v:.6g}"] for k, v in values.items())
        if self.logger is not None:
            self.logger.log_metrics(values, step)

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, *_: Any) -> None:
        step, work = trainer.global_step, time.perf_counter() - learner.began
        self._steps.append((learner.samples, work, learner.began - learner.left))
        if step % self.every or step == self._done:
            return
        self._done = step
        means = all_sum(torch.stack([v.float() for v in learner.scalars.values()])) / trainer.world_size
        if not trainer.is_global_zero:
            return
        values = {f"train/{k}": v for k, v in zip(learner.scalars, means.tolist(), strict=True)}
        if trainer.optimizers and trainer.optimizers[0].param_groups:
            values["train/lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        samples, work, wait = (sum(column) for column in zip(*self._steps, strict=True))
        values["speed/samples_per_s"] = samples / max(work + wait, 1e-9)
        values["speed/data_wait"] = wait / max(work + wait, 1e-9)
        self._take()
        self.write(values, trainer.current_epoch, step)

    def _take(self) -> None:
        """Adds up the step times; the first steps warm caches up and do not count."""
        for samples, work, wait in self._steps if self.speeds or len(self._steps) <= 3 else self._steps[3:]:
            self.speeds.append(samples / max(work + wait, 1e-9))
            self.waited += wait
            self.worked += work
        self._steps = []

    def on_train_end(self, trainer: pl.Trainer, learner: Any) -> None:
        self._take()


class Monitor(pl.Callback):
    """Looks at the validation part about `looks` times, in eval mode, and keeps `best.ckpt` by its primary metric.

    `look(learner)` returns scalars; `primary` names the one that chooses, `larger` says which way; on rank 0
    `draw(learner, step)` makes the pictures of a look.
    """

    def __init__(
        self,
        folder: RunFolder,
        look: Callable,
        curves: Curves,
        looks: int,
        primary: str,
        larger: bool,
        draw: Callable[[Any, int], None] = lambda learner, step: None,
    ):
        self.folder, self.look, self.curves, self.looks = folder, look, curves, looks
        self.primary, self.larger, self.draw = primary, larger, draw
        self.path = folder / "checkpoints/best.ckpt"
        self.best: float | None = None
        self.best_step = -1

    def found(self) -> dict[str, Any] | None:
        """The best value there was, for metrics.json; None where nothing was looked at."""
        if self.best is None:
            return None
        return {"metric": self.primary, "best": self.best, "step": self.best_step, "larger": self.larger}

    def checkpoint(self) -> Path | None:
        """The checkpoint of the best value, where there was one."""
        return self.path if self.best is not None and self.path.exists() else None

    def on_train_start(self, trainer: pl.Trainer, learner: Any) -> None:
        if self.looks and trainer.is_global_zero:  # a sweep that watches the curve has to know which one
            self.folder.set_status("running", judged={"metric": self.primary, "larger": self.larger})

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, out: Any, batch: Any, batch_idx: int) -> None:
        if not self.looks or not ends_epoch(trainer, batch_idx):
            return
        epochs = trainer.max_epochs or 1
        done = trainer.current_epoch + 1
        if done * self.looks // epochs == (done - 1) * self.looks // epochs and done < epochs:
            return
        values = trainer.strategy.broadcast(self.look(learner))  # all processes must save, or none
        if trainer.is_global_zero:
            self.curves.write(values, trainer.current_epoch, trainer.global_step)
            self.draw(learner, trainer.global_step)
        value = values.get(self.primary)
        if value is None or not math.isfinite(value):
            return
        if self.best is None or (value > self.best if self.larger else value < self.best):
            self.best, self.best_step = value, trainer.global_step
            learner.refuse_nan()
            trainer.save_checkpoint(self.path)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_step = state["best"], state["best_step"]


def newest_checkpoint(folder: RunFolder) -> Path | None:
    path = folder / "checkpoints/last.ckpt"
    return path if path.exists() else None
