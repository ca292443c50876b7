"""Runs that end in the middle, by real signals through the command line, and what `sslrun resume` makes of them."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

LEAN = ["eval=knn", "reference=null", "logger=none", "device.threads=1", "save_every=0.05"]
RUNS = {  # each trains for some seconds, over several epochs
    "simclr": ["method=simclr", "epochs=16", "batch_size=64"],
    "kmeans": ["method=kmeans", "batch_size=8"],
    "fixmatch": ["method=fixmatch", "labels=40", "epochs=16", "batch_size=16"],
    "rotation": ["method=rotation", "epochs=12", "batch_size=64"],
    "ddp": ["method=simclr", "epochs=4", "batch_size=64", "optimizer=sgd", "precision=fp64", "device=ddp_cpu"],
}
PATIENCE = 150


class Run:
    """`python -m sslrun ...` in a folder of its own."""

    def __init__(self, cwd: Path, arguments: list[str], name: str):
        self.folder, self.log = cwd / name, cwd / f"{name}.{time.monotonic_ns()}.log"
        with open(self.log, "w") as log:
            command = [sys.executable, "-m", "sslrun", *arguments]
            self.process = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=log)

    def wait(self) -> int:
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def finish(self) -> Run:
        assert self.wait() == 0, self.log.read_text()
        return self

    def training(self, delay: float) -> Run:
        """Waits for the first checkpoint and some seconds more."""
        deadline = time.monotonic() + PATIENCE
        while not (self.folder / "checkpoints/last.ckpt").exists():
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        time.sleep(delay)
        return self

    def status(self) -> dict:
        return json.loads((self.folder / "status.json").read_text())

    def metrics(self) -> dict:
        return json.loads((self.folder / "metrics.json").read_text())

    def curves(self) -> list[list[str]]:
        with open(self.folder / "metrics.csv", newline="") as f:
            return [row for row in csv.reader(f) if not row[2].startswith("speed/")]


def start(cwd: Path, kind: str, name: str) -> Run:
    return Run(cwd, [*RUNS[kind], *LEAN, f"hydra.run.dir={name}"], name)


def resume(cwd: Path, name: str, *more: str) -> Run:
    return Run(cwd, ["resume", name, *more], name)


def assert_identical(again: Run, whole: Run) -> None:
    assert again.status()["status"] == whole.status()["status"] == "finished"
    assert again.metrics()["results"] == whole.metrics()["results"]
    assert again.metrics()["steps"] == whole.metrics()["steps"]
    ours, theirs = (load_file(run.folder / "encoder/model.safetensors") for run in (again, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert again.curves() == whole.curves()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of a kind that nothing disturbed, made once; it may still be running."""
    made: dict[str, Run] = {}

    def get(kind: str) -> Run:
        if kind not in made:
            made[kind] = start(tmp_path_factory.mktemp(kind), kind, "whole")
        return made[kind]

    yield get
    for run in made.values():
        run.process.kill()
        run.process.wait()


@pytest.mark.parametrize(
    "kind", ["simclr", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("kmeans", "fixmatch", "rotation"))]
)
def test_killed_and_resumed_is_as_if_nothing_had_happened(kind, whole, tmp_path):
    undisturbed = whole(kind)  # at the same time, on the other core
    delay = random.uniform(0, 1)
    run = start(tmp_path, kind, "run").training(delay)
    run.process.kill()
    assert run.wait() == -signal.SIGKILL, f"over before {delay} s"
    assert run.status()["status"] == "running" and not (run.folder / "metrics.json").exists()
    again = resume(tmp_path, "run").finish()
    undisturbed.finish()
    if kind == "kmeans":
        assert (again.folder / "predictions.csv").read_text() == (undisturbed.folder / "predictions.csv").read_text()
    assert_identical(again, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_interrupted_run_says_so_and_goes_on(number, whole, tmp_path):
    run = start(tmp_path, "simclr", "run").training(random.uniform(0, 0.5))
    run.process.send_signal(number)
    assert run.wait() == 130
    said = run.log.read_text()
    assert "Traceback" not in said and said.rstrip().splitlines()[-1].startswith("sslrun: interrupted")
    assert run.status()["status"] == "interrupted" and (run.folder / "checkpoints/last.ckpt").exists()
    again = resume(tmp_path, "run").finish()
    assert_identical(again, whole("simclr").finish())


def test_finished_run_goes_further(whole, tmp_path):
    undisturbed = whole("simclr").finish()
    shutil.copytree(undisturbed.folder, tmp_path / "run")
    before = undisturbed.metrics()["steps"]
    refused = resume(tmp_path, "run")
    assert refused.wait() == 1 and "finished at step" in refused.log.read_text()
    longer = resume(tmp_path, "run", "epochs=18").finish()
    assert longer.metrics()["steps"] == before * 18 // 16
    assert "epochs: 18\n" in (longer.folder / "config.yaml").read_text()  # what another resume goes by
    steps = [int(row[1]) for row in longer.curves() if row[2] == "train/loss"]
    assert steps == sorted(set(steps)) and steps[-1] == longer.metrics()["steps"]
    ours, theirs = (load_file(run.folder / "encoder/model.safetensors") for run in (longer, undisturbed))
    assert not all(torch.equal(ours[k], theirs[k]) for k in ours)


# Two processes


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_two_processes_train_as_one(whole, tmp_path):
    single = Run(tmp_path, [*RUNS["ddp"], *LEAN, "device=cpu", "device.threads=1", "hydra.run.dir=one"], "one")
    two = whole("ddp").finish()
    single.finish()
    assert two.metrics()["world"] == 2 and single.metrics()["world"] == 1
    beside = {path.name for path in two.folder.parent.iterdir() if path.is_dir()}
    assert beside <= {"whole", ".cache"}, "a further process left a folder"
    curves = [[(*row[1:3], float(row[3])) for row in run.curves()[1:] if int(row[1]) <= 40] for run in (two, single)]
    assert {"train/loss", "train/accuracy", "validation/loss"} <= {name for _, name, _ in curves[0]}
    for ours, theirs in zip(*curves, strict=True):
        assert ours[:2] == theirs[:2] and ours[2] == pytest.approx(theirs[2], rel=1e-3, abs=1e-4), theirs
    for subject, found in single.metrics()["results"].items():
        assert two.metrics()["results"][subject] == pytest.approx(found, abs=0.03)
    assert "Traceback" not in two.log.read_text()


def test_dead_process_ends_the_run_with_a_sentence(tmp_path):
    run = start(tmp_path, "ddp", "run").training(0.2)
    (other,) = children(run.process.pid)
    os.kill(other, signal.SIGKILL)
    assert run.wait() == 1
    said = run.log.read_text()
    assert "rank 1 of 2 stopped" in said.rstrip().splitlines()[-1] and "Traceback" not in said
    assert run.status()["status"] == "failed" and "rank 1" in run.status()["reason"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_two_processes_resume(number, whole, tmp_path):
    run = start(tmp_path, "ddp", "run").training(random.uniform(0, 1))
    (other,) = children(run.process.pid)
    run.process.send_signal(number)
    assert run.wait() == {signal.SIGKILL: -9, signal.SIGINT: 130}[number]
    deadline = time.monotonic() + 30
    while Path(f"/proc/{other}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{other}").exists(), "the other process outlives the run"
    again = resume(tmp_path, "run").finish()
    assert_identical(again, whole("ddp").finish())
