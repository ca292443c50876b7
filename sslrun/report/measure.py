"""Which of a run's numbers stands in a cell, by rules that look at no test result.

A method that predicts classes is judged by its own predictions, of the averaged weights (`ema`) where the method keeps
them, since these are what it hands on, else of the `model`. Any other method is judged by the linear probe of its
`trained` encoder on as many labels as the cell says, and beside it by fine-tuning where runs have both. Where no labels
are swept it is the run's own primary metric.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sslrun.report.collect import Run
from sslrun.verdict import JUDGED

OWN = "classify/accuracy"
PROBE = re.compile(r"(?P<way>linear|finetune)(?:@(?P<labels>\d+))?/accuracy")
REFERENCES = ("supervised", "random", "raw", "isolation_forest", "lof", "trivial")
MEANING = {
    "supervised": "same network, labels only",
    "random": "same encoder, untrained",
    "raw": "the inputs themselves",
    "isolation_forest": "isolation forest of the inputs",
    "lof": "local outlier factor of the inputs",
    "trivial": "no learning",
}


@dataclass(frozen=True)
class Number:
    """A value with where it comes from; numbers of the same `kind` (a measure, labels) may be compared."""

    value: float
    metric: str
    subject: str
    kind: tuple[str, str]
    run: Run


def reads_labels(run: Run) -> bool:
    """Whether the method itself was trained on labels, so that `labels` is a property of the run."""
    if run.scored:
        return any(OWN in found for _, found in run.results("model", "ema"))
    return run.settings.get("labels") is not None


def ways(run: Run) -> list[str]:
    """How the labels were put to the encoder: by a `linear` probe, and by fine-tuning (`finetune`)."""
    return sorted({m["way"] for _, found in run.results("trained") for k in found if (m := PROBE.fullmatch(k))})[::-1]


def number(run: Run, labels: str | None, metric: str | None, way: str = "linear") -> Number | None:
    """The run's number in the cell of `labels` (None: they are no axis), of `metric` if one was asked for."""
    name = metric or wanted(run, labels, way)
    if name is None:
        return None
    family = name.split("/")[0].split("@")[0]
    own = family in ("anomaly", "classify", "proxy", "task")
    # clusters of an encoder that the method has trained are as many for every method; its own may be many more
    own |= family == "cluster" and run.settings.get("weights") is not None
    subjects = JUDGED if own else ("trained", "ema", "model")
    for subject, found in run.results(*subjects):
        if name in found:
            return Number(found[name], name, subject, kind(run, name, labels, metric), run)
    return None


def wanted(run: Run, labels: str | None, way: str) -> str | None:
    if labels is None:
        return run.metrics.get("primary")
    if reads_labels(run):
        return OWN
    return f"{way}/accuracy" if labels == "null" else f"{way}@{labels}/accuracy"


def kind(run: Run, name: str, labels: str | None, metric: str | None) -> tuple[str, str]:
    probe = PROBE.fullmatch(name)
    if metric or not (probe or name == OWN):
        return name, ""
    if probe:
        return "accuracy", probe["labels"] or "null"
    used = run.metrics.get("labels")
    return "accuracy", labels or ("null" if used is None else str(used))


def reference(ours: Number, subject: str, metric: str | None) -> Number | None:
    """What `random`, `raw` or `supervised` reach in the same run with as many labels.

    The supervised network is judged by its own predictions where they were scored, the encoder and the inputs by the
    linear probe; a metric that was asked for is read as it is.
    """
    found = ours.run.metrics["results"].get(subject, {})
    names = [ours.metric]
    name, labels = ours.kind
    if not metric and name == "accuracy":
        at = "" if labels == "null" else f"@{labels}"
        names = [f"linear{at}/accuracy"]
        if subject == "supervised":
            same = reads_labels(ours.run) or labels == "null"  # their plain `classify` has the run's own labels
            names = [f"classify{at}/accuracy", *([OWN] if same else []), *names]
    has = next((n for n in names if n in found), None)
    return Number(found[has], has, subject, ours.kind, ours.run) if has else None
