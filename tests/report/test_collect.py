"""Folders to runs: what is found, what is not entered, and what damaged ones become."""

import json
import os
import socket
import time

import pytest

from sslrun.contracts import UserError
from sslrun.record.folder import boot_id
from sslrun.report.collect import collect


def test_runs_are_found_at_any_depth_and_not_entered(make):
    path = make("simclr", 3, 0.9)
    make.write(path / "checkpoints/copy", "finished", metrics={"results": {}})
    (run,) = collect([make.root]).runs
    assert (run.path, run.status, run.method, run.data, run.seed) == (path, "finished", "simclr", "digits", (3, 3))


def test_a_folder_given_twice_counts_once(make):
    path = make()
    assert len(collect([make.root, make.root / "simclr", path]).runs) == 1


def test_settings_of_older_runs_come_from_their_configuration(make):
    path = make("simclr", 0)
    metrics = json.loads((path / "metrics.json").read_text())
    del metrics["settings"]
    (path / "metrics.json").write_text(json.dumps(metrics))
    (path / "config.yaml").write_text("epochs: 7\nmethod: {simclr: {temperature: 0.2}}\n")
    (run,) = collect([make.root]).runs
    assert run.settings == {"epochs": 7, "method.simclr.temperature": 0.2}


def test_unfinished_runs_have_a_name_and_no_number(make):
    make.unfinished("failed", "the loss is NaN")
    make.unfinished("running", host="elsewhere", pid=1)
    make.unfinished("interrupted")
    found = {run.status: run for run in collect([make.root]).runs}
    assert set(found) == {"failed", "running", "interrupted"}
    assert found["failed"].reason == "the loss is NaN" and found["failed"].method == "simclr"
    assert not any(run.scored or run.metrics for run in found.values())


def test_a_method_that_its_data_does_not_fit_was_left_out(make):
    make.unfinished("failed", "Unfit: digits are grey")
    (run,) = collect([make.root]).runs
    assert run.status == "left out" and not run.scored


@pytest.mark.parametrize(
    "told, status",
    [({"pid": os.getpid()}, "running"), ({"pid": 2**22 + 1}, "interrupted"), ({"boot": "before"}, "interrupted")],
)
def test_a_run_whose_process_is_gone_is_not_running(make, told, status):
    make.unfinished("running", **{"host": socket.gethostname(), "boot": boot_id(), "pid": os.getpid()} | told)
    (run,) = collect([make.root]).runs
    assert run.status == status


def test_a_run_that_goes_on_shows_no_number_of_before(make):
    path = make()
    (path / "status.json").write_text('{"status": "running", "host": "elsewhere", "pid": 1}')
    assert collect([make.root]).runs[0].metrics == {}


def spoil(name, text):
    return lambda path: (path / name).write_bytes(text)


SPOILT = {
    "half a metrics.json": (spoil("metrics.json", b'{"status": "finished", "resu'), "metrics.json cannot be read"),
    "an empty metrics.json": (spoil("metrics.json", b""), "metrics.json cannot be read"),
    "bytes": (spoil("metrics.json", b"\xff\xfe\x00"), "metrics.json cannot be read"),
    "a list": (spoil("metrics.json", b"[]"), "it is no JSON object"),
    "no results": (spoil("metrics.json", b"{}"), "metrics.json has no results"),
    "odd results": (spoil("metrics.json", b'{"results": {"trained": 3}}'), "metrics.json has no results"),
    "odd versions": (spoil("metrics.json", b'{"results": {}, "versions": [1]}'), "odd versions or protocol"),
    "an odd protocol": (spoil("metrics.json", b'{"results": {}, "protocol": {"knn": 3}}'), "odd versions or protocol"),
    "odd subjects": (spoil("metrics.json", b'{"results": {}, "protocol": {"knn": {"subjects": 3}}}'), "odd versions"),
    "an odd subject": (
        spoil("metrics.json", b'{"results": {}, "protocol": {"knn": {"subjects": {"raw": 3}}}}'),
        "odd versions",
    ),
    "an odd seed": (spoil("metrics.json", b'{"results": {}, "seed": [1]}'), "odd seed"),
    "an odd time": (spoil("metrics.json", b'{"results": {}, "training_s": "long"}'), "odd training_s"),
    "no metrics.json": (lambda path: (path / "metrics.json").unlink(), "there is no metrics.json"),
    "an empty status.json": (spoil("status.json", b""), "status.json cannot be read"),
    "no status": (spoil("status.json", b"{}"), "status.json says nothing"),
    "an odd status": (spoil("status.json", b'{"status": "fine"}'), "status.json says fine"),
    "no status.json": (lambda path: (path / "status.json").unlink(), "there is no status.json"),
    "a broken config.yaml": (
        lambda path: (spoil("status.json", b'{"status": "failed"}')(path), spoil("config.yaml", b"a: [")(path)),
        "config.yaml cannot be read",
    ),
    "no config.yaml": (
        lambda path: (spoil("status.json", b'{"status": "failed"}')(path), (path / "config.yaml").unlink()),
        "there is no config.yaml",
    ),
    "a folder in its place": (
        lambda path: ((path / "metrics.json").unlink(), (path / "metrics.json").mkdir()),
        "metrics.json cannot be read",
    ),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_damaged_folder_is_listed_with_its_reason(make, kind):
    make("simclr", 0)
    path = make("simclr", 1)
    SPOILT[kind][0](path)
    found = collect([make.root])
    assert len(found.runs) == 1
    ((name, reason),) = found.damaged
    assert name == str(path) and SPOILT[kind][1] in reason


def test_numbers_that_are_none_are_left_out(make):
    make(results={"trained": {"knn/accuracy": None, "knn/loss": float("nan"), "linear/accuracy": 0.5, "x": "y"}})
    assert collect([make.root]).runs[0].metrics["results"] == {"trained": {"linear/accuracy": 0.5}}


def test_jobs_of_a_sweep_without_a_folder_wait(swept):
    found = collect([swept.parent])
    waiting = [run for run in found.runs if run.status == "waiting"]
    assert len(found.runs) == 6 and [run.path.name for run in waiting] == ["method=fixmatch,labels=40,seed=1"]
    assert waiting[0].cells == ({"method": "fixmatch", "labels": "40", "seed": "1"},)


def test_a_broken_sweep_leaves_its_runs_readable(swept):
    (swept / "sweep.json").write_text('{"axes": ')
    found = collect([swept])
    assert len(found.runs) == 5 and "sweep.json cannot be read" in found.damaged[0][1]


def test_a_damaged_job_of_a_sweep_is_not_waiting(swept):
    (swept / "method=simclr,seed=0/metrics.json").write_text("{")
    statuses = [run.status for run in collect([swept]).runs]
    assert statuses.count("damaged") == 1 and statuses.count("waiting") == 1


def test_nothing_to_report_is_said(tmp_path):
    with pytest.raises(UserError, match="is no folder"):
        collect([tmp_path / "none"])
    with pytest.raises(UserError, match="holds no runs; run an experiment first"):
        collect([tmp_path])


def test_a_thousand_runs_are_read_within_three_seconds(make):
    for i in range(1000):
        make(
            "simclr", i % 10, 0.9, folder=f"{i % 20}/{i}", settings={f"augmentation.{j}.strength": j for j in range(60)}
        )
    began = time.perf_counter()
    found = collect([make.root])
    taken = time.perf_counter() - began
    assert len(found.runs) == 1000 and taken < 3, f"{taken:.2f} s"
