"""The driver with jobs that end at once, and what it says of them."""

from __future__ import annotations

import json
import time

import pytest

from sslrun.record.folder import RunFolder
from sslrun.sweep.drive import Driver
from sslrun.sweep.screen import Row, Screen, result, seconds_left
from sslrun.sweep.study import Job


class Worker:
    def __init__(self, polls, code):
        self.polls, self.code, self.asked, self.killed = polls, code, False, False

    def alive(self):
        self.polls -= 1
        return self.polls > 0 and not self.asked

    def interrupt(self):
        self.asked = True

    def kill(self):
        self.killed = True

    def ending(self):
        return f"ended with exit status {self.code}"


class Launcher:
    """Workers that live for some polls and leave what `ends` says in their folder."""

    slots = 2

    def __init__(self, ends):
        self.ends, self.started, self.most, self.open = ends, [], 0, []

    def start(self, job):
        self.started.append(job.name)
        status, reason = self.ends.get(job.name, ("finished", ""))
        folder = RunFolder(job.folder)
        job.folder.mkdir(exist_ok=True)
        folder.set_status("running" if status == "killed" else status, reason, step=4, steps=8)
        if status == "finished":
            write_metrics(job.folder)
        worker = Worker(2, 9)
        self.open.append(worker)
        self.most = max(self.most, len(self.open))
        return worker

    def wait(self, workers, seconds):
        if self.ends.get("Ctrl-C") == len(self.started):
            raise KeyboardInterrupt

    def ended(self, worker):
        self.open.remove(worker)


def write_metrics(folder, wall_s=5.0):
    found = {"status": "finished", "primary": "linear@40/accuracy", "wall_s": wall_s}
    (folder / "metrics.json").write_text(json.dumps(found | {"results": {"trained": {"linear@40/accuracy": 0.953}}}))


@pytest.fixture
def jobs(tmp_path):
    return [Job(str(i), {"method": {"simclr": {}}}, [], [{}], tmp_path / f"job{i}") for i in range(5)]


def states(rows):
    return [row.state for row in rows]


def test_runs_so_many_at_a_time_in_order(jobs, capsys):
    launcher = Launcher({})
    rows = Driver(jobs, launcher, stop_on_error=False).run()
    assert states(rows) == ["finished"] * 5 and launcher.most == 2
    assert launcher.started == [job.name for job in jobs]
    said = capsys.readouterr().err
    assert "[5/5] job4 finished" in said and "linear@40 95.3" in said and len(said.splitlines()) == 5


def test_what_is_done_is_not_started_and_what_is_damaged_is(jobs):
    Driver(jobs, Launcher({}), stop_on_error=False).run()
    (jobs[1].folder / "metrics.json").write_text("{")
    RunFolder(jobs[3].folder).set_status("interrupted")
    launcher = Launcher({})
    rows = Driver(jobs, launcher, stop_on_error=False).run()
    assert launcher.started == ["job1", "job3"] and states(rows) == ["finished"] * 5


def test_failures_do_not_end_the_rest(jobs):
    ends = {"job0": ("failed", "UserError: too few labels"), "job2": ("killed", "")}
    rows = Driver(jobs, Launcher(ends), stop_on_error=False).run()
    assert states(rows) == ["failed", "finished", "failed", "finished", "finished"]
    assert rows[0].note == "too few labels" and rows[2].note == "ended with exit status 9"
    told = RunFolder(jobs[2].folder).status()
    assert (told["status"], told["reason"]) == ("failed", "ended with exit status 9"), "the folder says so, too"


def test_a_method_that_the_data_does_not_fit_is_no_failure(jobs, capsys):
    ends = {"job0": ("failed", "Unfit: digits are grey"), "job3": ("failed", "UserError: too few labels")}
    rows = Driver(jobs, Launcher(ends), stop_on_error=False).run()
    assert states(rows) == ["left out", "finished", "finished", "failed", "finished"]
    said = capsys.readouterr().err
    assert "job0 left out: digits are grey" in said and "[5/5]" in said
    assert states(Driver(jobs[:2], Launcher(ends), stop_on_error=True).run()) == ["left out", "finished"]


def test_a_failure_ends_the_rest_where_asked(jobs):
    launcher = Launcher({"job0": ("failed", "no")})
    rows = Driver(jobs, launcher, stop_on_error=True).run()
    assert states(rows) == ["failed", "finished", "waiting", "waiting", "waiting"], "the one beside it may end"


def test_interruption_asks_the_running_ones_to_save(jobs):
    launcher = Launcher({"Ctrl-C": 2, "job0": ("interrupted", ""), "job1": ("interrupted", "")})
    driver = Driver(jobs, launcher, stop_on_error=False)
    with pytest.raises(KeyboardInterrupt):
        driver.run()
    assert all(worker.asked and not worker.killed for worker in launcher.open)
    assert states(driver.rows) == ["interrupted"] * 2 + ["waiting"] * 3


def test_time_left(jobs):
    rows = [Row(job) for job in jobs]
    assert seconds_left(rows, 2) is None, "nothing is known yet"
    rows[0].state, rows[0].seconds = "finished", 10.0
    assert seconds_left(rows, 2) == pytest.approx(20.0), "four of ten seconds, two at a time"
    rows[1].state, rows[1].began = "running", time.monotonic() - 6
    assert seconds_left(rows, 1) == pytest.approx(34.0, abs=0.5)
    for row in rows[1:]:
        row.state = "finished"
    assert seconds_left(rows, 2) == 0
    alone = Row(jobs[0], "running", began=time.monotonic() - 30, step=300, steps=400, first_step=0)
    assert seconds_left([alone], 1) == pytest.approx(10.0, abs=0.5), "from its own steps"


def test_the_table_shows_what_moves(jobs):
    rows = [Row(job) for job in jobs]
    rows[0].state, rows[0].seconds = "finished", 10.0
    rows[1] = Row(jobs[1], "running", began=time.monotonic() - 4, step=50, steps=100, first_step=0)
    rows[2] = Row(jobs[2], "failed", note="too few labels")
    screen = Screen(rows, 2)
    with screen.console.capture() as shown:
        screen.console.print(screen._table())
    text = shown.get()
    assert "1 finished, 1 running, 2 waiting, 1 failed of 5; about" in text
    assert "50 of 100 steps" in text and "too few labels" in text and "job0" not in text


def test_a_finished_job_tells_the_number_that_its_report_will_have(tmp_path):
    found = {name: {"classify/accuracy": share} for name, share in (("model", 0.4), ("ema", 0.3), ("ema:best", 1.0))}
    told = {"primary": "classify/accuracy", "results": found, "wall_s": 2.0}
    (tmp_path / "metrics.json").write_text(json.dumps(told))
    assert result(Job("id", {}, [], [], tmp_path)) == ("classify 30.0", 2.0)
