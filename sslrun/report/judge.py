"""What the cells of a table say of each other: differences, the best, and harm."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from sslrun.report.grid import Grid, Row, Shown, beside
from sslrun.report.measure import REFERENCES
from sslrun.report.paired import paired
from sslrun.report.words import lower_is_better


def judge(grid: Grid, row_keys: list[str], column_keys: list[str], baseline: str, metric: str | None) -> None:
    """Holds every cell of a table against the baseline and the references, and marks the best of each column."""
    key, _, text = baseline.partition("=")
    for row in grid.rows:
        for column, shown in row.cells.items():
            if not shown.numbers or row.reference:
                continue
            shown.harm = _harm(shown, metric)
            if text:
                other = _opposite(grid, row, column, key, text, row_keys, column_keys)
            else:
                other = beside(shown, baseline, metric)
            if other:
                shown.difference = paired(*_pairable(shown, other))
    for column in grid.columns:
        _best([row.cells[column] for row in grid.rows if column in row.cells])


def _harm(shown: Shown, metric: str | None) -> bool:
    """Whether the interval against the best reference on these seeds lies wholly on the wrong side."""
    sign = -1 if lower_is_better(shown.metric) else 1
    rivals = [r for r in (beside(shown, s, metric) for s in REFERENCES) if r]
    if not rivals:
        return False
    best = max(rivals, key=lambda r: sign * r.mean)
    found = paired(*_pairable(shown, best))
    return found is not None and (found.below if sign > 0 else found.above)


def _opposite(
    grid: Grid, row: Row, column: tuple, key: str, text: str, row_keys: list, column_keys: list
) -> Shown | None:
    """The cell that differs from this one in the baseline's key alone."""
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
