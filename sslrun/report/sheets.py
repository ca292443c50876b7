"""The comparison and the runs as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from sslrun.report.axes import Entry
from sslrun.report.compare import Comparison
from sslrun.report.words import listed

FACTS = ("precision", "threads", "world", "steps", "wall_s", "training_s", "samples_per_s", "data_wait", "peak_rss_mb")


def runs(comparison: Comparison) -> str:
    """One row a run: its status, the settings that vary, what it cost, and every metric of every subject.

    Times are in seconds, memory in megabytes, accuracies are shares of one.
    """
    axes = [k for k in comparison.axes if k not in ("method", "data", "labels", "seed", "split_seed")]
    subjects: dict[str, None] = {}
    rows = []
    for run in comparison.runs:
        numbers = {f"{s}:{k}": v for s, found in run.metrics.get("results", {}).items() for k, v in found.items()}
        subjects |= dict.fromkeys(numbers)
        at = Entry(run, run.cells[0] if run.cells else {})
        known = {k: at.value(k) for k in ("method", "data", *axes)}
        labels, (seed, split) = run.metrics.get("labels", run.settings.get("labels")), run.seed
        told = {"run": run.name, "status": run.status, "reason": run.reason, **known, "labels": labels}
        told |= {
            "seed": seed,
            "split_seed": split,
            "primary": run.metrics.get("primary"),
            "harm": run.metrics.get("harm"),
        }
        versions = run.metrics.get("versions") or {}
        told |= {k: run.metrics.get(k) for k in FACTS} | {k: versions.get(k) for k in ("sslrun", "torch")}
        rows.append(told | numbers)
    rows += [{"run": name, "status": "damaged", "reason": reason} for name, reason in comparison.found.damaged]
    heads = list(dict.fromkeys(k for row in rows for k in row if k not in subjects))
    return _written([*heads, *sorted(subjects)], rows)


def comparison(told: Comparison) -> str:
    """One row a cell of the tables, in full precision; the interval is of 95 %, empty with fewer than two pairs."""
    rows = []
    for grid in told.grids:
        for row in grid.rows:
            names = {} if row.reference else dict(zip(told.rows, row.labels, strict=True))
            for column, shown in row.cells.items():
                place = {**grid.at, **names, **dict(zip(told.columns, column, strict=True))}
                line: dict[str, Any] = {**place, "reference": row.reference, "variant": row.note}
                if shown.numbers:
                    d = shown.difference
                    line |= {"metric": shown.metric, "subject": shown.numbers[0].subject, "n": shown.n}
                    line |= {
                        "seeds": " ".join(str(seed) for seed, *_ in shown.values),
                        "mean": shown.mean,
                        "sd": shown.sd,
                    }
                    line |= {"baseline": told.baseline if d else None}
                    line |= {"difference": d and d.mean, "low": d and d.low, "high": d and d.high, "pairs": d and d.n}
                    line |= {"best": shown.best, "harm": shown.harm}
                rows.append(line | {"missing": listed(shown.missing)})
    return _written(list(dict.fromkeys(k for row in rows for k in row)), rows)


def _written(heads: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, heads, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
