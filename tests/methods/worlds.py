"""Small real data of every modality, methods composed on it as the command line would, and one way to train them."""

from __future__ import annotations

import copy
import csv
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from sklearn.datasets import load_wine
from torch import nn

from sslrun.build import Built, build, optimizer_factory
from sslrun.catalogue import locate, methods
from sslrun.check.worlds import tinted_digits
from sslrun.compose import compose
from sslrun.device import Device
from sslrun.fit import Plan, fit, loader_for
from sslrun.learner import Learner
from sslrun.look import Look
from sslrun.record.callbacks import Curves, Keeper, Monitor
from sslrun.record.folder import RunFolder


def mixed(folder: Path) -> list[str]:
    """scikit-learn's wine, with three columns as categories and every eleventh cell missing."""
    bundle = load_wine()
    cuts = {i: np.quantile(bundle.data[:, i], (0.25, 0.5, 0.75)) for i in (0, 4, 9)}
    path = folder / "mixed.csv"
    with open(path, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow([*(name.replace("/", "_") for name in bundle.feature_names), "kind"])
        for r, row in enumerate(bundle.data):
            cells = ["abcd"[np.searchsorted(cuts[i], v)] if i in cuts else v for i, v in enumerate(row)]
            cells = ["" if (r * 13 + i) % 11 == 0 else c for i, c in enumerate(cells)]
            writer.writerow([*cells, f"kind {bundle.target[r]}"])
    return ["data=csv", f"data.path={path}", "data.target=kind"]


# The first world of a modality is the one that the longer tests use. A new modality needs a line here and no new test.
WORLDS: dict[str, dict[str, Callable[[Path], list[str]]]] = {
    "image": {"colour": tinted_digits, "digits": lambda folder: ["data=digits"]},
    "table": {"mixed": mixed, "breast_cancer": lambda folder: ["data=breast_cancer"]},
}
UNFIT = {("colorization", "digits")}  # methods that refuse a world of their modality, for a reason that they name
TOGETHER = {"simclr+rotation": ["labels=20"], "supervised+rotation": ["labels=40"]}


def modalities(names: str) -> list[str]:
    """The modalities on which all of these methods (joined by +) work."""
    declared = [locate(methods()[name]["_target_"]).modalities or tuple(WORLDS) for name in names.split("+")]
    return sorted(set.intersection(*map(set, declared)))


def cases() -> list[tuple[str, str]]:
    """Every method and every multitask example, with each modality that it works on."""
    return [(names, modality) for names in [*methods(), *TOGETHER] for modality in modalities(names)]


def overrides(names: str, world: Sequence[str]) -> list[str]:
    chosen = names.split("+")
    method = f"method=[{','.join(chosen)}]"
    return [method, *world, "batch_size=16", "mu=2", *TOGETHER.get(names, ["labels=20"])]


def resolved(arguments: Sequence[str]) -> DictConfig:
    cfg, _ = compose(arguments)
    return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))


@lru_cache(maxsize=8)
def _built(arguments: tuple[str, ...]) -> tuple[DictConfig, Built]:
    cfg = resolved(arguments)
    return cfg, build(cfg)


def built(arguments: Sequence[str]) -> tuple[DictConfig, Built]:
    """A fresh, untrained copy of what these overrides ask for; the data are shared."""
    cfg, made = _built(tuple(arguments))
    encoder, objectives = copy.deepcopy((made.encoder, made.objectives))
    return cfg, Built(made.data, encoder, made.encoder_config, objectives, made.weights, made.evaluators)


