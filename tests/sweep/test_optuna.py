"""The search by optuna: with jobs that only pretend, and through the command line with real ones."""

from __future__ import annotations

import contextlib
import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sslrun.compose import composer
from sslrun.record.folder import RunFolder
from sslrun.sweep.axes import Axis
from sslrun.sweep.drive import Driver
from sslrun.sweep.optuna import Optuna
from sslrun.sweep.study import Planner, Study

optuna = pytest.importorskip("optuna")

LR = Axis("lr", low=1e-4, high=1.0, log=True)
WIDTH = Axis("encoder.width", low=8, high=64, whole=True)
KIND = Axis("optimizer", ("adamw", "sgd"))
METRIC = {"metric": "validation/knn_accuracy", "larger": True}
CURVE = (0.5, 0.8, 1.0, 0.9)  # the share of its height at the end of each epoch; the best look is not the last


def height(job):
    """What a job reaches: a hill over lr."""
    return 1 / (1 + abs(job.plain["lr"] - 0.01) * 10)


class Worker:
    """A job that writes one look each time it is asked whether it lives."""

    def __init__(self, job, judged, fails):
        self.job, self.folder, self.fails, self.epoch, self.ended = job, RunFolder(job.folder), fails, 0, False
        self.folder.path.mkdir(exist_ok=True)
        self.folder.set_status("running", judged=judged)
        self.metric = judged["metric"]
        (job.folder / "metrics.csv").write_text("epoch,step,name,value\n")

    def alive(self):
        if self.ended or self.fails:
            if self.fails:
                self.folder.set_status("failed", "no memory")
            return False
        value = height(self.job) * CURVE[self.epoch]
        with open(self.job.folder / "metrics.csv", "a") as f:
            for name, number in (("train/loss", 9), (self.metric, value)):
                f.write(f"{self.epoch},{7 * self.epoch},{name},{number:.6g}\n")
        self.epoch += 1
        if self.epoch == len(CURVE):
            results = {"trained": {"knn/accuracy": 1 - height(self.job)}}  # a test that says the opposite
            told = {"status": "finished", "primary": "knn/accuracy", "results": results, "wall_s": 1.0}
            (self.job.folder / "metrics.json").write_text(json.dumps(told))
            self.folder.set_status("finished")
            self.ended = True
        return not self.ended

    def interrupt(self):
        self.folder.set_status("interrupted")
        self.ended = True

    kill = interrupt

    def ending(self):
        return "ended"


class Killed(Exception):
    """The driver's process is gone."""


class Launcher:
    def __init__(self, slots=1, judged=METRIC, dies=None, fails=()):
        self.slots, self.judged, self.dies, self.fails, self.started, self.polls = slots, judged, dies, fails, [], 0

    def start(self, job):
        self.started.append(job.plain["lr"])
        return Worker(job, self.judged, len(self.started) in self.fails)

    def wait(self, workers, seconds):
        self.polls += 1
        pruning = any(worker.ended and worker.epoch < len(CURVE) for worker in workers)
        if self.polls == self.dies or (self.dies == "pruning" and pruning):
            for worker in workers:
                worker.interrupt = worker.kill = lambda: None
            raise Killed

    def ended(self, worker):
        pass


@pytest.fixture
def search(tmp_path):
    """`search(launcher, axes, ...)` runs a search, or goes on with it; returns its rows and optuna's study."""
    with composer() as composed:

        def run(launcher, *axes, name="study", **settings):
            mine = Optuna(**{"trials": 9, "pruner": "none", **settings})
            study = Study(tmp_path / name, "sslrun -m", {"axes": {}, "fixed": {}, "search": {}})
            points = mine.points(axes)
            study.claim()
            try:
                fixed = ["data=digits", "method=simclr", "epochs=4"]
                mine.open(points, Planner(composed, fixed, threads=1, precision="fp32"), study)
                rows = Driver(study.jobs, launcher, False, mine).run()
            finally:
                study.release()
            run.best = mine.best()
            return rows, stored(tmp_path / name)

        yield run


def stored(folder):
    return optuna.load_study(study_name="sweep", storage=f"sqlite:///{folder / 'optuna.db'}")


def params(store):
    return [t.params for t in store.trials if len(t.params) > 0]


def states(store):
    return [t.state.name for t in store.trials]


