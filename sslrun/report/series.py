"""What the figures draw: runs gathered to lines of one colour, and their curves."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sslrun.report.collect import Run
from sslrun.report.compare import Comparison
from sslrun.report.measure import PROBE, REFERENCES, Number, number, reads_labels, reference
from sslrun.report.words import order, word

CURVES = ("knn_accuracy", "classify_accuracy", "accuracy", "loss")  # what a curve shows, the most comparable first


@dataclass
class Series:
    """The runs of one line: all that the axes other than labels, data and seed do not tell apart.

    `way` is how labels were put to an encoder that was trained on none: by a probe or by fine-tuning.
    """

    name: str
    data: str
    runs: list[Run]
    way: str = "linear"


def series(comparison: Comparison) -> list[Series]:
    """In the order of the tables; runs that a table leaves out, because newer ones count, are in none."""
    found: dict[tuple[str, str, str], dict[int, Run]] = defaultdict(dict)
    for grid in comparison.grids:
        for row in grid.rows:
            for column, shown in row.cells.items() if not row.reference else ():
                pairs = [*zip(comparison.rows, row.labels, strict=True), *zip(comparison.columns, column, strict=True)]
                words = [v for k, v in pairs if k not in ("labels", "data", "seed", "split_seed")]
                name = " · ".join([*words, *([row.note] if row.note else [])])
                for n in shown.numbers:
                    way = "finetune" if n.metric.startswith("finetune") else "linear"
                    found[name or n.run.method, n.run.data, way][id(n.run)] = n.run
    return [Series(name, data, list(runs.values()), way) for (name, data, way), runs in found.items()]


def of_one_budget(runs: Sequence[Run]) -> tuple[list[Run], str]:
    """The runs of the middle number of labels, where a method was trained on several, and that number.

    Curves and costs over different numbers of labels would have no common mean.
    """
    counts = order({word(run.metrics.get("labels")) for run in runs if reads_labels(run)})
    if len(counts) < 2:
        return list(runs), ""
    middle = counts[len(counts) // 2]
    return [run for run in runs if word(run.metrics.get("labels")) == middle], middle


def by_labels(line: Series, every: bool) -> dict[int, list[float]]:
    """Accuracies by number of labels: those that the method was trained with, else the budgets of the probe.

    `every` adds what a probe of all labels reached, at how many these are.
    """
    return _gathered(n for run in line.runs for n in _budgets(run, line.way, every))


def references_by_labels(runs: Sequence[Run], every: bool) -> dict[str, dict[int, list[float]]]:
    """The same for what needs no pretraining; of equal seeds and labels the first run counts."""
    out = {}
    for subject in REFERENCES:
        first: dict[tuple, tuple[int, float]] = {}
        for run in runs:
            for labels, ours in _budgets(run, "linear", every):
                theirs = reference(ours, subject, None)
                if theirs:
                    first.setdefault((labels, run.seed), (labels, theirs.value))
        values: dict[int, list[float]] = defaultdict(list)
        for labels, value in first.values():
            values[labels].append(value)
        if values:
            out[subject] = dict(sorted(values.items()))
    return out


def _budgets(run: Run, way: str, every: bool) -> Iterator[tuple[int, Number]]:
    if reads_labels(run):
        asked = {word(run.metrics.get("labels"))} - {"null"}
    else:
        probes = [m for _, found in run.results("trained") for k in found if (m := PROBE.fullmatch(k))]
        asked = {m["labels"] or "null" for m in probes if m["way"] == way} - (set() if every else {"null"})
    for labels in order(asked):
        found = number(run, labels, None, way)
        rows = labels if labels != "null" else (run.metrics.get("protocol") or {}).get(way, {}).get("rows")
        if found and rows:
            yield int(rows), found


def _gathered(pairs: Iterator[tuple[int, Number]]) -> dict[int, list[float]]:
    values: dict[int, list[float]] = defaultdict(list)
    for labels, found in pairs:
        values[labels].append(found.value)
    return dict(sorted(values.items()))


def validation(path: Path) -> dict[str, dict[int, float]]:
    """Validation scalars by name and step of a metrics.csv, as far as it can be read."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return {}
    for line in text.splitlines()[1:]:
        _, slash, rest = line.partition(",validation/")
        if not slash or rest.count(",") != 1:
            continue
        name, value = rest.split(",")
        try:
            step, number = int(line.split(",")[1]), float(value)
        except ValueError:
            continue  # a last line that was cut off
        if math.isfinite(number):
            found[name][step] = number
    return found


def curve(runs: Sequence[Mapping[str, Mapping[int, float]]], name: str) -> list[tuple[int, float, float]]:
    """Step, mean and standard deviation over the runs that have this scalar there."""
    steps: dict[int, list[float]] = defaultdict(list)
    for run in runs:
        for step, value in run.get(name, {}).items():
            steps[step].append(value)
    most = max(map(len, steps.values()), default=0)
    # A step that only some seeds have (one stopped early, or looked elsewhere) would make the mean jump.
    return [
        (step, statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else 0.0)
        for step, v in sorted(steps.items())
        if len(v) == most
    ]