@dataclass
class Trained:
    """A learner after training, and what happened on the way."""

    learner: Learner
    trainer: pl.Trainer
    monitor: Monitor | None = None
    losses: list[float] = field(default_factory=list)  # of each micro-batch, this process's own
    gradients: list[dict[str, np.ndarray]] = field(default_factory=list)  # of each optimiser step

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint has to bring back."""
        return {
            "learner": {k: v.clone() for k, v in self.learner.state_dict().items()},
            "optimizers": [o.state_dict() for o in self.trainer.optimizers],
            "schedulers": [c.scheduler.state_dict() for c in self.trainer.lr_scheduler_configs],
            "step": self.trainer.global_step,
            "best": (self.monitor.best, self.monitor.best_step) if self.monitor else None,
        }

    @torch.no_grad()
    def predictions(self) -> dict[str, torch.Tensor]:
        self.learner.eval()
        x = self.learner.data.val.inputs(torch.arange(len(self.learner.data.val)))
        found = {"features": self.learner.exported()(x)}
        for name, objective in self.learner.objectives.items():
            for kind in ("predict", "ema_predict", "complete"):
                if getattr(objective, kind) is not None:
                    found[f"{name} {kind}"] = getattr(objective, kind)(self.learner.encoder, x)
        return found


class Watch(pl.Callback):
    """Notes losses and gradients, and sees to it that each step gets the batch of its own place."""

    def __init__(self, gradients: bool):
        self.losses, self.gradients, self.wanted = [], [], gradients

    def on_train_batch_start(self, trainer, learner, plan, batch_idx):
        place, wanted = (plan.epoch, plan.step), (trainer.current_epoch, batch_idx)
        assert place == wanted, f"step {wanted} got the batch of {place}"

    def on_train_batch_end(self, trainer, learner, outputs, plan, batch_idx):
        # Lightning reports a loss divided by the number of accumulated batches
        self.losses.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)

    def on_before_optimizer_step(self, trainer, learner, optimizer):
        if self.wanted:
            named = learner.named_parameters()
            self.gradients.append({k: p.grad.numpy(force=True).copy() for k, p in named if p.grad is not None})


class Killed(Exception):
    """Stands for a process that ends without a word."""


class End(pl.Callback):
    """Ends training at the micro-batch `at` (from 0): by Ctrl-C during it, or dead before anything is saved of it."""

    def __init__(self, at: int, how: str):
        self.left, self.how = at, how

    def on_train_batch_start(self, *_):
        if self.left == 0 and self.how == "stop":
            os.kill(os.getpid(), signal.SIGINT)

    def on_train_batch_end(self, *_):
        if self.left == 0 and self.how == "kill":
            raise Killed
        self.left -= 1


def device(precision: str = "fp32", world: int = 1) -> Device:
    return Device("cpu", world, 1, 1, precision)


def train(
    arguments: Sequence[str],
    on: Device,
    *,
    epochs: int = 1,
    steps: int | None = None,
    accumulate: int = 1,
    folder: Path | None = None,
    end: End | None = None,
    resume: bool = False,
    gradients: bool = False,
    without_dropout: bool = False,
) -> Trained:
    """Trains as `sslrun.run` does; with a folder, checkpoints are kept there after every step."""
    cfg, parts = built(arguments)
    learner = Learner(parts.encoder, parts.objectives, parts.data, parts.weights)
    for module in learner.modules():
        if without_dropout and isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    loader = loader_for(parts.data, parts.objectives, cfg.batch_size, cfg.mu, on)
    plan = Plan.of(loader, epochs, steps, accumulate)
    node = OmegaConf.to_container(cfg.optimizer)
    cycles = max(o.cycles for o in parts.objectives.values())
    learner.optimizer_factory, _ = optimizer_factory(node, cfg.lr, cfg.batch_size * accumulate, plan.steps, cycles)
    learner.prepare(loader.first())
    watch = Watch(gradients)
    callbacks: list[pl.Callback] = [watch] if end is None else [watch, end]
    if folder is None:
        trainer = fit(learner, plan, on, callbacks=callbacks)
        return Trained(learner, trainer, None, watch.losses, watch.gradients)
    run = RunFolder(folder)
    look = Look(parts.data, on)
    monitor = Monitor(run, look, Curves(run, plan.steps), 3, *look.primary(learner))
    keeper = Keeper(run, every=0)
    checkpoint = run / "checkpoints/last.ckpt" if resume else None
    with keeper.listening():
        trainer = fit(learner, plan, on, callbacks=[*callbacks, monitor, keeper], checkpoint=checkpoint)
    return Trained(learner, trainer, monitor, watch.losses, watch.gradients)


def summary(arguments: Sequence[str], world: int, **settings: Any) -> dict[str, Any]:
    """Losses, gradients and whole state of a training run in float64, as arrays that travel between processes."""
    torch.set_num_threads(1)
    done = train(arguments, device("fp64", world), gradients=True, without_dropout=True, **settings)
    state = {k: v.numpy(force=True) for k, v in done.learner.state_dict().items()}
    for optimizer in done.trainer.optimizers:
        for i, values in optimizer.state_dict().get("state", {}).items():  # nothing where nothing is trained
            state |= {f"optimizer {i} {k}": v.numpy(force=True) for k, v in values.items() if torch.is_tensor(v)}
    return {"losses": done.losses, "gradients": done.gradients, "state": state, "steps": done.trainer.global_step}