def test_is_told_what_the_validation_part_says(search):
    rows, store = search(Launcher(), LR, WIDTH, KIND, trials=25)
    assert len(rows) == 25 and {row.state for row in rows} == {"finished"}
    assert store.direction.name == "MAXIMIZE"
    for row, trial in zip(rows, store.trials, strict=True):
        assert trial.value == pytest.approx(height(row.job) * CURVE[-1], rel=1e-4)
        assert row.job.plain["lr"] == pytest.approx(trial.params["lr"], rel=1e-5)
        assert row.job.plain["encoder"]["width"] == trial.params["encoder.width"]
        assert list(trial.intermediate_values) == list(range(len(CURVE)))
    best = max(rows, key=lambda row: height(row.job))
    assert search.best[0].startswith(f"{best.job.name}: validation/knn_accuracy 0.") and len(search.best[1]) == 3
    early, late = ([height(row.job) for row in part] for part in (rows[:8], rows[-8:]))
    assert sum(late) > sum(early), "it learns where the hill is"


def test_a_loss_is_minimised(search):
    rows, store = search(Launcher(judged={"metric": "validation/loss", "larger": False}), LR)
    assert store.direction.name == "MINIMIZE"
    assert search.best[0].startswith(min(rows, key=lambda row: height(row.job)).job.name)


@pytest.mark.parametrize("pruner", ["none", "median"])
def test_a_killed_driver_leaves_no_trace(pruner, search, tmp_path):
    rows, whole = search(Launcher(), LR, WIDTH, name="whole", pruner=pruner)
    assert ("PRUNED" in states(whole)) == (pruner == "median")
    started = []
    for dies in (1, 2, 9, 3, "pruning", 2, 7, None):
        launcher = Launcher(dies=dies)
        with contextlib.suppress(Killed):
            search(launcher, LR, WIDTH, name="again", pruner=pruner)
        started += launcher.started
    again = stored(tmp_path / "again")
    assert params(again) == params(whole) and states(again) == states(whole)
    assert [t.value for t in again.trials] == [t.value for t in whole.trials]
    assert list(dict.fromkeys(started)) == [row.job.plain["lr"] for row in rows], "in their order"
    assert len(started) <= 9 + 6, "only the one that ran is started again"
    folders = [json.loads((tmp_path / name / "sweep.json").read_text())["jobs"] for name in ("whole", "again")]
    assert folders[0] == folders[1]


def test_pruned_trials_stay_so(search, tmp_path):
    rows, store = search(Launcher(), LR, trials=20, pruner="median")
    pruned = [row for row in rows if row.state == "pruned"]
    assert len(pruned) > 2 and states(store).count("PRUNED") == len(pruned)
    assert "pruned" in RunFolder(pruned[0].job.folder).status()["reason"]
    good = [height(row.job) for row in rows if row.state == "finished"]
    assert max(good) > max(height(row.job) for row in pruned)
    launcher = Launcher()
    again, after = search(launcher, LR, trials=20, pruner="median")
    assert launcher.started == [] and [r.state for r in again] == [r.state for r in rows]
    assert states(after) == states(store)
    more, after = search(launcher, LR, trials=22, pruner="median")
    assert len(launcher.started) == 2 and len(after.trials) == 22, "a larger number goes further"


def test_failed_trials_are_tried_again(search):
    rows, store = search(Launcher(fails=(1, 4)), LR)
    assert [row.state for row in rows].count("failed") == 2
    assert [s for s in states(store) if s != "COMPLETE"] == ["RUNNING"] * 1 + ["RUNNING"]
    launcher = Launcher()
    rows, store = search(launcher, LR)
    assert len(launcher.started) == 2 and states(store) == ["COMPLETE"] * 9


def test_combinations_are_run_once(search):
    launcher = Launcher()
    rows, store = search(launcher, Axis("lr", ("0.1", "0.01")), KIND, trials=12)
    assert len(launcher.started) == len(rows) <= 4 and states(store) == ["COMPLETE"] * 12
    values = {tuple(t.params.values()): t.value for t in store.trials}
    assert all(t.value == values[tuple(t.params.values())] for t in store.trials)


def test_half_asked_trials_are_dropped(search, tmp_path):
    _, whole = search(Launcher(), LR, WIDTH, name="whole")
    search(Launcher(), LR, WIDTH, trials=5)
    half = stored(tmp_path / "study").ask({"lr": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)})
    rows, store = search(Launcher(), LR, WIDTH)
    assert states(store)[half.number] == "FAIL" and len(rows) == 9
    assert [t.params for t in store.trials if t.number != half.number] == params(whole)


def test_several_at_a_time(search):
    rows, store = search(Launcher(slots=3), LR, WIDTH, trials=14)
    assert states(store) == ["COMPLETE"] * 14 and len({row.job.name for row in rows}) == 14


# Through the command line

