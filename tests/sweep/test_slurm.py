"""Jobs in a queue: submitit's local executor, and a stand-in for slurm's commands; real kills and the same command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("submitit")

LEAN = ["method=simclr", "seed=0", "batch_size=64", "encoder.width=8", "eval=[knn]", "reference=null", "logger=none"]
LEAN += ["precision=fp32", "save_every=0.05", "epochs=12"]
QUEUED = ["launcher=slurm", "launcher.jobs=1", "launcher.gpus=0", "launcher.cpus=1"]
HERE = [*QUEUED, "launcher.cluster=local"]
PATIENCE = 120


def folder(name):
    return Path("outputs/sweeps") / name / "run"


def status(name):
    try:
        return json.loads((folder(name) / "status.json").read_text())
    except FileNotFoundError:
        return {}


def until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def drive(argv, name):
    """The command in a process of its own, once it drives."""
    log = Path(f"{name}.log")
    with open(log, "w") as out:
        line = [sys.executable, "-u", "-m", "sslrun", "-m", *argv, f"sweep.name={name}"]
        process = subprocess.Popen(line, stdout=out, stderr=out)
    until(lambda: process.poll() is not None or "sweep    1 jobs" in log.read_text())
    assert process.poll() is None, log.read_text()
    return process


def start(argv, name):
    """The same, once its job has a checkpoint; and the job's process."""
    process = drive(argv, name)
    until(lambda: process.poll() is not None or (folder(name) / "checkpoints/last.ckpt").exists())
    assert process.poll() is None, Path(f"{name}.log").read_text()
    return process, status(name)["pid"]


def take_over(argv, name, process, pid):
    """Kills the driver, starts another, and presses Ctrl-C; meanwhile the job stands still, lest it be done."""
    os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.wait()
    assert living(pid), "the job goes on without its driver"
    process, had = drive(argv, name), submissions(name)
    time.sleep(2)  # it looks into the queue
    assert status(name)["pid"] == pid and submissions(name) == had == 1, "it is found, and not submitted twice"
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    os.kill(pid, signal.SIGCONT)
    assert process.wait(PATIENCE) == 130
    until(lambda: not living(pid))
    assert status(name)["status"] == "interrupted" and "the same command goes on" in Path(f"{name}.log").read_text()


