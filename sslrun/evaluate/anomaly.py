"""Are samples of other classes than the normal ones found? A method's score beside detectors that need no method."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Split, UserError
from sslrun.data.module import Data
from sslrun.evaluate.proxy import auroc, interval, positives

NEIGHBOURS = 20  # of the local outlier factor: scikit-learn's
NAIVE = "distance"  # of the naive scores of raw inputs: to the mean of training


def anomaly(
    train: Split | None, val: Split | None, test: Split, spec: DataSpec, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Any]:
    """ROC AUC of the scores of the test rows with its bootstrap interval, and average precision.

    A higher score means an anomaly, and nothing is chosen: `val` is not read. Every row counts on its own (no point
    adjustment). Of several scores the distance to the training mean counts. Where test lacks normal rows or anomalies
    the result is empty.
    """
    from sklearn.metrics import average_precision_score

    kind = positives(test.labels.cpu(), spec)
    known = kind >= 0
    if not spec.normal or len(kind[known].unique()) < 2:
        return {}
    name = NAIVE if NAIVE in test.scores else next(iter(test.scores))
    score = test.scores[name].cpu().double()
    bad = int((~score.isfinite()).sum())
    if bad:
        raise UserError(
            f"the score {name} of {bad} of {len(score)} test samples is NaN or infinite; a smaller lr helps."
        )
    low, high = interval(score, kind, resamples, seed)
    found = {
        "auroc": auroc(score, kind),
        "auroc_low": low,
        "auroc_high": high,
        "average_precision": float(average_precision_score(kind[known].numpy(), score[known].numpy())),
    }
    protocol = {
        "positive": f"every class but {', '.join(spec.classes[i] for i in spec.normal)}",
        "share": round(kind[known].double().mean().item(), 4),  # the average precision of a score that knows nothing
        "score": name,
        "adjustment": "none: every row counts on its own",
        "selected_on": "nothing",
    }
    return {**found, "protocol": {"": protocol}}


def refuse(data: Data, **_: Any) -> None:
    """Says before training that no class is normal.

    Raises:
        UserError: `data.normal_class` is not set.
    """
    if not data.spec.normal:
        raise UserError(
            f"eval=[anomaly] asks which samples are not normal, and data={data.spec.name} has no class set apart; name "
            "one by data.normal_class=CLASS, or several."
        )


def isolation_forest(train: Tensor, x: Tensor, seed: int) -> Tensor:
    """How early random cuts isolate rows x (N, D) among those of train (M, D) (Liu, Ting and Zhou 2008), (N,)."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=seed).fit(train.numpy())
    return torch.from_numpy(-forest.score_samples(x.numpy())).double()


def local_outlier_factor(train: Tensor, x: Tensor, seed: int) -> Tensor:
    """How much thinner train (M, D) is around x (N, D) than around x's neighbours (Breunig et al. 2000), (N,)."""
    from sklearn.neighbors import LocalOutlierFactor

    factor = LocalOutlierFactor(min(NEIGHBOURS, len(train) - 1), novelty=True).fit(train.numpy())
    return torch.from_numpy(-factor.score_samples(x.numpy())).double()


anomaly.needs = ("scores",)
anomaly.refuse = refuse
anomaly.beside = {"isolation_forest": isolation_forest, "lof": local_outlier_factor}
