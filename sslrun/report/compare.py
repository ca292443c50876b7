"""Runs to tables: cells over seeds, differences against a baseline, what is best and what does harm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sslrun.errors import UserError
from sslrun.explain import nearest
from sslrun.report import axes as ax
from sslrun.report.cells import assemble
from sslrun.report.collect import Found, Run, collect
from sslrun.report.grid import Grid
from sslrun.report.grid import grids as grids_of
from sslrun.report.judge import judge
from sslrun.report.measure import MEANING, REFERENCES
from sslrun.report.words import measure, order, word

ALIASES = {"untrained": "random"}


@dataclass
class Comparison:
    """Everything that a report says, before it is written in any form."""

    found: Found
    runs: list[Run]
    axes: list[str]
    rows: list[str]
    columns: list[str]
    baseline: str
    metric: str | None
    grids: list[Grid]
    notes: list[str]

    @property
    def statuses(self) -> dict[str, int]:
        """How many runs are in which state."""
        return dict(Counter(run.status for run in self.runs))


def compare(
    folders: Sequence[Path],
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    where: Sequence[tuple[str, str]] = (),
    metric: str | None = None,
    baseline: str | None = None,
) -> Comparison:
    """Compares all runs below these folders.

    Raises:
        UserError: there are no runs, or a key, value, metric or baseline that they do not have.
    """
    found = collect(folders)
    asked = [*rows, *columns]
    twice = [k for k, n in Counter(asked).items() if n > 1]
    if twice:
        raise UserError(f"{twice[0]} can be a row or a column, not both; leave out one of --rows and --columns.")
    there, keys = ax.entries(found, list(dict.fromkeys([*asked, *(k for k, _ in where)])), metric)
    there = ax.choose(there, where)
    keys = [k for k in keys if k in asked or len({e.value(k) for e in there}) > 1]
    runs = list({id(e.run): e.run for e in there}.values())
    _refuse_metric(metric, runs)
    row_keys, column_keys, table_keys = ax.pivot(keys, rows, columns)
    cells = assemble(there, row_keys, column_keys, table_keys, "labels" in keys, metric)
    baseline = _baseline(baseline, runs, there, [k for k in row_keys + column_keys if k != "data"])
    notes = list(dict.fromkeys(note for cell in cells for note in cell.notes))
    grids = grids_of(cells, row_keys, table_keys, found, metric)
    for grid in grids:
        judge(grid, row_keys, column_keys, baseline, metric)
    return Comparison(found, runs, keys, row_keys, column_keys, baseline, metric, grids, notes)


def _refuse_metric(metric: str | None, runs: Sequence[Run]) -> None:
    known = {k for run in runs for _, m in run.results("trained", "model", "ema") for k in m}
    if metric and metric not in known:
        raise UserError(
            f"--metric {metric} is in no run; {nearest(metric, known)}known: {', '.join(sorted(known)[:30])}."
        )


def _baseline(asked: str | None, runs: Sequence[Run], there: Sequence[ax.Entry], keys: Sequence[str]) -> str:
    """The baseline's name, `key=value` or a subject; by default the best known honest one that the runs have."""
    has = [s for s in REFERENCES if any(s in run.metrics.get("results", {}) for run in runs)]
    if asked is None:
        trained = "supervised" not in has and "method" in keys and any(e.value("method") == "supervised" for e in there)
        return "method=supervised" if trained else next(iter(has), "")
    key, equals, text = asked.partition("=")
    name = ALIASES.get(asked, asked)
    if not equals and name in has:
        return name
    values = order({e.value(key) for e in there}) if equals and key in keys else []
    if word(text) in values:
        return f"{key}={word(text)}"
    known = [*has, *(f"{k}={v}" for k in keys for v in order({e.value(k) for e in there}))]
    raise UserError(f"--baseline {asked} is not in these runs; {nearest(asked, known)}known: {', '.join(known[:20])}.")


def described(comparison: Comparison) -> str:
    """What the numbers are: `accuracy with 40 labels, mean ± standard deviation over 3 to 5 seeds`."""
    shown = [c for g in comparison.grids for r in g.rows for c in r.cells.values() if c.numbers and not r.reference]
    kinds = list(dict.fromkeys(c.kind for c in shown))
    counts = sorted({c.n for c in shown})
    if not counts:
        return "no run has finished yet"
    if comparison.metric or len(kinds) == 1 or "labels" not in comparison.axes:
        names = ", ".join(measure(k) for k in kinds)
    else:
        names = ", ".join(dict.fromkeys(k[0] for k in kinds))
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{names}; mean ± standard deviation over {seeds} seed{'' if counts == [1] else 's'}"


def versus(comparison: Comparison) -> str:
    name = comparison.baseline
    return f"{name} ({MEANING[name]})" if name in MEANING else name
