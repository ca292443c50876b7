"""What runs are compared by: the axes of a sweep, or the settings in which loose runs differ."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sslrun.errors import UserError
from sslrun.explain import nearest
from sslrun.report.collect import Found, Run
from sslrun.report.measure import PROBE, reads_labels, ways
from sslrun.report.words import order, word
from sslrun.schema import joined

REPLICATES = ("seed", "split_seed")
NAMES = ("method", "data")  # by what metrics.json calls them
# What changes how fast or where a run is computed, and what protocol and precision already tell apart.
NO_AXES = re.compile(
    r"(device|eval|supervision|logger)(\..*)?|compile|precision|reference|max_time|save_every|traceback|.*\._partial_"
)


@dataclass(frozen=True)
class Entry:
    """A run at one place of the comparison; a sweep's job that fills several cells has several."""

    run: Run
    at: Mapping[str, str]

    def value(self, key: str) -> str:
        """The coordinate on one axis: what the sweep says, else what the run was."""
        if key in self.at:
            told = self.at[key]
            return joined(part.strip() for part in told.strip("[]").split(",")) if key == "method" else word(told)
        return value(self.run, key)


def value(run: Run, key: str) -> str:
    if key in NAMES and (run.metrics or run.settings):
        return getattr(run, key)
    if key in run.settings:
        return word(run.settings[key])
    if f"{key}._target_" in run.settings:
        return str(run.settings[f"{key}._target_"]).rpartition(".")[2]
    return word(run.metrics[key]) if key in run.metrics else "?"


def entries(found: Found, asked: Sequence[str], metric: str | None) -> tuple[list[Entry], list[str]]:
    """Every run at its places, and the axes that they differ on, in the order to be read.

    `asked` are the keys that the user named: these are axes in any case, the seed too; `metric` is one asked for.

    Raises:
        UserError: no run has such a key.
    """
    placed = [Entry(run, cell) for run in found.runs for cell in run.cells or ({},)]
    refuse_unknown(asked, placed)
    swept = [k for sweep in found.sweeps for k in sweep.axes]
    keys = list(dict.fromkeys([*asked, *swept]))
    keys = [k for k in keys if k in asked or (k not in REPLICATES and len({e.value(k) for e in placed}) > 1)]
    keys = _and_differing(keys, placed)
    if "labels" in keys:
        placed = _at_budgets(placed)
        if metric is None and any(len(ways(e.run)) > 1 and not reads_labels(e.run) for e in placed):
            placed = [Entry(e.run, {**e.at, "probe": way}) for e in placed for way in _ways(e.run)]
            keys = [*keys, "probe"]
    return placed, [k for k in keys if k in asked or len({e.value(k) for e in placed}) > 1]


def _and_differing(keys: list[str], placed: Sequence[Entry]) -> list[str]:
    """Adds settings that differ though all axes so far agree; one that follows from the axes explains itself."""
    known = [e for e in placed if e.run.scored and (e.run.settings or not e.at)]
    for key in NAMES:
        if key not in keys and len({e.value(key) for e in known}) > 1:
            keys = [*keys, key]
    texts = [{**{k: word(v) for k, v in e.run.settings.items()}, **e.at} for e in known]
    names = sorted({k for t in texts for k in t}, key=lambda k: (k != "labels", k.count("."), k))
    differing = [k for k in names if k not in REPLICATES and not NO_AXES.fullmatch(k) and _varies(k, texts)]
    groups = _split(list(range(len(known))), [[e.value(k) for k in keys] for e in known])
    for key in differing:
        axis = key.removesuffix("._target_")
        if axis in keys or axis in NAMES:
            continue
        values = [t.get(key) for t in texts]
        if any(len({values[i] for i in group}) > 1 for group in groups):
            keys = [*keys, axis]
            groups = [inner for group in groups for inner in _split(group, values)]
    return keys


def _varies(key: str, texts: Sequence[Mapping[str, str]]) -> bool:
    first = texts[0].get(key)
    return any(t.get(key) != first for t in texts)


def _split(group: list[int], values: Sequence) -> list[list[int]]:
    parts: dict[str, list[int]] = defaultdict(list)
    for i in group:
        parts[str(values[i])].append(i)
    return list(parts.values())


def _at_budgets(placed: Sequence[Entry]) -> list[Entry]:
    """Loose runs of methods that read no labels, at every number of labels that others were trained on.

    Where none were, at every budget that probes had.
    """
    counts = order(e.value("labels") for e in placed if "labels" in e.at or reads_labels(e.run))
    if not counts:
        budgets = {
            m["labels"] for e in placed for _, found in e.run.results("trained") for k in found if (m := PROBE.match(k))
        }
        counts = order(budgets - {None})
    out = []
    for entry in placed:
        free = "labels" not in entry.at and not reads_labels(entry.run)
        out += [Entry(entry.run, {**entry.at, "labels": n}) for n in counts] if free and counts else [entry]
    return out


def _ways(run: Run) -> list[str]:
    return ["own"] if reads_labels(run) else ways(run) or ["linear"]


def refuse_unknown(asked: Iterable[str], placed: Sequence[Entry]) -> None:
    known = set(keys_of(placed))
    for key in asked:
        if key not in known:
            often = [k for k in ("method", "data", "labels", "seed", "lr", "epochs") if k in known]
            raise UserError(
                f"{key} is no setting of these runs; {nearest(key, known)}for instance: {', '.join(often)}."
            )


def keys_of(placed: Sequence[Entry]) -> list[str]:
    """All keys that a run can be asked for."""
    found = {k.removesuffix("._target_"): None for e in placed for k in (*e.at, *e.run.settings)}
    return [*NAMES, *(k for k in found if k not in NAMES), *(k for k in ("precision", "threads") if k not in found)]


def choose(placed: Sequence[Entry], where: Sequence[tuple[str, str]]) -> list[Entry]:
    """The entries of these values; several values of one key are alternatives.

    Raises:
        UserError: a value that no run has, or values that no run has together.
    """
    asked: dict[str, set[str]] = defaultdict(set)
    for key, text in where:
        there = order(e.value(key) for e in placed)
        if word(text) not in there:
            raise UserError(
                f"--where {key}={text} leaves nothing; {nearest(text, there)}{key} is {' or '.join(there[:12])} here."
            )
        asked[key].add(word(text))
    kept = [e for e in placed if all(e.value(k) in values for k, values in asked.items())]
    if where and not kept:
        raise UserError(f"--where {' '.join(f'{k}={v}' for k, v in where)} leaves nothing: no run has all of these.")
    return kept


def pivot(axes: Sequence[str], rows: Sequence[str], columns: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Axes in rows, in columns, and those that get a table each.

    By default methods are rows and numbers of labels columns, else data sets, and every data set has its own table
    where labels are the columns: accuracies on different data stand in no common column. Other axes are rows.
    """
    rows, columns = list(rows), list(columns)
    if not columns:
        free = [k for k in ("labels", "data") if k in axes and k not in rows]
        columns = free[:1]
    if not rows:
        rows = [k for k in ("method", *axes) if k in axes and k not in columns][:1]
    rest = [k for k in axes if k not in rows + columns]
    tables = [k for k in rest if k == "data"]
    return [*rows, *(k for k in rest if k not in tables)], columns, tables
