"""Tables of cells: rows and columns in order, with rows for the references that need no pretraining."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sslrun.report import axes as ax
from sslrun.report.cells import Cell
from sslrun.report.collect import Found, Run
from sslrun.report.measure import REFERENCES, Number, reference
from sslrun.report.paired import Paired, spread
from sslrun.report.words import order


@dataclass
class Shown:
    """What a cell of the comparison says; without numbers only `missing`, statuses with how many runs have them."""

    values: dict[tuple, float] = field(default_factory=dict)
    numbers: list[Number] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)
    difference: Paired | None = None
    best: bool = False
    harm: bool = False
    harmed: tuple[int, int] | None = None  # runs whose own verdict is harm, of how many

    @property
    def metric(self) -> str:
        return self.numbers[0].metric

    @property
    def kind(self) -> tuple[str, str]:
        return self.numbers[0].kind

    @property
    def n(self) -> int:
        return len(self.values)

    @property
    def mean(self) -> float:
        return spread(list(self.values.values()))[0]

    @property
    def sd(self) -> float | None:
        return spread(list(self.values.values()))[1]

    @property
    def collapsed(self) -> int:
        return sum(n.run.status == "collapsed" for n in self.numbers)


@dataclass
class Row:
    """One line of a table; `reference` is a subject that needs no pretraining, measured inside the same runs."""

    labels: tuple[str, ...]
    note: str
    cells: dict[tuple[str, ...], Shown]
    reference: str = ""


@dataclass
class Grid:
    """One table: its title (the axes that the table stands for), columns in order, and rows."""

    title: str
    columns: list[tuple[str, ...]]
    rows: list[Row]
    at: dict[str, str]


def grids(
    cells: Sequence[Cell], row_keys: Sequence[str], table_keys: Sequence[str], found: Found, metric: str | None
) -> list[Grid]:
    """One table for each place on the axes that are neither rows nor columns."""
    ranks: dict[str, dict[str, int]] = {}  # values in the sweep's order where there is one
    for sweep in found.sweeps:
        for key, values in sweep.axes.items():
            names = [ax.Entry(Run(Path(), "", "waiting"), {key: v}).value(key) for v in values]
            ranks.setdefault(key, {n: i for i, n in enumerate(names)})

    def place(keys: Sequence[str], values: Sequence[str]) -> list:
        known = [order({v for c in cells for v in c.at(k)}) for k in keys]
        return [
            (ranks.get(k, {}).get(v, 999), known[i].index(v)) for i, (k, v) in enumerate(zip(keys, values, strict=True))
        ]

    grids = []
    by_table: dict[tuple, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_table[cell.table].append(cell)
    for table in sorted(by_table, key=lambda t: place(table_keys, t)):
        mine = by_table[table]
        lines: dict[tuple, dict[tuple, Shown]] = defaultdict(dict)
        for cell in mine:
            lines[cell.row, cell.variant][cell.column] = _shown(cell)
        column_keys = mine[0].column_keys
        columns = sorted({c.column for c in mine}, key=lambda c: place(column_keys, c))
        ordered = sorted(lines, key=lambda line: (place(row_keys, line[0]), line[1]))
        rows = [Row(row, variant, lines[row, variant]) for row, variant in ordered]
        at = dict(zip(table_keys, table, strict=True))
        grid = Grid(", ".join(f"{k} {v}" for k, v in at.items()), columns, rows, at)
        grid.rows += _references(grid, metric)
        grids.append(grid)
    return grids


def _shown(cell: Cell) -> Shown:
    numbers = list(cell.numbers.values())
    harms = [n.run.metrics.get("harm") for n in numbers if n.metric == n.run.metrics.get("primary")]
    harmed = (sum(h is True for h in harms), len(numbers)) if True in harms else None
    return Shown({seed: n.value for seed, n in cell.numbers.items()}, numbers, dict(cell.missing), harmed=harmed)


def _references(grid: Grid, metric: str | None) -> list[Row]:
    """A row for each reference, and one more for each group of methods in whose runs it has other values."""
    out = []
    for subject in REFERENCES:
        groups: list[tuple[list[str], dict[tuple, Shown]]] = []
        for row in grid.rows:
            mine: dict[tuple, Shown] = {}
            for column, shown in row.cells.items():
                found = beside(shown, subject, metric)
                if found:
                    mine[column] = found
            if not mine:
                continue
            name = " ".join((*row.labels, row.note)).strip()
            same = next((g for g in groups if _agree(g[1], mine)), None)
            if same is None:
                groups.append(([name], mine))
            else:
                same[0].append(name)
                _merge(same[1], mine)
        for names, cells in groups:
            note = f"in the runs of {', '.join(names)}" if len(groups) > 1 else ""
            out.append(Row((subject,), note, cells, reference=subject))
    return out


def beside(shown: Shown, subject: str, metric: str | None) -> Shown | None:
    """A reference in the same runs as a cell's numbers, by the same seeds."""
    both = {s: reference(n, subject, metric) for s, n in zip(shown.values, shown.numbers, strict=True)}
    found = {s: n for s, n in both.items() if n}
    return Shown({s: n.value for s, n in found.items()}, list(found.values())) if found else None


def _agree(a: Mapping[tuple, Shown], b: Mapping[tuple, Shown]) -> bool:
    """Whether the two say the same: on every column of both they share seeds, and all values of these."""
    for column in a.keys() & b.keys():
        x, y = a[column], b[column]
        shared = x.values.keys() & y.values.keys()
        same = (x.kind, x.numbers[0].run.data) == (y.kind, y.numbers[0].run.data)
        if not shared or not same or any(abs(x.values[s] - y.values[s]) > 1e-9 for s in shared):
            return False
    return True


def _merge(into: dict[tuple, Shown], more: Mapping[tuple, Shown]) -> None:
    for column, shown in more.items():
        have = into.setdefault(column, Shown())
        for (seed, value), n in zip(shown.values.items(), shown.numbers, strict=True):
            if seed not in have.values:
                have.values[seed] = value
                have.numbers.append(n)
