"""The table of a sweep while it runs, and a line for each event where there is no terminal."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from sslrun.progress import duration
from sslrun.sweep.study import Job, results_of
from sslrun.verdict import JUDGED

ROOM = 12  # rows of a terminal that the table leaves to the rest


@dataclass
class Row:
    """Where a job is: waiting, running, finished, failed, interrupted, pruned or left out."""

    job: Job
    state: str = "waiting"
    note: str = ""  # its result, or why it failed
    began: float = 0.0
    seconds: float | None = None  # what it took, here or in an earlier call
    step: int = 0
    steps: int | None = None
    first_step: int | None = None  # where this call's worker began

    @property
    def kind(self) -> str:
        return "+".join(self.job.plain["method"]) or "none"

    def left(self, typical: float | None) -> float | None:
        """Seconds to its end, where there is ground for a guess."""
        if self.state == "waiting":
            return typical
        spent = time.monotonic() - self.began
        if typical is not None and spent < typical:
            return typical - spent
        done = self.step - (self.first_step or 0)
        if not self.steps or done <= 0:
            return typical
        return spent * (self.steps - self.step) / done


def seconds_left(rows: Sequence[Row], slots: int, more: int = 0) -> float | None:
    """Until all rows have ended and as many `more`, `slots` at a time: from what jobs of the same method took."""
    open_rows = [row for row in rows if row.state in ("waiting", "running")]
    took: dict[str, list[float]] = {}
    for row in rows:
        if row.seconds is not None and row.state == "finished":
            took.setdefault(row.kind, []).append(row.seconds)
    every = [s for found in took.values() for s in found]
    if more and not every:
        return None
    total = more * statistics.mean(every) if more else 0.0
    for row in open_rows:
        typical = statistics.mean(took.get(row.kind) or every) if every else None
        left = row.left(typical)
        if left is None:
            return None
        total += left
    return total / max(1, min(slots, len(open_rows) + more or 1))


def result(job: Job) -> tuple[str, float | None]:
    """`linear@40 95.3` of a finished job, and its seconds."""
    metrics = results_of(job.folder) or {}
    name, found = metrics.get("primary"), metrics.get("results", {})
    value = next((found[s][name] for s in JUDGED if name in found.get(s, {})), None)
    text = "" if value is None else f"{name.removesuffix('/accuracy')} {_number(name, value)}"
    return ("collapsed, " if metrics.get("status") == "collapsed" else "") + text, metrics.get("wall_s")


def _number(name: str, value: float) -> str:
    return f"{100 * value:.1f}" if "accuracy" in name or name.endswith("f1") else f"{value:.3f}"


class Screen:
    """Shows rows, to which `more()` may come; `event` says a line that stays."""

    def __init__(self, rows: list[Row], slots: int, more: Callable[[], int] = lambda: 0):
        self.rows, self.slots, self.more = rows, slots, more
        self.console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 160)
        self._live: Live | None = None
        if self.console.is_terminal:
            self._live = Live(console=self.console, refresh_per_second=2, get_renderable=self._table, transient=True)

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()

    def event(self, row: Row) -> None:
        ended = sum(r.state in ("finished", "failed", "pruned", "left out") for r in self.rows)
        left = seconds_left(self.rows, self.slots, self.more())
        rest = f"; about {duration(left)} left" if left else ""
        took = f" in {duration(row.seconds)}" if row.seconds is not None and row.state == "finished" else ""
        note = f": {row.note}" if row.note else ""
        self.console.print(
            f"\\[{ended}/{len(self.rows) + self.more()}] {row.job.name} {row.state}{took}{note}{rest}", soft_wrap=True
        )

    def _table(self) -> Table:
        shown = ("finished", "running", "waiting", "failed", "pruned", "left out")
        count = {s: sum(r.state == s for r in self.rows) for s in shown}
        left = seconds_left(self.rows, self.slots, self.more())
        title = ", ".join(f"{n} {s}" for s, n in count.items() if n or s == "finished")
        table = Table(box=None, pad_edge=False, title_justify="left", title_style="bold")
        table.title = f"{title} of {len(self.rows) + self.more()}" + (f"; about {duration(left)} left" if left else "")
        for name in ("job", "", "", "progress"):
            table.add_column(name, no_wrap=True, justify="left")
        shown = [r for r in self.rows if r.state == "running"]
        shown += [r for r in self.rows if r.state == "failed"] + [r for r in self.rows if r.state == "waiting"]
        for row in shown[: max(1, self.console.height - ROOM)]:
            table.add_row(
                row.job.name, row.state, duration(time.monotonic() - row.began) if row.began else "", _bar(row)
            )
        return table


def _bar(row: Row, width: int = 20) -> str:
    if row.state != "running":
        return row.note[:80]
    if not row.steps:
        return "starting"
    if row.step >= row.steps:
        return "evaluating"
    full = width * row.step // row.steps
    return f"{'━' * full}{' ' * (width - full)} {row.step:,} of {row.steps:,} steps"
