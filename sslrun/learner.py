"""The one LightningModule: an encoder, its objectives, the optimiser, and what a step logs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from sslrun.contracts import Encoder, Objective, UserError
from sslrun.data.module import Data
from sslrun.data.plan import Plan
from sslrun.nn.modes import untracked
from sslrun.nn.optim import cycle_of
from sslrun.rng import seed_of
from sslrun.streams import as_seen_by, classifies, views_of

CHECK_EVERY = 50  # steps between looks at a device-side flag for a loss that is not a number


class Learner(pl.LightningModule):
    """Sums the objectives' losses and trains the encoder with them.

    `weights` are the users' weights; `optimizer` is `parameter groups -> (optimiser, step -> factor)`, called once.
    """

    def __init__(
        self,
        encoder: Encoder,
        objectives: dict[str, Objective],
        data: Data,
        weights: dict[str, float] | None = None,
        optimizer: Callable[..., Any] | None = None,
    ):
        super().__init__()
        self.encoder, self.objectives, self.data = encoder, nn.ModuleDict(objectives), data
        self.weights, self.optimizer_factory = weights or {}, optimizer
        self.register_buffer("scales", torch.ones(len(objectives)))  # trivial losses, so that weights mean something
        self.classifiers = {name for name, o in objectives.items() if classifies(o)}
        self.register_buffer("bad_step", torch.tensor(-1), persistent=False)
        self.views = views_of(objectives.values())
        self.scalars: dict[str, Tensor] = {}
        self.began = self.left = time.perf_counter()  # of the step under way, and of the one before
        self.samples = 0  # of this step, over all processes
        if not any(o.trains for o in objectives.values()):
            encoder.requires_grad_(False)

    def prepare(self, plans: Sequence[Plan] = ()) -> None:
        """Lets objectives learn their statistics from the training part; several are scaled by these global steps."""
        for objective in self.objectives.values():
            objective.prepare(self.data, self.encoder)
        found: dict[int, list[Tensor]] = {}
        for plan in plans if len(self.objectives) > 1 else ():
            batch = self.data.batch(plan, self.data.train, self.views, "cpu")
            for i, objective in enumerate(self.objectives.values()):
                loss = objective.trivial_loss(as_seen_by(objective, batch))
                if loss is not None:
                    found.setdefault(i, []).append(loss)
        for i, losses in found.items():
            self.scales[i] = torch.stack(losses).mean().clamp_min(1e-8)

    def weighted(self, losses: Mapping[str, Any]) -> Any:
        """What is minimised, of the losses by objective: the sum of those that are there, weighted and scaled."""
        scaled = zip(self.objectives, self.scales, strict=True)
        return sum(self.weights.get(name, 1.0) * losses[name] / scale for name, scale in scaled if name in losses)

    def called(self, name: str, key: str) -> str:
        """What a value of an objective is called in curves: several are told apart by their names."""
        return f"{name}/{key}" if len(self.objectives) > 1 else key

    def training_step(self, plan: Plan, _: int) -> Tensor:
        self.began, self.samples = time.perf_counter(), max(s.total for s in plan.streams.values())
        # Dropout and library layers draw from the global generator: reseed it, so that a step depends on its place.
        torch.manual_seed(seed_of(self.data.seed, "layers", plan.epoch, plan.step, self.global_rank))
        batch = self.data.batch(plan, self.data.train, self.views, self.device)
        found: dict[str, dict[str, Tensor]] = {}
        for name, objective in self.objectives.items():
            # a classifier is judged on whole pictures: tiles or turned ones must not move what normalises these
            aside = self.classifiers and name not in self.classifiers
            with untracked(self.encoder) if aside else contextlib.nullcontext():
                found[name] = objective(self.encoder, as_seen_by(objective, batch))
        zero = torch.zeros((), device=self.device, requires_grad=True)  # what trains nothing has no gradient
        total = zero + self.weighted({name: out["loss"] for name, out in found.items()})
        if self.encoder.aux_loss is not None:
            total = total + self.encoder.aux_loss
        shown = {self.called(name, key): value for name, out in found.items() for key, value in out.items()}
        shown.setdefault("loss", total)
        self.scalars.update({name: value.detach() for name, value in shown.items()})
        self._watch(total.detach())
        return total

    def transfer_batch_to_device(self, plan: Plan, *_: Any) -> Plan:
        return plan  # positions stay beside the tables that they index; `Data.batch` moves the samples

    def on_train_batch_end(self, *_: Any) -> None:
        self.left = time.perf_counter()

    def _watch(self, loss: Tensor) -> None:
        """Notes the first step whose loss is not finite, without making an accelerator wait at every step."""
        first = (self.bad_step < 0) & ~loss.isfinite()
        self.bad_step = torch.where(first, torch.full_like(self.bad_step, self.global_step), self.bad_step)
        if self.device.type == "cpu" or self.global_step % CHECK_EVERY == 0:
            self.refuse_nan()

    def refuse_nan(self) -> None:
        """Raises where a loss was not finite; checkpoints ask this before they are written."""
        if int(self.bad_step) >= 0:
            raise UserError(
                f"the loss became NaN or infinite at step {int(self.bad_step)}; what was saved before is kept: "
                "lower lr, set clip=1, or use precision=fp32."
            )

    def optimizer_step(self, epoch: int, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        step = self.global_step  # of this one, from 0
        super().optimizer_step(epoch, batch_idx, *args, **kwargs)
        for objective in self.objectives.values():
            objective.after_step(self.encoder)
            if cycle_of(step + 1, objective.horizon, objective.cycles)[1] == step + 1:
                self.trainer.optimizers[0].state.clear()  # moments of a network that is no more
            # here, since callbacks that save are called before the module's own hook of the epoch's end
            if batch_idx + 1 == self.trainer.num_training_batches:
                objective.after_epoch(self.encoder)
        self._stop_if_converged()

    def on_train_start(self) -> None:
        self._stop_if_converged()

    def _stop_if_converged(self) -> None:
        if self.objectives and all(o.converged() for o in self.objectives.values()):
            self.trainer.should_stop = True

    def configure_optimizers(self) -> Any:
        if not any(p.requires_grad for p in self.parameters()):
            return None
        optimizer, factor = self.optimizer_factory(self)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def exported(self) -> Encoder:
        """The network that is judged and saved."""
        for objective in self.objectives.values():
            network = objective.exported(self.encoder)
            if network is not self.encoder:
                return network
        return self.encoder
