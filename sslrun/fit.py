"""Trains objectives on data: one function for the experiment, its supervised reference and fine-tuning."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from sslrun.contracts import Objective, UserError
from sslrun.data.loader import Loader
from sslrun.data.module import Data
from sslrun.device import PRECISIONS, Device, keep_freed_memory, rank, strategy
from sslrun.learner import Learner
from sslrun.nn.batch_norm import LayerSync
from sslrun.record.callbacks import AtomicCheckpoints
from sslrun.streams import streams_of

FALSE_ALARMS = (
    ".*does not have many workers.*",
    ".*not resumable.*",
    ".*treespec.*",
    ".*LeafSpec.*",
    ".*optimizer.*scheduler.*",
    ".*`training_step` returned.*",
    ".*configure_optimizers.*returned `None`.*",
    ".*Checkpoint directory.*exists.*",
    ".*resuming from a checkpoint that ended.*",
    ".*isinstance.*",
    ".*broadcast_buffers.*",
    ".*GPU available but not used.*",
    ".*in eval mode at the start of training.*",
)


def quiet() -> None:
    """Keeps Lightning's adverts and false alarms away; its errors still come through as exceptions."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for text in FALSE_ALARMS:
        warnings.filterwarnings("ignore", text)


@dataclass
class Plan:
    """How long and in which portions a fit runs; `steps` counts optimiser steps."""

    loader: Loader
    epochs: int
    steps: int
    accumulate: int = 1

    @classmethod
    def of(cls, loader: Loader, epochs: int, steps: int | None, accumulate: int = 1) -> Plan:
        per_epoch = math.ceil(len(loader) / accumulate)
        if steps:
            return cls(loader, math.ceil(steps / per_epoch), steps, accumulate)
        return cls(loader, epochs, epochs * per_epoch, accumulate)


def loader_for(data: Data, objectives: Mapping[str, Objective], batch_size: int, mu: int, device: Device) -> Loader:
    whole = any(o.whole_epochs for o in objectives.values())
    return Loader(data, streams_of(objectives.values()), batch_size, mu, rank(), device.world, whole)


def fit(
    learner: Learner,
    plan: Plan,
    device: Device,
    *,
    clip: float | None = None,
    callbacks: list[pl.Callback] | None = None,
    checkpoint: Path | None = None,
) -> pl.Trainer:
    """Runs the trainer over the plan, from a checkpoint where one is given.

    The loader keeps no position of its own: it reads the trainer's counters when it is iterated, so that a resumed
    run sees the batches that an uninterrupted one would have seen.
    """
    quiet()
    device.limit_threads()
    keep_freed_memory()
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, and nothing reads such memory
    learner.data.to(device.torch)
    learner.train()
    for objective in learner.objectives.values():
        objective.horizon = plan.steps
    if device.precision == "fp64":
        learner.double()  # Lightning does so after it has restored a checkpoint, whose weights it would round
    plugins: list[Any] = [AtomicCheckpoints()]
    if device.world > 1:
        plugins.append(LayerSync())
    trains = any(p.requires_grad for p in learner.parameters())
    # fp16 scales gradients, and fails where there are none
    precision = "fp32" if device.precision == "fp16" and not trains else device.precision
    # resume is exact; an operation that has no repeatable algorithm warns
    repeats = "warn" if device.accelerator == "gpu" else None
    trainer = pl.Trainer(
        accelerator=device.accelerator,
        devices=device.devices,
        num_nodes=device.num_nodes,
        strategy=strategy(device),
        precision=PRECISIONS[precision],
        max_epochs=plan.epochs,
        max_steps=plan.steps,
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=clip if trains else None,
        callbacks=callbacks or [],
        plugins=plugins,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        deterministic=repeats,
    )
    plan.loader.position = lambda: position(trainer, len(plan.loader))
    try:
        trainer.fit(learner, plan.loader, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    except SystemExit:  # Lightning exits after an impatient second Ctrl-C, which would end a whole sweep
        raise KeyboardInterrupt from None
    return trainer


def position(trainer: pl.Trainer, length: int) -> tuple[int, int]:
    """The epoch and the step in it that come next, from the counters that the checkpoint restores."""
    epoch = trainer.fit_loop.epoch_progress.current
    ready = trainer.fit_loop.epoch_loop.batch_progress.current.ready if epoch.ready > epoch.processed else 0
    return epoch.processed + ready // length, ready % length


def seconds(text: str | None) -> float | None:
    """`90s`, `30m`, `2h`, `1d` or `HH:MM:SS` in seconds.

    Raises:
        UserError: anything else.
    """
    if text is None:
        return None
    unit = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(text).strip())
    if unit:
        return float(unit[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit[2]]
    clock = re.fullmatch(r"(?:(\d+):)?(\d+):(\d+)", str(text).strip())
    if clock:
        return int(clock[1] or 0) * 3600 + int(clock[2]) * 60 + int(clock[3])
    raise UserError(f"max_time={text} is not a time; write for example 90s, 30m, 2h or 01:30:00.")
