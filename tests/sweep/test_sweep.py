"""Sweeps through the command line: real jobs, real kills, the same command again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = ["steps=6", "batch_size=64", "eval=[knn]", "reference=null", "logger=none", "precision=fp32"]
LONG = ["epochs=5", "batch_size=64", "eval=[knn]", "reference=null", "logger=none", "save_every=0.05"]
SWEEPS = Path("outputs/sweeps")
PATIENCE = 200


def results(name):
    return {p.parent.name: json.loads(p.read_text())["results"] for p in (SWEEPS / name).glob("*/metrics.json")}


def written(name):
    return {p.parent.name: p.stat().st_mtime_ns for p in (SWEEPS / name).glob("*/metrics.json")}


@pytest.fixture
def sweep(command):
    return lambda *more: command("-m", *TINY, "launcher.jobs=2", *more)


def test_a_study_from_end_to_end(sweep):
    axes = ["method=supervised,kmeans", "labels=10,5000", "seed=0,1", "sweep.name=mine"]
    said = sweep(*axes)
    assert said.status == 1 and "2 of 6 jobs did not finish (supervised_labels-5000_seed-0: " in said.err
    assert "labels=5000" in said.err and "the same command tries them again" in said.err
    assert "Traceback" not in said.err + said.out and ".;" not in said.err
    assert set(results("mine")) == {f"{m}_seed-{s}" for m in ("kmeans", "supervised_labels-10") for s in (0, 1)}
    told = json.loads((SWEEPS / "mine/sweep.json").read_text())
    assert told["axes"] == {"method": ["supervised", "kmeans"], "labels": ["10", "5000"], "seed": ["0", "1"]}
    assert sum(len(job["cells"]) for job in told["jobs"]) == 8 and len(told["jobs"]) == 6
    assert (SWEEPS / "mine/report/index.html").exists() and "kmeans" in said.out
    folder = SWEEPS / "mine/supervised_labels-5000_seed-0"
    assert json.loads((folder / "status.json").read_text())["status"] == "failed"
    assert "labels=5000" in (folder / "log.txt").read_text()

    before = written("mine")
    again = sweep(*axes)
    assert again.status == 1 and again.err.count("failed") == 2 and "finished in" not in again.err
    assert written("mine") == before, "what was finished is left alone"

    other = sweep(axes[0], "labels=10,40", *axes[2:])
    assert other.status == 1 and "has another definition (labels: 10,5000 -> 10,40)" in other.err
    more = sweep(*axes[:-2], "seed=2,0,1", "sweep.name=mine")
    assert "3 of 9 jobs did not finish" in more.err, "a study may gain seeds"
    after = written("mine")
    assert {k: after[k] for k in before} == before
    assert after.keys() - before == {"kmeans_seed-2", "supervised_labels-10_seed-2"}


def test_what_cannot_work_is_said_before_anything_runs(sweep, command):
    for argv, word in (
        (["method=simclr,simlcr"], "did you mean simclr"),
        (["seed=range(0,10000)"], "10,000 jobs; say sweep.limit=10000"),
        (["lr=interval(0.1,1)"], "sweep=random"),
        (["seed=0,1", "on_error=ask"], "on_error=ask does not work; it must be continue or stop"),
        (["seed=0,1", "hydra.sweep.dir=here"], "sweep.name=NAME"),
        (["seed=0,1", "launcher.jobs=0"], "launcher.jobs=0 does not work"),
        (["seed=0,1", "sweep=gird"], "did you mean grid"),
        (["labels=10,-4", "method=supervised"], "labels=-4 does not work"),
    ):
        said = sweep(*argv)
        assert said.status == 1 and word in said.err and len(said.err.strip().splitlines()) == 1, said.err
    assert not SWEEPS.exists() or not any(SWEEPS.glob("*/*/status.json"))
    assert "-m" in command("method=simclr,kmeans").err, "a list without -m is told how to be a sweep"


def test_an_unknown_name_of_a_sweep_is_said_once(sweep):
    said = sweep("method=supervised,foo")
    assert said.status == 1 and said.err.count("method=foo") == 1 and "known: " in said.err


def test_a_method_that_the_data_does_not_fit_is_left_out(sweep):
    said = sweep("method=kmeans,colorization", "sweep.name=colours")
    assert said.status == 0, said.err
    assert set(results("colours")) == {"kmeans"} and "colorization left out: method=colorization needs red" in said.err
    alone = sweep("method=colorization", "seed=0,1")
    assert alone.status == 1 and "no job of the sweep can work: method=colorization needs red" in alone.err


def test_experiments_bring_their_axes_along(command, own_place):
    (own_place / "my/experiment").mkdir(parents=True)
    (own_place / "my/experiment/mine.yaml").write_text(
        "# @package _global_\nsweep:\n  name: here\n  over: {method: 'kmeans,none', seed: 'range(0,2)'}\nepochs: 2\n"
    )
    said = command("--config-dir", "my", "experiment=mine", "seed=4", "eval=[knn]", "logger=none", "reference=null")
    assert said.status == 0, said.err
    assert set(results("here")) == {"kmeans", "none"}, "seed=4 replaces the axis"
    assert json.loads((SWEEPS / "here/sweep.json").read_text())["command"].startswith(
        f"sslrun --config-dir={own_place / 'my'} -m"
    )


def start(argv, log):
    with open(log, "w") as out:
        return subprocess.Popen([sys.executable, "-m", "sslrun", "-m", *argv], stdout=out, stderr=out)


def until(condition, process):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, "the sweep ended, or hangs"
        time.sleep(0.05)


def workers(name):
    """Processes whose run folder is in this sweep, by what their status says."""
    return [json.loads(p.read_text())["pid"] for p in (SWEEPS / name).glob("*/status.json")]


def checkpoints(name):
    return len(list((SWEEPS / name).glob("*/checkpoints/last.ckpt")))


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, *(pytest.param(s, marks=pytest.mark.slow) for s in (signal.SIGINT, signal.SIGTERM))]
)
def test_the_same_command_goes_on(number, command, own_place):
    argv = ["method=rotation", "seed=0,1,2", *LONG, "launcher.jobs=2"]
    process = start([*argv, "sweep.name=ended"], "log")
    until(lambda: checkpoints("ended") == 2, process)
    other = command("-m", *argv, "sweep.name=ended")
    assert other.status == 1 and "driven by another process" in other.err
    process.send_signal(number)
    assert process.wait(PATIENCE) == (-9 if number == signal.SIGKILL else 130)
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers("ended")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers("ended")), "jobs outlive the driver"
    if number != signal.SIGKILL:
        assert "0 of 3 jobs are done; the same command goes on" in Path("log").read_text()
        assert {json.loads(p.read_text())["status"] for p in SWEEPS.glob("ended/*/status.json")} == {"interrupted"}
    assert command("-m", *argv, "sweep.name=ended").status == 0
    assert command("-m", *argv, "sweep.name=whole").status == 0
    assert results("ended") == results("whole") and len(results("whole")) == 3
    resumed = [p for p in SWEEPS.glob("ended/*/log.txt") if p.read_text().count("folder  ") == 2]
    assert len(resumed) == 2, "both went on in their folders"


def test_a_job_that_is_killed_is_one_failure(command, own_place):
    argv = ["method=rotation", "seed=0,1", *LONG, "launcher.jobs=1", "sweep.name=mine"]
    process = start(argv, "log")
    until(lambda: checkpoints("mine") == 1, process)
    os.kill(workers("mine")[0], signal.SIGKILL)
    assert process.wait(PATIENCE) == 1
    said = Path("log").read_text()
    assert "1 of 2 jobs did not finish (seed-0: ended by SIGKILL" in said and "out of memory" in said
    assert set(results("mine")) == {"seed-1"}
    assert command("-m", *argv).status == 0 and set(results("mine")) == {"seed-0", "seed-1"}


@pytest.mark.slow
def test_two_processes_a_job(command, own_place):
    argv = ["method=simclr,kmeans", "epochs=2", "batch_size=64", "eval=[knn]", "logger=none", "precision=fp64"]
    argv += ["reference=null", "optimizer=sgd", "device.threads=1"]
    assert command("-m", *argv, "device=ddp_cpu", "sweep.name=two").status == 0
    assert command("-m", *argv, "sweep.name=one").status == 0
    two, one = results("two"), results("one")
    assert two.keys() == one.keys() == {"simclr", "kmeans"}
    assert json.loads((SWEEPS / "two/simclr/metrics.json").read_text())["world"] == 2
    for job, subjects in one.items():
        for subject, found in subjects.items():
            assert two[job][subject] == pytest.approx(found, abs=0.03), (job, subject)
