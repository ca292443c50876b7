"""A bar for work that takes a while and is no training."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator

PATIENCE = 3.0  # seconds before a progress bar appears


def progress(items: Iterable, total: int, text: str) -> Iterator:
    """Passes `items` on; at a terminal, a bar on stderr appears when they take more than a few seconds."""
    began, bar, task = time.monotonic(), None, None
    try:
        for done, item in enumerate(items, 1):
            yield item
            if bar is None and sys.stderr.isatty() and time.monotonic() - began > PATIENCE:
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
