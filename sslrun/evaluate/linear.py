"""The linear probe: multinomial logistic regression on standardised frozen features, its strength chosen, not typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate.features import ordered
from sslrun.evaluate.scores import scores
from sslrun.nn.folds import stratified
from sslrun.nn.regression import ROUGH, SHARP, Probe, Regression

STRENGTHS = tuple(10.0**power for power in range(-4, 4))  # values of C, from strong to weak regularisation
FOLDS = 5  # of a cross-validation, at most
FIXED = 1.0  # C where there are too few labels to choose it


def linear(
    train: Split, val: Split | None, test: Split, spec: DataSpec, *, strengths: Sequence[float] = STRENGTHS
) -> dict[str, Any]:
    """Test scores of a probe on all training labels and on each budget of `train.budgets`.

    With all labels C is the one of `strengths` that is best on validation; within a budget (and where validation has
    no labels) it is chosen by stratified cross-validation among the training rows used. Without labels the result is
    empty.
    """
    found: dict[str, Any] = {"protocol": {}}
    for prefix, rows in parts(train, spec):
        values, found["protocol"][prefix] = probe(train, val if prefix == "" else None, test, spec, rows, strengths)
        found |= {f"{prefix}/{name}".removeprefix("/"): value for name, value in values.items()}
    return found if len(found) > 1 else {}


linear.needs = ("features",)


def parts(train: Split, spec: DataSpec) -> list[tuple[str, Tensor | None]]:
    """What probes train on: prefixes of metrics, "" for all labels and "@n" for a budget, and rows of train."""
    if not spec.num_classes or not (train.labels >= 0).any():
        return []
    return [("", None), *((f"@{n}", rows) for n, rows in sorted((train.budgets or {}).items()))]


def probe(
    train: Split,
    val: Split | None,
    test: Split,
    spec: DataSpec,
    rows: Tensor | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Test scores of one probe on `rows` of train (all: None), and its protocol.

    The protocol has `C`, what it was `selected_on`, and `selected_score`, the (accuracy, -log loss) it reached there.
    """
    used, asked = ordered(train, rows), ordered(test)
    held_out = ordered(val) if val is not None else None
    chosen, on, score, regression = choose(used, held_out, spec.num_classes, strengths)
    final = regression.solve(chosen, SHARP)
    predicted = final.logits(asked.features, spec.num_classes).argmax(1)
    protocol = {
        "C": chosen,
        "selected_on": on,
        "selected_score": score,
        "rows": len(used.labels),
        "standardised": "mean and standard deviation of the training rows used",
    }
    return scores(predicted, asked.labels, spec.num_classes), protocol


def choose(
    used: Split, held_out: Split | None, num_classes: int, strengths: Sequence[float]
) -> tuple[float, str, tuple[float, float] | None, Regression]:
    """The C with the best accuracy, of equal ones that with the lower log loss, then the stronger regularisation.

    Returns it with what it was chosen on, its score there, and the regression on all rows used.
    """
    strengths = sorted(strengths)
    whole = Regression(used.features, used.labels)
    if held_out is not None and len(held_out.labels):
        on = "val"
        judged = [judge(whole.solve(c, ROUGH), held_out, num_classes) for c in strengths]
        total = torch.stack(judged) / len(held_out.labels)  # (number of strengths, 2)
    else:
        smallest = int(used.labels.unique(return_counts=True)[1].min())
        folds = min(FOLDS, smallest)
        if folds < 2:
            return FIXED, "nothing: a class has a single label", None, whole
        on = f"cross-validation in the training rows used, a fold for each label of the rarest class, {FOLDS} at most"
        fold = stratified(used.labels, used.index, folds)
        total = torch.zeros(len(strengths), 2, dtype=torch.float64)
        for held in range(folds):
            kept, left = take(used, fold != held), take(used, fold == held)
            regression = Regression(kept.features, kept.labels)
            total += torch.stack([judge(regression.solve(c, ROUGH), left, num_classes) for c in strengths])
        total /= len(used.labels)
    ranked = [tuple(row) for row in total.tolist()]
    best = max(range(len(strengths)), key=lambda i: ranked[i])  # the first of equals: the strongest regularisation
    return strengths[best], on, ranked[best], whole


def judge(probe: Probe, split: Split, num_classes: int) -> Tensor:
    """Number of hits and minus the summed log loss, (2,); a class that was never seen costs 50."""
    logits = probe.logits(split.features, num_classes)
    loss = F.cross_entropy(logits, split.labels, reduction="none").clamp_max(50)
    return torch.stack([(logits.argmax(1) == split.labels).sum().double(), -loss.sum()])


def take(split: Split, mask: Tensor) -> Split:
    return Split(split.features[mask], split.labels[mask], split.index[mask])
