"""Does a score that was learned without labels tell classes apart? ROC AUC beside naive scores of the inputs.

The score of a pretext task is its own error on a sample; the label that it is held against was never trained on. Which
way a score points is decided on the validation part, and so is the best of several; the test part decides nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Split, UserError
from sslrun.data.module import Data
from sslrun.data.source import class_numbers, named
from sslrun.rng import seed_of

LEVEL = 0.95  # of the interval
CELLS = 2**24  # counts in memory at a time


def proxy(
    train: Split | None,
    val: Split,
    test: Split,
    spec: DataSpec,
    *,
    positive: Any = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """ROC AUC of the scores of the test rows, `auroc`, with its percentile bootstrap interval.

    A score whose AUC on validation is below one half is negated. Of several scores `auroc` is that of the best one on
    validation, and each has its own beside it, `NAME_auroc`. The positive class is `positive` (a name or number,
    against all others), of two classes the second; in a one-class split it is whatever is not normal. Rows without a
    label do not count; where a part lacks one of both kinds the result is empty.
    """
    chooser, judged = (positives(split.labels.cpu(), spec, positive) for split in (val, test))
    if not (_both(chooser) and _both(judged)):
        return {}
    signs, chosen_by, found = {}, {}, {}
    for name in test.scores:
        on_val, on_test = (split.scores[name].cpu().double() for split in (val, test))
        if not (on_val.isfinite().all() and on_test.isfinite().all()):
            raise UserError(f"the score {name} holds NaN or infinity; a smaller lr or precision=fp32 would help.")
        plain = auroc(on_val, chooser)
        signs[name] = -1 if plain < 0.5 else 1
        chosen_by[name] = max(plain, 1 - plain)
        found[f"{name}_auroc"] = auroc(signs[name] * on_test, judged)
    best = max(chosen_by, key=chosen_by.get)  # the first of equals
    low, high = interval(signs[best] * test.scores[best].cpu().double(), judged, resamples, seed)
    result = {"auroc": found[f"{best}_auroc"], "auroc_low": low, "auroc_high": high}
    protocol = {
        "positive": _named(spec, positive),
        "interval": f"percentile bootstrap within each class, {LEVEL:.0%} of {resamples:,} resamples",
        "selected_on": "val",
        "score": best,
        "sign": signs[best],
        "val_auroc": chosen_by[best],
    }
    if len(found) > 1:
        result |= found
        protocol["scores"] = {n: {"sign": signs[n], "val_auroc": chosen_by[n]} for n in signs}
    return {**result, "protocol": {"": protocol}}


def refuse(data: Data, *, positive: Any = None, **_: Any) -> None:
    """Says before training what this evaluator could not do after it.

    Raises:
        UserError: no labels, no validation part, or no telling which class is positive.
    """
    spec, val = data.spec, data.open_val()
    if spec.num_classes < 2:
        raise UserError(f"eval=[proxy] holds scores against labels, and data={spec.name} has none to tell apart.")
    if spec.normal and positive is not None:
        raise UserError(
            f"eval.proxy.positive={positive} and data.normal_class exclude each other: in a one-class split whatever "
            "is not normal is positive; leave one out."
        )
    if positive is not None:
        class_numbers(positive, spec, "eval.proxy.positive")
    elif spec.num_classes > 2 and not spec.normal:
        raise UserError(
            f"data={spec.name} has {spec.num_classes} classes; name the one that the score should single out by "
            f"eval.proxy.positive=CLASS ({named(list(spec.classes), 'class')}), or train on one alone by "
            "data.normal_class=CLASS."
        )
    if val is None or not _both(positives(val.labels, spec, positive)):
        raise UserError(
            "eval=[proxy] fixes the sign of the score on the validation part, which needs samples of both kinds: raise "
            "data.val_fraction, give a part that has both, or take eval=[anomaly], which needs none."
        )


proxy.needs = ("scores",)
proxy.refuse = refuse


def positives(labels: Tensor, spec: DataSpec, positive: Any = None) -> Tensor:
    """1 where a label is of the positive kind, 0 where it is not, -1 where it is unknown, (N,)."""
    if spec.normal:
        hit = ~torch.isin(labels, torch.tensor(spec.normal))
    else:
        wanted = (1,) if positive is None else class_numbers(positive, spec, "eval.proxy.positive")
        hit = torch.isin(labels, torch.tensor(wanted))
    return torch.where(labels < 0, -1, hit.long())


def _both(kind: Tensor) -> bool:
    return bool((kind == 1).any()) and bool((kind == 0).any())


def _named(spec: DataSpec, positive: Any) -> str:
    if spec.normal:
        return f"every class but {', '.join(spec.classes[i] for i in spec.normal)}"
    wanted = (1,) if positive is None else class_numbers(positive, spec, "eval.proxy.positive")
    return ", ".join(spec.classes[i] for i in wanted)


def auroc(scores: Tensor, kind: Tensor) -> float:
    """The chance that a positive row (kind 1) scores above a negative one (kind 0), ties counting one half."""
    place, levels = _places(scores, kind)
    counts = [torch.bincount(p, minlength=levels).double().unsqueeze(0) for p in place]
    return _area(*counts).item()


def interval(scores: Tensor, kind: Tensor, resamples: int, seed: int) -> tuple[float, float]:
    """Ends of the percentile bootstrap interval of `auroc` (Efron and Tibshirani 1993, chapter 13).

    Positives and negatives are drawn each among themselves, so that no resample lacks a kind.
    """
    place, levels = _places(scores, kind)
    draw = torch.Generator().manual_seed(seed_of("bootstrap", seed))
    areas = []
    step = max(1, CELLS // max(levels, *map(len, place)))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        counts = []
        for p in place:
            drawn = p[torch.randint(len(p), (size, len(p)), generator=draw)]  # (size, n)
            ones = torch.ones_like(drawn, dtype=torch.float64)
            counts.append(torch.zeros(size, levels, dtype=torch.float64).scatter_add_(1, drawn, ones))
        areas.append(_area(*counts))
    tail = (1 - LEVEL) / 2
    low, high = torch.cat(areas).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return low, high


def _places(scores: Tensor, kind: Tensor) -> tuple[list[Tensor], int]:
    """Ranks of the positive and of the negative scores among the distinct ones, ascending, and how many those are."""
    levels, place = scores[kind >= 0].unique(return_inverse=True)
    known = kind[kind >= 0]
    return [place[known == 1].sort().values, place[known == 0].sort().values], len(levels)


def _area(above: Tensor, below: Tensor) -> Tensor:
    """The area under the curve, (R,), of counts of positives and negatives at each rank, (R, L)."""
    beaten = below.cumsum(1) - below / 2  # negatives below each rank, and half of those at it
    return (above * beaten).sum(1) / (above.sum(1) * below.sum(1))


def scaled(x: Tensor, spec: DataSpec) -> Tensor:
    """Flattened inputs (N, D), columns (of pictures: channels) divided by their standard deviation in training.

    Or else those in large units would count alone.
    """
    scale = torch.tensor(spec.std or (1.0,)).double().view(1, -1, 1)  # (1, C, 1)
    return (x.double().view(len(x), scale.shape[1], -1) / scale).flatten(1)


def naive(train: Tensor, inputs: Tensor, spec: DataSpec) -> dict[str, Tensor]:
    """Scores of flattened inputs (N, D) that need no learning: norm, distance to the training mean, first component."""
    from sklearn.decomposition import PCA

    seen, asked = (scaled(x, spec) for x in (train, inputs))
    component = PCA(1, random_state=0).fit(seen.numpy())
    return {
        "norm": asked.norm(dim=1),
        "distance": (asked - seen.mean(0)).norm(dim=1),
        "pc1": torch.from_numpy(component.transform(asked.numpy())[:, 0]).double(),
    }
