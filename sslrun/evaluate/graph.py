"""How far do a few labels spread over frozen features? Label spreading (Zhou et al. 2004) at each label budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate.features import ordered
from sslrun.evaluate.linear import parts
from sslrun.evaluate.scores import guesses, scores
from sslrun.nn.graph import knn_graph, nearest, spread
from sslrun.nn.transductive import induced, probabilities


def graph(
    train: Split,
    val: Split | None,
    test: Split,
    spec: DataSpec,
    *,
    k: int = 7,
    alpha: float = 0.99,
    standardise: bool | None = None,
    tol: float = 1e-8,
) -> dict[str, Any]:
    """Scores of the test rows, and the accuracy on the training rows whose labels the budget hides.

    The graph holds the training rows alone, labelled or not; a test row takes the weighted mean of its k nearest
    training rows' probabilities. Nothing is selected: `val` is not read. Each class gets its share of the labels shown.
    `standardise` divides features by their standard deviation in training; null: where the data has columns, unless
    features are those columns, or projections of them. Without labels the result is empty.
    """
    known, asked = ordered(train, labelled=False), ordered(test)
    wanted = parts(train, spec)
    if not wanted or len(known.labels) < 2:
        return {}
    fitted, judged = known.features, asked.features
    standardise = bool(spec.fields) and not train.isometric if standardise is None else standardise
    if standardise:
        deviation = fitted.double().std(0, correction=0)
        deviation = deviation.masked_fill(deviation <= 1e-6 * fitted.double().mean(0).abs(), torch.inf).to(fitted)
        fitted, judged = fitted / deviation, judged / deviation
    k = min(k, len(fitted) - 1)
    made = knn_graph(fitted, k)
    near = nearest(fitted, k, judged)
    _, component = made.components()
    place = train.index.cpu().argsort(stable=True).argsort()  # of each row of train among the ordered ones
    found: dict[str, Any] = {"protocol": {}}
    for prefix, rows in wanted:
        y = torch.full_like(known.labels, -1).cpu()
        used = place if rows is None else place[rows.cpu()]
        y[used] = known.labels.cpu()[used]
        shown = (y >= 0).numpy()
        solution = spread(made, np.eye(spec.num_classes)[y] * shown[:, None], alpha, tol)
        reached = np.isin(component, component[shown])
        shares = np.bincount(y[shown], minlength=spec.num_classes)
        p = probabilities(np.where(reached[:, None], solution.values, 0.0), ~shown, shares)
        p = torch.from_numpy(p).to(fitted.device)
        values = scores(guesses(induced(p, *near, made.scale)).to(asked.labels), asked.labels, spec.num_classes)
        hidden = torch.from_numpy(~shown)
        inside = scores(guesses(p).cpu()[hidden], known.labels.cpu()[hidden], spec.num_classes)
        values |= {"transductive_accuracy": inside["accuracy"]} if inside else {}
        values["unreached"] = int((p.sum(1) == 0).sum())  # training rows that no label reaches
        found |= {f"{prefix}/{name}".removeprefix("/"): value for name, value in values.items()}
        found["protocol"][prefix] = {
            "k": k,
            "alpha": alpha,
            "rows": len(fitted),
            "labels": int(shown.sum()),
            "prior": "shares of the labels shown",
            "standardised": "training standard deviation" if standardise else "no",
            "test": "not in the graph; the weighted mean of the k nearest training rows",
            "selected_on": "nothing",
        }
    return found


graph.needs = ("features",)
graph.spreads = True
