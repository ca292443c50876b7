"""Runs to cells: replicates of one place under one protocol, duplicates settled, differences never mixed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sslrun.report.axes import Entry
from sslrun.report.measure import Number, number

RESULTS_OF = (
    "C",
    "selected_score",
    "stage",
    "subjects",
    "score",
    "scores",
    "sign",
    "val_auroc",
)  # what a protocol chose in each run, not how it chooses


@dataclass
class Cell:
    """One place: numbers by seed, and the statuses of runs that give none.

    `variant` names what sets its runs apart from others at the same place: versions, precision, protocol or split.
    """

    table: tuple[str, ...]
    row: tuple[str, ...]
    column: tuple[str, ...]
    keys: tuple[list[str], list[str], list[str]]
    variant: str = ""
    numbers: dict[tuple, Number] = field(default_factory=dict)
    missing: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def column_keys(self) -> list[str]:
        return self.keys[2]

    def at(self, key: str) -> tuple[str, ...]:
        """Its value on this axis, if it has that axis."""
        pairs = zip((*self.keys[0], *self.keys[1], *self.keys[2]), (*self.table, *self.row, *self.column), strict=True)
        return tuple(v for k, v in pairs if k == key)


def assemble(
    there: Sequence[Entry],
    rows: list[str],
    columns: list[str],
    tables: list[str],
    by_labels: bool,
    metric: str | None,
) -> list[Cell]:
    """All cells that a run belongs to."""
    lines: dict[tuple, dict[tuple, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in there:
        table, row, column = (tuple(entry.value(k) for k in keys) for keys in (tables, rows, columns))
        lines[table, row][column].append(entry)
    out = []
    for (table, row), places in lines.items():
        read = {column: _numbers(entries, by_labels, metric) for column, entries in places.items()}
        named = {k for numbers, _ in read.values() for k in _conflicts(numbers)}
        for column, (numbers, missing) in read.items():
            variants: dict[str, list[Number]] = defaultdict(list)
            splits = _splits(numbers)
            for n in numbers:
                variants[_variant(n, named, splits)].append(n)
            for i, (variant, group) in enumerate(variants.items() or [("", [])]):
                cell = Cell(
                    table, row, column, (tables, rows, columns), variant, missing=missing if i == 0 else Counter()
                )
                _fill(cell, group)
                if len(variants) > 1:
                    where = " ".join((*table, *row)) or "these runs"
                    cell.notes.append(f"{where}: runs differ in {', '.join(sorted(named))}, so each has its own row")
                out.append(cell)
    return out


def _numbers(entries: Sequence[Entry], by_labels: bool, metric: str | None) -> tuple[list[Number], Counter]:
    numbers, missing = [], Counter()
    for entry in entries:
        labelled = by_labels or "labels" in entry.at  # a sweep says which labels a cell has, also if all have the same
        if not entry.run.scored:
            missing[entry.run.status] += 1
            continue
        labels, way = entry.value("labels") if labelled else None, entry.at.get("probe", "linear")
        n = number(entry.run, labels, metric, way)
        if n is None:
            missing["no such number"] += 1
        else:
            numbers.append(n)
    return numbers, missing


def _fill(cell: Cell, numbers: Sequence[Number]) -> None:
    """One number for each seed, the newest where a run was repeated."""
    by_seed: dict[tuple, list[Number]] = defaultdict(list)
    for n in numbers:
        by_seed[n.run.seed].append(n)
    for seed in sorted(by_seed, key=str):
        *older, newest = sorted(by_seed[seed], key=lambda n: (n.run.written, n.run.name))
        cell.numbers[seed] = newest
        if older:
            others = ", ".join(n.run.name for n in older)
            cell.notes.append(
                f"seed {seed[0]} was run more than once: {newest.run.name} is the newest and counts, not {others}"
            )


def _signature(n: Number) -> dict[str, Any]:
    """What must be the same for numbers to stand in one mean."""
    m = n.run.metrics
    versions = m.get("versions") or {}
    return {
        "sslrun": versions.get("sslrun"),
        "torch": versions.get("torch"),
        "precision": m.get("precision"),
        "metric": f"{n.subject} {n.metric}",
        "protocol": protocol(n),
    }


def protocol(n: Number) -> str:
    """How a number was measured, without what came out of it."""
    metric, *stage = n.metric.rpartition("/")[0].split("/")
    told = (n.run.metrics.get("protocol") or {}).get(metric) or {}
    how = {**told, **((told.get("subjects") or {}).get(n.subject) or {})}
    for part in stage:  # of several probes, as of the encoder's stages, each has its own
        how = how.get(part, how)
    kept = {k: v for k, v in how.items() if k not in RESULTS_OF}
    return "; ".join(
        f"{k.replace('_', ' ')}: {v if isinstance(v, str) else json.dumps(v)}" for k, v in sorted(kept.items())
    )


def _conflicts(numbers: Sequence[Number]) -> set[str]:
    """In what the runs of one place differ."""
    signatures = [_signature(n) for n in numbers]
    found = {k for s in signatures for k in s if s[k] != signatures[0][k]}
    return found | ({"split"} if any(len(hashes) > 1 for hashes in _splits(numbers).values()) else set())


def _splits(numbers: Sequence[Number]) -> dict[Any, list[Any]]:
    """The splits that each split seed gave, oldest first; more than one: the data or how it is split changed."""
    found: dict[Any, list[Any]] = defaultdict(list)
    for n in sorted(numbers, key=lambda n: n.run.written):
        if n.run.metrics.get("split_hash") not in found[n.run.seed[1]]:
            found[n.run.seed[1]].append(n.run.metrics.get("split_hash"))
    return found


def _variant(n: Number, named: set[str], splits: dict[Any, list[Any]]) -> str:
    """What sets a run apart from others at its place, in words."""
    words = {k: v for k, v in _signature(n).items() if k in named}
    if "split" in named:
        known = splits[n.run.seed[1]]
        # Hashes of other seeds cannot be compared, so a seed that was split in one way only may belong to any of them.
        words["split"] = known.index(n.run.metrics.get("split_hash")) + 1 if len(known) > 1 else "seen once"
    return ", ".join(f"{k} {v}" for k, v in words.items())
