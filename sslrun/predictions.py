"""A method's own predictions on the test part: by the last weights, and what another choice of step would tell."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from sslrun.evaluate.cluster import cluster_scores, named, silhouette
from sslrun.evaluate.judge import Judge
from sslrun.evaluate.scores import guesses, scores
from sslrun.progress import progress
from sslrun.record.folder import RunFolder, write_table
from sslrun.record.tail import LAST, Tail
from sslrun.streams import classifies
from sslrun.verdict import BEST, MEDIAN

Scores = dict[str, dict[str, float]]


def stepwise(objectives: Any) -> bool:
    """Whether a method's predictions depend on the step that training ends at: a classifier trained by gradients."""
    return any(o.trains and classifies(o) for o in objectives)


def own(
    learner: Any, judge: Judge, title: str | None = "predictions on the test part"
) -> tuple[Scores, Tensor | None, str | None]:
    """Scores of the method's own predictions on the test part as `model` and `ema`, by the weights as they are.

    Also one model's predictions (N, K) and what they are, `class` or `cluster`: of several methods the first that names
    classes.
    """
    test, results, found = judge.parts["test"], {}, {}
    if test is None:
        return results, None, None
    for subject, objective, predict in _models(learner):
        p = judge.probabilities(lambda x, predict=predict: predict(learner.encoder, x), test, title)
        found.setdefault(objective.predicts, p)
        results[subject] = _scores(subject, objective, predict, learner, p, judge)
    kind = next((k for k in ("class", "cluster") if k in found), None)
    return results, found.get(kind), kind


def by_step(learner: Any, judge: Judge, tail: Tail, best: Any) -> Scores:
    """The same for classifiers as the median of the run's last evaluations, and at the best validation step.

    `best` is the checkpoint of that step, or None. The learner ends with the weights that it had.
    """
    last = copy.deepcopy(learner.state_dict())
    classes = {s for s, objective, _ in _models(learner) if objective.trains and classifies(objective)}
    results: Scores = {}
    try:
        states = progress(tail.states(), LAST, f"predictions of the last {LAST} evaluations")
        late = [_at(state, learner, judge, classes) for state in states]
        for subject in late[0] if late else ():
            keys = late[0][subject]
            results[subject + MEDIAN] = {k: statistics.median(found[subject][k] for found in late) for k in keys}
        if best is not None:
            state = torch.load(best, map_location="cpu", weights_only=True)["state_dict"]
            results |= {s + BEST: found for s, found in _at(state, learner, judge, classes).items()}
    finally:
        learner.load_state_dict(last)
    return results


def protocol_of(results: Scores, monitor: Any, looks: int, validation: int) -> dict[str, Any]:
    """How the scores of predictions came about, as far as there are several."""
    told: dict[str, Any] = {"selected_on": "nothing: the last step"}
    if any(s.endswith(MEDIAN) for s in results):
        told[MEDIAN[1:]] = f"median of {LAST} evaluations, evenly over the last fifth of the steps"
    if any(s.endswith(BEST) for s in results):
        told[BEST[1:]] = f"the step of the best {monitor.primary} of {looks} looks"
        told["validation_labels"] = f"{validation}, not counted among the run's labels"
    return {"classify": told} if len(told) > 1 else {}


def write(folder: RunFolder, p: Tensor, data: Any, kind: str) -> None:
    """`predictions.csv`: the label or cluster of each test sample, and how sure the method is of it."""
    names = data.spec.classes if kind == "class" else ()  # a cluster has a number only, also where there are K of them
    rows = []
    for i, row in zip(data.open_test().index.tolist(), p, strict=True):
        best = int(row.argmax())
        label = "" if row.sum() == 0 else names[best] if best < len(names) else best
        rows.append({"index": i, "label": label, "confidence": f"{row[best]:.4f}"})
    write_table(folder / "predictions.csv", rows)


def _models(learner: Any) -> Iterator[tuple[str, Any, Callable]]:
    """Each network that predicts: the subject that it is judged as, its objective, and the function."""
    alone = len(learner.objectives) == 1
    for name, objective in learner.objectives.items():
        for kind, predict in (("model", objective.predict), ("ema", objective.ema_predict)):
            if predict is not None:
                yield kind if alone else f"{kind}:{name}", objective, predict


def _transductive(objective: Any, train: Any, spec: Any) -> dict[str, float]:
    """The accuracy on the training rows whose labels were hidden, of a method that solves for these."""
    if objective.transductive is None:
        return {}
    index, p = (values.cpu() for values in objective.transductive())
    order = train.index.argsort()
    labels = train.labels[order[torch.searchsorted(train.index[order], index)]]
    found = scores(guesses(p), labels, spec.num_classes)
    return {"classify/transductive_accuracy": found["accuracy"]} if found else {}


def _at(state: dict[str, Tensor], learner: Any, judge: Judge, subjects: set[str]) -> Scores:
    learner.load_state_dict(state)
    return {s: found for s, found in own(learner, judge, None)[0].items() if s in subjects}


def _scores(subject: str, objective: Any, predict: Callable, learner: Any, p: Tensor, judge: Judge) -> dict[str, float]:
    test, train = judge.parts["test"], judge.parts["train"]
    known = test.labels >= 0
    guess = guesses(p)
    if objective.predicts == "class":
        found = scores(guess[known], test.labels[known], judge.spec.num_classes) if known.any() else {}
        return {f"classify/{k}": v for k, v in found.items()} | _transductive(objective, train, judge.spec)
    if judge.spec.normal:  # groups of one class are not held against the others
        return {}
    features = judge.probabilities(learner.encoder, test).double()  # what the groups are made of
    found = silhouette(features, guess, judge.data.seed)
    assigned = judge.probabilities(lambda x: predict(learner.encoder, x), train).argmax(1)
    names, how = named(assigned, train.y, p.shape[1], judge.spec.num_classes, judge.data.num_labels)
    judge.note("cluster", subject, how)
    found |= cluster_scores(guess, test.labels, judge.spec.num_classes, names)
    return {f"cluster/{k}": v for k, v in found.items()}
