"""The compact table on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from sslrun.report import lines
from sslrun.report.compare import Comparison, described, versus
from sslrun.report.words import listed, measure


def table(comparison: Comparison) -> Any:
    """Something rich can print: a grid for each table, and what to know about it."""
    parts: list[Any] = []
    for grid in comparison.grids:
        shown = Table(box=None, pad_edge=False, header_style="bold", title=grid.title or None, title_justify="left")
        shown.add_column(", ".join(comparison.rows))
        for head in lines.heads(comparison, grid):
            shown.add_column(head, justify="right")
        for row in grid.rows:
            name = Text(lines.name(row))
            if row.note:
                name.append(f"\n{row.note}", style="dim")
            shown.add_row(name, *(_cell(grid, row, c) for c in grid.columns), style="dim" if row.reference else None)
        parts += [shown, Text()]
    against = (
        f"; differences with 95 % intervals against {versus(comparison)}, on the same seeds"
        if comparison.baseline
        else ""
    )
    parts.append(Text(f"{described(comparison)}{against}", style="dim"))
    parts += [Text(note, style="yellow") for note in comparison.notes[:5]]
    if len(comparison.notes) > 5:
        parts.append(Text(f"and {len(comparison.notes) - 5} more remarks on the page", style="yellow"))
    unread = len(comparison.found.damaged)
    if unread or set(comparison.statuses) - {"finished"}:
        counts = comparison.statuses | ({"unreadable": unread} if unread else {})
        parts.append(Text(f"runs: {listed(counts)}", style="yellow"))
    return Group(*parts)


def _cell(grid: Any, row: Any, column: tuple[str, ...]) -> Text:
    shown = row.cells.get(column)
    if shown is None or not shown.numbers:
        return Text(lines.value(shown) if shown else "-", style="dim italic")
    out = Text(lines.value(shown), style="bold" if shown.best else "")
    if len(lines.kinds_of(grid, column)) > 1:
        out.append(f" {measure(shown.kind)}", style="dim not bold")
    if shown.difference:
        out.append(f"\n{lines.difference(shown)}", style="dim not bold")
    for flag in lines.flags(shown):
        out.append(f"\n{flag}", style="red not bold" if flag.startswith("harm") else "yellow not bold")
    return out