TINY = ["method=simclr", "seed=0", "encoder.width=8", "eval=[knn]", "reference=null", "logger=none", "precision=fp32"]
TINY += ["device.threads=1", "launcher.jobs=1"]
SEARCH = ["-m", "sweep=optuna", "lr=tag(log,interval(1e-4,1e-1))", "method.simclr.temperature=interval(0.1,0.5)", *TINY]


def test_a_search_from_end_to_end(command):
    argv = [*SEARCH, "steps=4", "sweep.name=mine", "sweep.trials=2"]
    said = command(*argv)
    assert said.status == 0, said.err
    folder = Path("outputs/sweeps/mine")
    store = stored(folder)
    for path in folder.glob("*/metrics.json"):
        metrics = json.loads(path.read_text())
        seen = metrics["validation"]
        assert seen["metric"] == "validation/knn_accuracy" and seen["larger"] and seen["step"] > 0
        with open(path.parent / "metrics.csv", newline="") as f:
            looks = [float(row[3]) for row in csv.reader(f) if row[2] == seen["metric"]]
        assert seen["best"] == pytest.approx(max(looks), abs=1e-5)
        (trial,) = [t for t in store.trials if f"{t.params['lr']:.6g}" in path.parent.name]
        assert trial.value == looks[-1]
    name = max(store.trials, key=lambda t: t.value).params["lr"]
    assert f"best     lr-{name:.6g}_" in said.out and "command  sslrun method=simclr seed=0 " in said.out
    assert "sweep" not in said.out[said.out.index("command  ") :]
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/metrics.json")}
    again = command(*argv[:-1], "sweep.trials=3")
    assert again.status == 0 and len(stored(folder).trials) == 3 and "[3/3]" in again.err
    assert before.items() <= {p: p.stat().st_mtime_ns for p in folder.glob("*/metrics.json")}.items()


@pytest.mark.slow
def test_the_same_command_goes_on(command, own_place):
    argv = [*SEARCH, "epochs=4", "batch_size=64", "save_every=0.05", "sweep.trials=3"]
    with open("log", "w") as log:
        line = [sys.executable, "-m", "sslrun", *argv, "sweep.name=ended"]
        process = subprocess.Popen(line, stdout=log, stderr=log)
    folder, deadline = Path("outputs/sweeps/ended"), time.monotonic() + 100
    while len(list(folder.glob("*/checkpoints/last.ckpt"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline, Path("log").read_text()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = {p: p.stat().st_mtime_ns for p in folder.glob("*/metrics.json")}
    assert len(done) == 1 and states(stored(folder)) == ["COMPLETE", "RUNNING"]
    assert command(*argv, "sweep.name=ended").status == 0
    assert command(*argv, "sweep.name=whole").status == 0
    ended, whole = stored(folder), stored(folder.parent / "whole")
    assert params(ended) == params(whole) and [t.value for t in ended.trials] == [t.value for t in whole.trials]
    assert all(p.stat().st_mtime_ns == t for p, t in done.items())
    assert sorted(p.read_text().count("folder  ") for p in folder.glob("*/log.txt")) == [1, 1, 2]


def test_what_cannot_work_is_said_before_anything_runs(command, monkeypatch):
    for argv, word in (
        (["lr=0.1,0.2", "seed=0,1,2"], "seed=0,1,2 cannot be searched"),
        (["lr=0.1"], "nothing to search"),
        (["lr=0.1,0.2", "sweep.pruner=mean"], "sweep.pruner=mean is unknown; choose one of median, none"),
        (["lr=0.1,0.2", "sweep.trials=0"], "sweep.trials=0 does not work"),
        (["lr=0.1,0.2", "sweep.trials=2000"], "say sweep.limit=2000"),
        (["lr=0.1,0.2", "eval.looks=0"], "eval.looks=0 never looks"),
        (["lr=0.1,0.2", "labels=-4"], "labels=-4 does not work"),
    ):
        said = command("-m", "sweep=optuna", *argv)
        assert said.status == 1 and word in said.err and len(said.err.strip().splitlines()) == 1, said.err
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert "sweep=optuna needs the extra: pip install 'sslrun[optuna]'" in command("-m", "sweep=optuna", "lr=1,2").err
    assert not list(Path().glob("outputs/sweeps/*/*/status.json"))


def test_trials_that_cannot_be_compared_are_refused(command):
    argv = ["steps=2", "eval=[knn]", "reference=null", "logger=none", "launcher.jobs=1", "sweep.trials=2"]
    said = command("-m", "sweep=optuna", "method=simclr", "data.val_fraction=0,0.1", "sweep.pruner=none", *argv)
    last = said.err.strip().splitlines()[-1]
    assert said.status == 1 and "judged by validation/" in last and "search within one method" in last, said.err
