"""The report as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from sslrun.report import facts, lines
from sslrun.report.compare import Comparison, described, versus
from sslrun.report.words import listed, measure


def markdown(comparison: Comparison, title: str, figures: dict[str, str]) -> str:
    """Tables, figures by their captions, and how the numbers came about."""
    out = [f"# {_safe(title)}", "", f"{_safe(described(comparison))}."]
    if comparison.baseline:
        out[-1] += f" Differences: against {_safe(versus(comparison))}."
    for grid in comparison.grids:
        heads = [", ".join(comparison.rows) or "runs", *lines.heads(comparison, grid)]
        rows = [[_name(row), *(_cell(grid, row, c) for c in grid.columns)] for row in grid.rows]
        out += ["", *([f"## {_safe(grid.title)}", ""] if grid.title else []), *_table(heads, rows)]
    out += ["", *(f"- {_safe(rule)}" for rule in facts.rules(comparison))]
    if comparison.notes:
        out += ["", "## Remarks", "", *(f"- {_safe(note)}" for note in comparison.notes)]
    for name, caption in figures.items():
        out += ["", f"![{_safe(caption)}](figures/{name}.png)"]
    out += ["", "## Protocol", "", *_table(("data", "metric", "of", "how"), facts.protocols(comparison))]
    out += ["", "## Versions and machines", ""]
    out += _table(("", "value", "runs"), [(n, v, str(k)) for n, v, k in facts.machines(comparison.runs)])
    commands = [c + (f"  # {remark}" if remark else "") for c, remark in facts.commands(comparison)]
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", "".join(commands)))])
    out += [
        "",
        "## Commands",
        "",
        f"{fence}sh",
        *commands,
        fence,
        "",
        "## Runs",
        "",
        f"{listed(comparison.statuses) or 'none'}; each is a row of runs.csv.",
    ]
    troubled = [(r.name, f"{r.status}: {r.reason}") for r in comparison.runs if r.reason and not r.scored]
    troubled += [(name, f"cannot be read: {reason}") for name, reason in comparison.found.damaged]
    out += ["", *_table(("folder", "what is wrong"), troubled)] if troubled else []
    return "\n".join(out) + "\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    body = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(map(str, cells)) + " |" for cells in ([*map(_cellular, row)] for row in body)]


def _cellular(text: str) -> str:
    return _safe(text).replace("|", "\\|")


def _safe(text: str) -> str:
    """User-supplied words without what Markdown or HTML would act on."""
    return " ".join(text.replace("<", "&lt;").replace("`", "'").split())


def _name(row: lines.Row) -> str:
    return _safe(lines.name(row)) + (f" ({_safe(row.note)})" if row.note else "")


def _cell(grid: lines.Grid, row: lines.Row, column: tuple[str, ...]) -> str:
    shown = row.cells.get(column)
    if shown is None or not shown.numbers:
        return f"*{lines.value(shown)}*" if shown else "-"
    text = f"**{lines.value(shown)}**" if shown.best else lines.value(shown)
    kind = f" {measure(shown.kind)}" if len(lines.kinds_of(grid, column)) > 1 else ""
    more = [lines.difference(shown), f"n = {shown.n}", *lines.flags(shown)]
    return f"{text}{kind} ({'; '.join(t for t in more if t)})"
