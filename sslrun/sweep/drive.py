"""Drives a study: starts jobs where there is room, watches them, and tells what became of each."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from sslrun.record.folder import RunFolder
from sslrun.sweep.screen import Row, Screen, result
from sslrun.sweep.search import Search
from sslrun.sweep.study import Job, state_of

POLL = 0.5  # seconds between two looks at the running jobs
PATIENCE = 120.0  # seconds that interrupted jobs have to save


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt, also where a shell in the background has had them ignored."""
    if threading.current_thread() is not threading.main_thread():  # the caller handles signals
        yield
        return
    old = {s: signal.signal(s, signal.default_int_handler) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


class Driver:
    """Runs the jobs of a study, and those that its search proposes, by a launcher, `launcher.slots` at a time.

    One job's failure does not end the others unless `stop_on_error`, and a method that its data does not fit is left
    out, which is no failure; an interruption asks the running ones to save.
    """

    def __init__(self, jobs: list[Job], launcher: Any, stop_on_error: bool, search: Search | None = None):
        self.launcher, self.stop_on_error, self.search = launcher, stop_on_error, search or Search()
        self.rows = [Row(job) for job in jobs]
        self.running: list[tuple[Row, Any]] = []
        for row in self.rows:
            if self.search.prune(row):
                row.state = "pruned"
            elif row.job.done():
                row.state = "finished"
                row.note, row.seconds = result(row.job)
            if row.state != "waiting":
                self.search.told(row)

    def run(self) -> list[Row]:
        """Until every job has ended; on Ctrl-C or SIGTERM raises KeyboardInterrupt once the running ones have saved."""
        with listening(), Screen(self.rows, self.launcher.slots, self.search.waiting) as screen:
            self.screen = screen
            try:
                while self._fill() or self.running:
                    self.launcher.wait([worker for _, worker in self.running], POLL)
                    self._look()
            except BaseException:
                self._interrupt()
                raise
        return self.rows

    def _fill(self) -> bool:
        """Starts waiting jobs while there is room; false when none waits, or none shall be started any more."""
        if self.stop_on_error and any(row.state == "failed" for row in self.rows):
            return False
        while len(self.running) < self.launcher.slots:
            row = self._waiting()
            if row is None:
                return False
            row.state, row.began = "running", time.monotonic()
            self.running.append((row, self.launcher.start(row.job)))
        return True

    def _waiting(self) -> Row | None:
        """The next row to start: one that waits, or a new one of the search."""
        row = next((row for row in self.rows if row.state == "waiting"), None)
        if row is None and (job := self.search.next()) is not None:
            row = Row(job)
            self.rows.append(row)
        return row

    def _look(self) -> None:
        """Reads how far running jobs are, and takes leave of those that ended."""
        for row, worker in list(self.running):
            alive = worker.alive()  # asked first: what it writes before it ends is read below
            self._read(row)
            if row.state == "running" and self.search.prune(row):
                row.state = "pruned"
                if alive:
                    worker.interrupt()
            if alive:
                continue
            self.running.remove((row, worker))
            self.launcher.ended(worker)
            self._judge(row, worker)
            self.search.told(row)
            self.screen.event(row)

    @staticmethod
    def _read(row: Row) -> None:
        status = RunFolder(row.job.folder).status()
        row.step, row.steps = status.get("step", 0), status.get("steps")
        if row.first_step is None and status.get("status") == "running":
            row.first_step = row.step

    def _judge(self, row: Row, worker: Any) -> None:
        """What became of a job whose process has ended."""
        job, status = row.job, RunFolder(row.job.folder).status()
        if row.state == "pruned":
            if status.get("status") == "interrupted":
                RunFolder(job.folder).set_status("interrupted", "pruned by the sweep; `sslrun resume` goes on")
        elif job.done():
            row.state, row.seconds = "finished", time.monotonic() - row.began
            row.note = result(job)[0]
        elif status.get("status") in ("failed", "interrupted"):
            reason = status.get("reason", "")
            row.state = "left out" if reason.startswith("Unfit: ") else status["status"]
            row.note = reason.removeprefix("Unfit: ").removeprefix("UserError: ").removesuffix(".")
        else:  # it was killed, or died before it could say anything
            row.state, row.note = "failed", worker.ending()
            if state_of(job.folder) is not None:
                RunFolder(job.folder).set_status("failed", row.note)

    def _interrupt(self) -> None:
        """Asks the running jobs to save and end; those that do not, or a second Ctrl-C, are ended."""
        try:
            for _, worker in self.running:
                worker.interrupt()
            deadline = time.monotonic() + PATIENCE
            while any(worker.alive() for _, worker in self.running) and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            for row, worker in self.running:
                if worker.alive():
                    worker.kill()
                self._judge(row, worker)
            self.running = []
