"""One experiment: build, fit, evaluate, record. Raises; never exits."""

from __future__ import annotations

import contextlib
import copy
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from sslrun import device as devices
from sslrun import outcome, pictures
from sslrun.advice import Advice
from sslrun.build import Built, build, build_encoder, optimizer_factory, resolved
from sslrun.compose import Runnable
from sslrun.evaluate.judge import blind
from sslrun.fit import Plan, fit, loader_for, seconds
from sslrun.forecast import forecast
from sslrun.learner import Learner
from sslrun.look import Look
from sslrun.predictions import stepwise
from sslrun.record import origin, summary
from sslrun.record.bar import Progress
from sslrun.record.callbacks import Curves, Keeper, Monitor, newest_checkpoint
from sslrun.record.folder import RunFolder, write_json
from sslrun.record.gallery import Gallery
from sslrun.record.tail import Tail


def run(cfg: DictConfig, folder: Path | str, overrides: Sequence[str] = (), resume: bool = False) -> dict[str, Any]:
    """Runs one experiment in its folder and returns what metrics.json holds (nothing on ranks above 0).

    Raises:
        UserError: the configuration cannot work, or the run ended early; the folder says so in status.json.
    """
    folder = RunFolder(folder)
    first = devices.rank() == 0
    if first:
        folder.claim()
    try:
        cfg = resolved(cfg, overrides)
        device = devices.resolve(cfg)
        if first:
            folder.set_status("running")
            origin.keep(folder, OmegaConf.to_container(cfg))
        if device.world > 1 and not devices.is_launched():
            with devices.ranks(device.world, [str(folder.path), *(["resume"] if resume else [])]):
                experiment = Experiment(cfg, folder, device)
                experiment.fit(resume)
        else:
            experiment = Experiment(cfg, folder, device)
            experiment.fit(resume)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        if not first:
            return {}
        metrics = experiment.conclude()
        folder.set_status(metrics["status"])
        return metrics
    except BaseException as error:
        if first:
            interrupted = isinstance(error, KeyboardInterrupt)
            reason = "interrupted; `sslrun resume` goes on" if interrupted else f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):  # a full disk: the error itself says so
                folder.set_status("interrupted" if interrupted else "failed", reason)
        raise
    finally:
        folder.release()


class Experiment:
    """The objects of one run, and its three acts: fit, evaluate, record."""

    def __init__(self, cfg: DictConfig, folder: RunFolder, device: devices.Device):
        self.cfg, self.folder, self.device = cfg, folder, device
        device.limit_threads()
        self.began = time.perf_counter()
        self.built: Built = build(cfg)
        self.plain = OmegaConf.to_container(cfg)
        self.untrained = copy.deepcopy(self.built.encoder) if cfg.weights is None else None
        self.plan: Plan | None = None
        self.lr: float | None = None
        self.curves: Curves | None = None
        self.monitor: Monitor | None = None
        self.tail: Tail | None = None
        self.advice: Advice | None = None
        self.gallery: Gallery | None = None  # on rank 0
        self.steps_done = 0

    def fit(self, resume: bool) -> None:
        """Trains; leaves checkpoints, curves and the learner in eval mode."""
        built, cfg = self.built, self.cfg
        self.learner = Learner(built.encoder, built.objectives, built.data, built.weights)
        if devices.rank() == 0:
            write_json(self.folder / "splits.json", built.data.splits())
        checkpoint = newest_checkpoint(self.folder) if resume else None
        if devices.rank() == 0:
            self.gallery = Gallery(self.folder, outcome.logger(self.plain["logger"], self.folder, checkpoint))
        if not built.objectives:
            self.learner.eval()
            summary.show(self)
            return
        loader = loader_for(built.data, built.objectives, cfg.batch_size, cfg.mu, self.device)
        self.plan = Plan.of(loader, cfg.epochs, cfg.steps, cfg.accumulate)
        size = cfg.batch_size * cfg.accumulate
        cycles = max(o.cycles for o in built.objectives.values())
        self.learner.optimizer_factory, self.lr = optimizer_factory(
            self.plain["optimizer"], cfg.lr, size, self.plan.steps, cycles
        )
        self.learner.prepare(loader.first())
        if cfg.compile:
            built.encoder.compile()
        self.curves = Curves(self.folder, self.plan.steps, self.gallery and self.gallery.logger)
        keeper = Keeper(self.folder, cfg.save_every, seconds(cfg.max_time))
        self.look = look = Look(built.data, self.device, blind(built.evaluators))
        self.monitor = Monitor(self.folder, look, self.curves, cfg.eval.looks, *look.primary(self.learner), self._draw)
        self.tail = Tail(self.folder, self.plan.steps if stepwise(built.objectives.values()) else 0)
        if checkpoint:
            self.curves.forget_after(outcome.step_of(checkpoint))
        if devices.rank() == 0:
            pictures.views(self.learner, self.gallery)
            summary.show(self, forecast(self.learner, loader, self.plan.steps, cfg.accumulate, self.device))
        progress = Progress("+".join(built.objectives), self.plan.steps, self.folder)
        self.advice = Advice(look, len(loader), self.plan.steps, progress.say)
        callbacks = [self.curves, self.monitor, self.tail, progress, self.advice, keeper]
        with keeper.listening():
            trainer = fit(
                self.learner, self.plan, self.device, clip=cfg.clip, callbacks=callbacks, checkpoint=checkpoint
            )
        self.steps_done = trainer.global_step
        if keeper.interrupted:
            raise KeyboardInterrupt
        self.learner.refuse_nan()
        self.learner.eval()

    def _draw(self, learner: Learner, step: int) -> None:
        pictures.tasks(learner, self.gallery, step)
        pictures.beliefs(self.look.beliefs, self.gallery, learner.data.spec, step)

    def random_encoder(self) -> Any:
        """The same encoder with the same first weights, untrained (also where the run started from others)."""
        if self.untrained is None:
            cfg = copy.deepcopy(self.cfg)
            cfg.encoder, cfg.weights = self.built.encoder_config, None
            return build_encoder(cfg, self.built.data)[0]
        return self.untrained

    def conclude(self) -> dict[str, Any]:
        """Evaluates, writes everything into the folder and shows the table."""
        return outcome.conclude(self)


sys.modules[__name__].__class__ = Runnable
