"""Runs to tables: cells over seeds, differences against a baseline, what is best and what does harm."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sslrun.errors import UserError
from sslrun.explain import nearest
from sslrun.report import axes as ax
from sslrun.report.cells import Cell, assemble
from sslrun.report.collect import Found, Run, collect
from sslrun.report.measure import MEANING, REFERENCES, Number, reference
from sslrun.report.paired import Paired, paired, spread
from sslrun.report.words import lower_is_better, measure, order, word

ALIASES = {"untrained": "random"}


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
    there, keys = ax.entries(found, list(dict.fromkeys([*asked, *(k for k, _ in where)])))
    there = ax.choose(there, where)
    keys = [k for k in keys if k in asked or len({e.value(k) for e in there}) > 1]
    runs = list({id(e.run): e.run for e in there}.values())
    _refuse_metric(metric, runs)
    row_keys, column_keys, table_keys = ax.pivot(keys, rows, columns)
    cells = assemble(there, row_keys, column_keys, table_keys, "labels" in keys, metric)
    baseline = _baseline(baseline, runs, there, [k for k in row_keys + column_keys if k != "data"])
    notes = list(dict.fromkeys(note for cell in cells for note in cell.notes))
    grids = _grids(cells, row_keys, table_keys, found, metric)
    for grid in grids:
        _judge(grid, row_keys, column_keys, baseline, metric)
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
        return next(iter(has), "")
    key, equals, text = asked.partition("=")
    name = ALIASES.get(asked, asked)
    if not equals and name in has:
        return name
    values = order({e.value(key) for e in there}) if equals and key in keys else []
    if word(text) in values:
        return f"{key}={word(text)}"
    known = [*has, *(f"{k}={v}" for k in keys for v in order({e.value(k) for e in there}))]
    raise UserError(f"--baseline {asked} is not in these runs; {nearest(asked, known)}known: {', '.join(known[:20])}.")


def _grids(
    cells: Sequence[Cell], row_keys: Sequence[str], table_keys: Sequence[str], found: Found, metric: str | None
) -> list[Grid]:
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
                found = {
                    s: (reference(n, subject, metric), n) for s, n in zip(shown.values, shown.numbers, strict=True)
                }
                found = {s: (v, n) for s, (v, n) in found.items() if v is not None}
                if found:
                    numbers = [Number(v, n.metric, subject, n.kind, n.run) for v, n in found.values()]
                    mine[column] = Shown({s: v for s, (v, _) in found.items()}, numbers)
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


def _judge(grid: Grid, row_keys: list[str], column_keys: list[str], baseline: str, metric: str | None) -> None:
    key, _, text = baseline.partition("=")
    for row in grid.rows:
        for column, shown in row.cells.items():
            if not shown.numbers:
                continue
            if not row.reference:
                shown.harm = _harm(shown, metric)
            if not text:
                other = row.reference != baseline and not row.reference and _against(shown, baseline, metric)
            else:
                other = _opposite(grid, row, column, key, text, row_keys, column_keys)
            if other:
                shown.difference = paired(*_pairable(shown, other))
    for column in grid.columns:
        _best([row.cells[column] for row in grid.rows if column in row.cells])


def _against(shown: Shown, subject: str, metric: str | None) -> Shown | None:
    """A reference inside the same runs, by the same seeds."""
    found = {s: (reference(n, subject, metric), n) for s, n in zip(shown.values, shown.numbers, strict=True)}
    kept = {s: (v, n) for s, (v, n) in found.items() if v is not None}
    return Shown({s: v for s, (v, _) in kept.items()}, [n for _, n in kept.values()]) if kept else None


def _harm(shown: Shown, metric: str | None) -> bool:
    """Whether the interval against the best reference on these seeds lies wholly on the wrong side."""
    sign = -1 if lower_is_better(shown.metric) else 1
    rivals = [r for r in (_against(shown, s, metric) for s in REFERENCES) if r]
    if not rivals:
        return False
    best = max(rivals, key=lambda r: sign * r.mean)
    found = paired(*_pairable(shown, best))
    return found is not None and (found.below if sign > 0 else found.above)


def _opposite(
    grid: Grid, row: Row, column: tuple, key: str, text: str, row_keys: list, column_keys: list
) -> Shown | None:
    """The cell that differs from this one in the baseline's key alone."""
    if row.reference:
        return None
    labels = tuple(text if k == key else v for k, v in zip(row_keys, row.labels, strict=True))
    there = tuple(text if k == key else v for k, v in zip(column_keys, column, strict=True))
    if (labels, there) == (row.labels, column):
        return None
    near = [
        r for r in grid.rows if not r.reference and r.labels == labels and r.cells.get(there) and r.cells[there].numbers
    ]
    near = [r for r in near if r.note == row.note] or (near if len(near) == 1 else [])
    other = near[0].cells[there] if near else None
    ours = row.cells[column]
    alike = other and (other.kind == ours.kind or (key == "labels" and other.kind[0] == ours.kind[0]))
    return other if alike else None


def _pairable(a: Shown, b: Shown) -> tuple[dict, dict]:
    """Values by seed, without seeds whose runs were split differently: these are no pairs."""

    def by_split(shown: Shown) -> dict:
        hashes = [n.run.metrics.get("split_hash") for n in shown.numbers]
        return {(*seed, h): v for (seed, v), h in zip(shown.values.items(), hashes, strict=True)}

    return by_split(a), by_split(b)


def _best(cells: Sequence[Shown]) -> None:
    """Marks the best of each kind of number where its interval against the runner-up excludes zero."""
    groups: dict[tuple, list[Shown]] = defaultdict(list)
    for shown in cells:
        if shown.numbers:  # results on different data are never ranked
            groups[(shown.kind, *sorted({n.run.data for n in shown.numbers}))].append(shown)
    for group in groups.values():
        if len(group) < 2:
            continue
        sign = -1 if lower_is_better(group[0].metric) else 1
        first, second = sorted(group, key=lambda s: -sign * s.mean)[:2]
        found = paired(*_pairable(first, second))
        first.best = found is not None and (found.above if sign > 0 else found.below)


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
