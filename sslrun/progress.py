"""What is shown of work that takes a while and is no training."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator

PATIENCE = 3.0  # seconds before a progress bar appears
SILENCE = 10.0  # seconds that work without a bar may take before a line says what it is
LINES = 5  # parts of which each has one line, where no terminal shows a bar


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h` or `2.1 days`."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.{0 if unit == 'min' else 1}f} {unit}"
    return f"{max(1, round(seconds))} s"


@contextlib.contextmanager
def working(text: str, expected: float | None = None) -> Iterator[None]:
    """A line on stderr that names work whose end cannot be counted down to, where it outlasts `SILENCE` seconds.

    `expected`: seconds that the same work took before; where these are many the line says so from the start.
    """
    long = expected is not None and expected > SILENCE
    line = f"{text}: about {duration(expected)}" if long else f"{text} ..."
    timer = threading.Timer(0 if long else SILENCE, lambda: print(line, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def progress(items: Iterable, total: int, text: str | None) -> Iterator:
    """Passes `items` on; where they take long, a bar shows on stderr at a terminal, and elsewhere a few lines.

    Without a `text` nothing is shown.
    """
    if text is None:
        yield from items
        return
    began, bar, task, said = time.monotonic(), None, None, 0
    try:
        for done, item in enumerate(items, 1):
            yield item
            spent = time.monotonic() - began
            if not sys.stderr.isatty():
                if spent > SILENCE and (part := LINES * done // total) > said and done < total:
                    said = part
                    left = duration(spent / done * (total - done))
                    print(f"{text}: {done} of {total}, about {left} left", file=sys.stderr, flush=True)
                continue
            if bar is None and spent > PATIENCE:
                from rich.console import Console
                from rich.progress import Progress

                bar = Progress(console=Console(stderr=True), transient=True)
                task = bar.add_task(text, total=total)
                bar.start()
            if bar is not None:
                bar.update(task, completed=done)
    finally:
        if bar is not None:
            bar.stop()
