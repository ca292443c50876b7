"""Networks trained on labels alone: the supervised row that every method has to beat, and fine-tuning."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl
import torch

from sslrun import __version__
from sslrun.build import make, optimizer_factory
from sslrun.contracts import Encoder, Objective
from sslrun.data.loader import Loader
from sslrun.data.module import Data
from sslrun.device import Device
from sslrun.evaluate.judge import Judge
from sslrun.evaluate.scores import scores
from sslrun.fit import Plan, fit
from sslrun.learner import Learner
from sslrun.record.bar import Progress
from sslrun.record.folder import exclusive, write_atomically
from sslrun.rng import seed_of

UNTRAINED_STEPS = 600  # of supervised references and fine-tuning, where the run trains nothing and steps= is not given


@dataclass
class Tuned:
    """A network trained on labels alone, and the objective whose head reads it."""

    encoder: Encoder
    objective: Objective

    def eval(self) -> Tuned:
        self.encoder.eval()
        self.objective.eval()
        return self


@dataclass
class Supervision:
    """Trains the supervised reference, or fine-tunes a copy of an encoder, on n labels with the run's own means."""

    node: Mapping[str, Any]
    data: Data
    device: Device
    steps: int
    seed: int
    clip: float | None = None
    callbacks: Callable[[str, int], list[pl.Callback]] = field(default=lambda title, steps: [])

    def train(self, encoder: Encoder, labels: int | None, title: str, lr: float | None = None) -> Tuned:
        """`encoder` is trained in place, with a fresh head."""
        data = self.data.with_labels(labels)
        encoder.requires_grad_(True)
        torch.manual_seed(seed_of(self.seed, "supervision"))
        objective = make(self.node["objective"], "supervision.objective", encoder, data.spec)
        objectives = {"supervised": objective}
        single = Device(self.device.accelerator, 1, 1, self.device.threads, self.device.precision)
        loader = Loader(data, objective.streams, min(self.node["batch_size"], len(data.train)), 1)
        plan = Plan.of(loader, 0, self.steps)
        factory, _ = optimizer_factory(self.node["optimizer"], lr, self.node["batch_size"], self.steps)
        learner = Learner(encoder, objectives, data, optimizer=factory)
        learner.prepare()
        fit(learner, plan, single, clip=self.clip, callbacks=self.callbacks(title, self.steps))
        return Tuned(encoder, objective).eval()


def supervision_of(experiment: Any) -> Supervision | None:
    """How this run trains on labels; None where the data has none to train on."""
    data = experiment.built.data
    if not len(data.sequence) or data.spec.num_classes < 2 or data.spec.normal:
        return None
    steps = experiment.plan.steps if experiment.plan else experiment.cfg.steps or UNTRAINED_STEPS
    return Supervision(
        experiment.plain["supervision"], data, experiment.device, steps, experiment.cfg.seed, experiment.cfg.clip,
        lambda title, steps: [Progress(title, steps)],
    )  # fmt: skip


def tuner(supervision: Supervision, judge: Judge, encoder: Any) -> Callable[[int | None], torch.Tensor]:
    """`n -> probabilities` (N, K) for the test rows, of a copy of the encoder trained on with n labels."""

    def tune(n: int | None) -> torch.Tensor:
        network = supervision.train(copy.deepcopy(encoder), n, f"fine-tuning, {n or 'all'} labels")
        return judge.probabilities(lambda x: network.objective.predict(network.encoder, x), judge.parts["test"])

    return tune


def reference(
    experiment: Any, supervision: Supervision, judge: Judge, budgets: list[int | None], used: bool
) -> dict[str, float]:
    """Metrics of one network for each budget (None: all labels): its own predictions, and probes of its features.

    `used` says that the run's method itself trained on that budget, so that its metrics carry no `@n`.
    """
    found: dict[str, float] = {}
    for n in budgets:
        network = _cached(experiment, supervision, n)
        at = "" if n is None or used else f"@{n}"
        test = judge.parts["test"]
        p = judge.probabilities(lambda x, net=network: net.objective.predict(net.encoder, x), test)
        own = scores(p.argmax(1), test.labels, judge.spec.num_classes)
        found |= {f"classify{at}/{k}": v for k, v in own.items()}
        if n is None:
            found |= {k: v for k, v in judge.score("supervised", judge.splits(network.encoder)).items() if "@" not in k}
        else:
            found |= judge.within("supervised", network.encoder, n, judge.data.with_labels(n).labelled)
    return found


def _cached(experiment: Any, supervision: Supervision, n: int | None) -> Tuned:
    """A reference network, from the cache that runs share where one of the same definition was trained before."""
    plain, data = experiment.plain, experiment.built.data
    what = [
        data.fingerprint, data.splits()["parts"], n, experiment.built.encoder_config, plain["augmentation"],
        plain["supervision"], supervision.steps, plain["seed"], plain["clip"], __version__, torch.__version__,
        experiment.device.threads, experiment.device.precision,
        data.train.index[data.sequence[: n or len(data.sequence)]].tolist() if n else None,
    ]  # fmt: skip
    key = hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()[:24]
    folder = experiment.folder.path
    root = next((p for p in folder.parents if p.name == "outputs"), folder.parent) / ".cache" / "supervised"
    path = root / f"{key}.pt"
    with exclusive(path.with_suffix(".lock")):  # of the jobs of a sweep, one trains and the others wait for it
        encoder = copy.deepcopy(experiment.random_encoder())
        if path.exists():
            objective = make(plain["supervision"]["objective"], "supervision.objective", encoder, data.spec)
            state = torch.load(path, map_location="cpu", weights_only=True)
            encoder.load_state_dict(state["encoder"])
            objective.load_state_dict(state["objective"])
            device = experiment.device.torch
            return Tuned(encoder.to(device), objective.to(device)).eval()
        network = supervision.train(encoder, n, f"supervised reference, {n or 'all'} labels")
        buffer = io.BytesIO()
        torch.save({"encoder": encoder.state_dict(), "objective": network.objective.state_dict()}, buffer)
        write_atomically(path, buffer.getvalue())
    network.encoder.to(experiment.device.torch)
    network.objective.to(experiment.device.torch)
    return network
