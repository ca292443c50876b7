"""Checkpoints, signals and limits of time, through the trainer and in one process."""

from __future__ import annotations

import csv
import os
import signal

import lightning.pytorch as pl
import pytest
import torch

from sslrun.contracts import DataSpec, Objective
from sslrun.data.loader import Loader
from sslrun.data.module import Data
from sslrun.data.source import Part, Source
from sslrun.device import Device
from sslrun.encoders.mlp import Mlp
from sslrun.fit import Plan, fit, seconds
from sslrun.learner import Learner
from sslrun.nn.optim import sgd
from sslrun.record.callbacks import AtomicCheckpoints, Curves, Keeper, Monitor
from sslrun.record.folder import RunFolder


class Square(Objective):
    def forward(self, encoder, batch):
        return {"loss": encoder(batch["all"]["x"]).square().mean()}


class At(pl.Callback):
    """Does something during the micro-batch `step`."""

    def __init__(self, step, act):
        self.left, self.act = step, act

    def on_train_batch_start(self, *_):
        if self.left == 0:
            self.act()
        self.left -= 1


def train(folder, callbacks, keeper=None, epochs=3, accumulate=1):
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    source = Source(DataSpec("rows", "table", (4,), 2), Part(x, torch.arange(64) % 2), fingerprint="f")
    data = Data(source, seed=0, split_seed=0, val_fraction=0, test_fraction=0)
    encoder = Mlp(data.spec, (5,))
    learner = Learner(
        encoder,
        {"square": Square(encoder, data.spec)},
        data,
        optimizer=lambda m: (sgd(m, 0.01), lambda step: 1.0),
    )
    plan = Plan.of(Loader(data, ("all",), 8, 1), epochs, None, accumulate)
    keeper = keeper or Keeper(RunFolder(folder), every=0)
    with keeper.listening():
        return fit(learner, plan, Device("cpu", 1, 1, 1, "fp32"), callbacks=[*callbacks, keeper]), keeper


def saved_step(folder):
    return torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["global_step"]


def ask(number):
    return lambda: os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", (signal.SIGINT, signal.SIGTERM))
@pytest.mark.parametrize("step", (3, 7))
def test_a_signal_stops_after_the_step_and_saves(number, step, tmp_path):
    before = signal.getsignal(number)
    trainer, keeper = train(tmp_path, [At(step, ask(number))], Keeper(RunFolder(tmp_path), every=1000))
    assert keeper.interrupted and trainer.global_step == saved_step(tmp_path) == step + 1
    assert signal.getsignal(number) is before


def test_a_second_interrupt_acts_at_once_and_is_no_exit(tmp_path):
    def twice():
        ask(signal.SIGINT)()
        ask(signal.SIGINT)()

    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, [At(3, twice)])
    assert saved_step(tmp_path) == 3


def test_accumulated_gradients_are_not_left_behind(tmp_path):
    trainer, keeper = train(tmp_path, [At(2, ask(signal.SIGINT))], accumulate=2)
    assert keeper.interrupted and trainer.global_step == saved_step(tmp_path) == 2


def test_time_runs_out(tmp_path):
    trainer, keeper = train(tmp_path, [], Keeper(RunFolder(tmp_path), every=1000, max_seconds=0))
    assert keeper.timed_out and not keeper.interrupted and saved_step(tmp_path) == trainer.global_step == 1


def test_the_end_is_always_saved_and_status_names_the_step(tmp_path):
    train(tmp_path, [], Keeper(RunFolder(tmp_path), every=1000))
    assert saved_step(tmp_path) == 24
    assert RunFolder(tmp_path).status() | {"status": "running", "step": 24} == RunFolder(tmp_path).status()


def test_the_best_is_kept_by_its_metric_and_survives_in_the_checkpoint(tmp_path):
    values = iter((0.2, 0.7, 0.4))
    folder = RunFolder(tmp_path)
    curves = Curves(folder, 24)
    monitor = Monitor(folder, lambda learner: {"score": next(values)}, curves, 3, "score", True)
    train(tmp_path, [curves, monitor])
    assert (monitor.best, monitor.best_step) == (0.7, 16)
    best = torch.load(tmp_path / "checkpoints/best.ckpt", weights_only=True)
    assert best["global_step"] == 16
    last = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    assert last["callbacks"]["Monitor"] == {"best": 0.7, "best_step": 16}
    with open(tmp_path / "metrics.csv") as f:
        rows = [row for row in csv.reader(f) if row[2] == "score"]
    assert [(row[1], float(row[3])) for row in rows] == [("8", 0.2), ("16", 0.7), ("24", 0.4)]


def test_looks_are_spread_over_the_epochs(tmp_path):
    seen = []
    folder = RunFolder(tmp_path)
    for looks in (0, 2):
        monitor = Monitor(folder, lambda learner: seen.append(1) or {}, Curves(folder, 1), looks, "score", True)
        train(tmp_path, [monitor], epochs=6)
        assert len(seen) == looks


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpoints().save_checkpoint({"step": 1}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpoints().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_rows_that_a_resumed_run_will_write_again_are_dropped(tmp_path):
    folder = RunFolder(tmp_path)
    curves = Curves(folder, 10)
    for step in (1, 2, 3):
        curves.write({"train/loss": step / 10}, 0, step)
    with open(tmp_path / "metrics.csv", "a") as f:
        f.write("0,4,train/l")  # a kill in the middle of a row
    curves.forget_after(2)
    assert (tmp_path / "metrics.csv").read_text().split() == [
        "epoch,step,name,value", "0,1,train/loss,0.1", "0,2,train/loss,0.2"
    ]  # fmt: skip


def test_times():
    assert [seconds(t) for t in ("90s", "30m", "2h", "1.5h", "01:30:00", "5:00", None)] == [
        90, 1800, 7200, 5400, 5400, 300, None
    ]  # fmt: skip
    with pytest.raises(ValueError, match="max_time=soon is not a time"):
        seconds("soon")