def finish(argv, name):
    line = [sys.executable, "-m", "sslrun", "-m", *argv, f"sweep.name={name}"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr


def living(pid):
    return Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def submissions(name):
    return len(list(folder(name).glob("submitit/*_submitted.pkl")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The job as this machine runs it undisturbed."""
    place = tmp_path_factory.mktemp("whole")
    with contextlib.chdir(place):
        finish([*LEAN, "device.threads=1", "launcher.jobs=1"], "whole")
    return place / folder("whole")


def assert_identical(name, whole):
    ours, theirs = (load_file(path / "encoder/model.safetensors") for path in (folder(name), whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    ours, theirs = (json.loads((path / "metrics.json").read_text()) for path in (folder(name), whole))
    assert ours["results"] == theirs["results"] and ours["config_hash"] == theirs["config_hash"]


@pytest.mark.slow
def test_out_of_time_it_saves_and_is_queued_again(own_place, whole):
    process, pid = start([*LEAN, *HERE], "mine")
    os.kill(pid, signal.SIGUSR2)
    assert process.wait(PATIENCE) == 0, Path("mine.log").read_text()
    said = (folder("mine") / "log.txt").read_text()
    assert "Requeued job" in said and said.count("folder  ") == 2 and status("mine")["pid"] != pid
    assert submissions("mine") == 1
    assert_identical("mine", whole)


@pytest.mark.slow  # the same with slurm's commands is not
def test_a_killed_driver_leaves_its_jobs_and_ctrl_c_ends_them(own_place, whole):
    argv = [*LEAN, *HERE]
    take_over(argv, "mine", *start(argv, "mine"))
    finish(argv, "mine")
    assert submissions("mine") == 2 and (folder("mine") / "log.txt").read_text().count("folder  ") == 2
    assert_identical("mine", whole)


def test_what_cannot_work_is_said_before_anything_runs(command, monkeypatch):
    for argv, word in (
        (QUEUED, "finds no sbatch and srun here"),
        ([*HERE, "launcher.cluster=pbs"], "launcher.cluster=pbs is unknown; choose one of slurm, local"),
        ([*HERE, "launcher.jobs=auto"], "launcher.jobs=auto is not a whole number"),
        ([*HERE, "launcher.minutes=0"], "launcher.minutes=0 does not work"),
        ([*HERE, "device.num_nodes=2"], "torchrun"),
        ([*HERE, "launcher.parameters={slurm_colour: red}"], "launcher.parameters does not work"),
    ):
        said = command("-m", *LEAN, *argv)
        last = said.err.strip().splitlines()[-1]
        assert said.status == 1 and word in last and "Traceback" not in said.err, said.err
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "launcher=slurm needs the extra: pip install 'sslrun[slurm]'" in command("-m", *LEAN, *HERE).err


# Slurm's own commands, played by one script

FAKE = """#!{python}
import os, pathlib, subprocess, sys, time
queue, me, argv = pathlib.Path(os.environ["QUEUE"]), os.path.basename(sys.argv[0]), sys.argv[1:]
def state(number, *text):
    path = queue / f"{{number}}.state"
    return path.write_text(text[0]) if text else path.read_text()
if me == "sbatch":
    number = 700 + len(list(queue.glob("*.sh")))
    (queue / f"{{number}}.sh").write_text(open(argv[0]).read())
    state(number, "PENDING")
    out = subprocess.DEVNULL
    subprocess.Popen([queue / "node", str(number)], start_new_session=True, stdout=out, stderr=out)
    print("Submitted batch job", number)
elif me == "node":
    env = {{**os.environ, "SLURM_JOB_ID": argv[0], "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1"}}
    while state(argv[0]) in ("PENDING", "REQUEUED"):
        state(argv[0], "RUNNING")
        code = subprocess.call(["bash", queue / f"{{argv[0]}}.sh"], env=env)
        if state(argv[0]) == "RUNNING":
            state(argv[0], "FAILED" if code else "COMPLETED")
elif me == "srun":
    argv = argv[argv.index(sys.executable):]
    (queue / f"{{os.environ['SLURM_JOB_ID']}}.pid").write_text(str(os.getpid()))
    os.execv(argv[0], argv)
elif me == "sacct":
    print("JobID|State|NodeList")
    for number in argv[argv.index("-j") + 1::2]:
        print(f"{{number}}|{{state(number)}}|")
elif me == "scontrol":
    state(argv[1], "REQUEUED")
elif me == "scancel":
    state(argv[0], "CANCELLED")
    os.kill(int((queue / f"{{argv[0]}}.pid").read_text()), 15)
"""


@pytest.fixture
def cluster(own_place, tmp_path_factory, monkeypatch):
    """A place with slurm's commands, and the folder of its queue."""
    queue = tmp_path_factory.mktemp("queue")
    for name in ("sbatch", "srun", "sacct", "scontrol", "scancel", "node"):
        (queue / name).write_text(FAKE.format(python=sys.executable))
        (queue / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{queue}:{os.environ['PATH']}")
    monkeypatch.setenv("QUEUE", str(queue))
    return queue


def test_slurm_is_asked_for_what_a_job_needs_and_brings_it_back(cluster, whole):
    argv = [*LEAN, *QUEUED, "launcher.partition=long", "launcher.account=me", "launcher.minutes=90"]
    argv += ["launcher.memory=16", "launcher.parameters={slurm_qos: high}"]
    process, pid = start(argv, "mine")
    asked = (cluster / "700.sh").read_text()
    wanted = ("partition=long", "account=me", "time=90", "mem=16GB", "cpus-per-task=1", "qos=high", "signal=USR2@90")
    for flag in wanted:
        assert f"#SBATCH --{flag}\n" in asked, asked
    os.kill(pid, signal.SIGUSR2)
    until(lambda: (folder("mine") / "log.txt").read_text().count("folder  ") == 2)
    take_over(argv, "mine", process, status("mine")["pid"])
    assert (cluster / "700.state").read_text() == "CANCELLED"
    finish(argv, "mine")
    assert sorted(p.name for p in cluster.glob("*.state")) == ["700.state", "701.state"]
    assert_identical("mine", whole)


@pytest.mark.slow
def test_one_task_with_two_processes(cluster):
    argv = [*LEAN, *QUEUED, "launcher.cpus=2", "device=ddp_cpu", "epochs=1", "optimizer=sgd"]
    finish(argv, "mine")
    assert json.loads((folder("mine") / "metrics.json").read_text())["world"] == 2
