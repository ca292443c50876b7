"""Drives a study: starts jobs where there is room, watches them, and tells what became of each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sslrun.record.folder import RunFolder
from sslrun.sweep.screen import Row, Screen, result
from sslrun.sweep.study import Job, state_of

POLL = 0.5  # seconds between two looks at the running jobs
PATIENCE = 120.0  # seconds that interrupted jobs have to save


class Driver:
    """Runs the jobs of a study by a launcher, `launcher.slots` at a time.

    One job's failure does not end the others unless `stop_on_error`; an interruption asks the running ones to save.
    """

    def __init__(self, jobs: list[Job], launcher: Any, stop_on_error: bool):
        self.launcher, self.stop_on_error = launcher, stop_on_error
        self.rows = [Row(job) for job in jobs]
        self.running: list[tuple[Row, Any]] = []
        self._progress: Callable[[Row], None] = self._read
        for row in self.rows:
            if row.job.done():
                row.state = "finished"
                row.note, row.seconds = result(row.job)

    def run(self) -> list[Row]:
        """Until every job has ended; raises KeyboardInterrupt, after the running ones have saved, on Ctrl-C."""
        with Screen(self.rows, self.launcher.slots) as screen:
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
        waiting = [row for row in self.rows if row.state == "waiting"]
        if self.stop_on_error and any(row.state == "failed" for row in self.rows):
            return False
        for row in waiting[: self.launcher.slots - len(self.running)]:
            row.state, row.began = "running", time.monotonic()
            self.running.append((row, self.launcher.start(row.job)))
        return bool(waiting)

    def _look(self) -> None:
        """Reads how far running jobs are, and takes leave of those that ended."""
        for row, worker in list(self.running):
            self._read(row)
            if worker.alive():
                continue
            self.running.remove((row, worker))
            self.launcher.ended(worker)
            self._judge(row, worker)
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
        if job.done():
            row.state, row.seconds = "finished", time.monotonic() - row.began
            row.note = result(job)[0]
        elif status.get("status") in ("failed", "interrupted"):
            row.state, row.note = status["status"], status.get("reason", "").removeprefix("UserError: ")
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
