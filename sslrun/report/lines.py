"""The words of a cell, shared by the terminal, Markdown and the page."""

from __future__ import annotations

from sslrun.report.compare import Comparison
from sslrun.report.grid import Grid, Row, Shown
from sslrun.report.words import interval, listed, measure, spread


def value(shown: Shown) -> str:
    """`95.8 ± 0.4`, or what is missing and why."""
    if shown.numbers:
        return spread(shown.mean, shown.sd, shown.metric)
    return listed(shown.missing) or "missing"


def difference(shown: Shown) -> str:
    return interval(shown.difference, shown.metric) if shown.difference else ""


def flags(shown: Shown) -> list[str]:
    """What must not be overlooked: harm, runs without a number, collapsed encoders."""
    if not shown.numbers:
        return []
    out = ["harm"] if shown.harm else []
    if shown.harmed:
        own = f"{shown.harmed[0]}/{shown.harmed[1]} runs"
        out = [f"harm, {own}" if shown.harm else f"harm in {own}"]
    if shown.collapsed:
        out.append(f"collapsed {shown.collapsed}/{shown.n}")
    return out + ([listed(shown.missing)] if shown.missing else [])


def name(row: Row) -> str:
    return f"{row.reference} (reference)" if row.reference else " · ".join(row.labels) or "all runs"


def heads(comparison: Comparison, grid: Grid) -> list[str]:
    """Titles of the columns: their settings, or the measure where nothing is a column."""
    if comparison.columns:
        pairs = [zip(comparison.columns, column, strict=True) for column in grid.columns]
        return [", ".join(_head(k, v) for k, v in pair) for pair in pairs]
    kinds = kinds_of(grid, ())
    return [measure(kinds[0]) if len(kinds) == 1 else "primary metric"]


def _head(key: str, value: str) -> str:
    if key == "data":
        return value
    return "all labels" if (key, value) == ("labels", "null") else f"{key} {value}"


def kinds_of(grid: Grid, column: tuple[str, ...]) -> list[tuple[str, str]]:
    """The kinds of numbers in one column; where there are several, each cell has to say its own."""
    return list(
        dict.fromkeys(r.cells[column].kind for r in grid.rows if r.cells.get(column) and r.cells[column].numbers)
    )
