"""Several metrics of the same runs in one table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from sslrun.report import lines
from sslrun.report.compare import compare


def beside(folder: Path, metrics: Sequence[str]) -> Table | None:
    """The runs below a folder by these metrics, mean and standard deviation over seeds; None where they have none."""
    there = {k for run in compare([folder]).runs for _, found in run.results("trained", "model", "ema") for k in found}
    columns: dict[str, dict[str, str]] = {}
    for metric in (m for m in metrics if m in there):
        found = compare([folder], metric=metric)
        for grid in found.grids:
            for column, head in zip(grid.columns, lines.heads(found, grid), strict=True):
                words = (metric, head if head != metric else "", grid.title)
                cells = columns.setdefault(" ".join(filter(None, words)), {})
                for row in grid.rows:
                    shown = row.cells.get(column)
                    cells[" ".join(filter(None, (lines.name(row), row.note)))] = (
                        lines.value(shown) if shown and shown.numbers else "-"
                    )
    if not columns:
        return None
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for head in columns:
        table.add_column(head, justify="right")
    for name in dict.fromkeys(name for cells in columns.values() for name in cells):
        table.add_row(name, *(cells.get(name, "-") for cells in columns.values()))
    return table
