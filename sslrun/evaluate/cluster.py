"""Do features fall into groups, and are the groups the classes? k-means or a Gaussian mixture on frozen features."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from sslrun.contracts import DataSpec, Split, UserError
from sslrun.evaluate.features import ordered
from sslrun.evaluate.scores import scores
from sslrun.nn.mixture import coefficients, em, joint_log, started
from sslrun.rng import seed_of

SILHOUETTE_ROWS = 2000  # it compares all pairs
COMPONENTS = 64  # principal ones that a mixture is fitted to at most: its cost grows with their square
RESTARTS, FLOOR = 5, 1e-3  # of a mixture; the share of the mean variance that every variance is raised by


def cluster(
    train: Split,
    val: Split | None,
    test: Split,
    spec: DataSpec,
    *,
    model: str = "kmeans",
    k: int = 10,
    standardise: bool | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Clusters fitted to the training features, judged on the test features.

    There are as many clusters as classes, and `k` where the data names no classes. `nmi`, `ari` and, where training has
    labels to name the clusters by, `accuracy` compare the clusters with the test labels. `standardise` divides features
    by their standard deviation in training, and leaves out what is constant there; null: unless they are inputs, or
    projections of them, whose scales mean something.

    `model` is `kmeans`, whose `inertia` is the mean squared distance of a test row to its centre; or `gmm`, a Gaussian
    mixture with one covariance that all components share, of the first principal components of the features.
    """
    seen, asked = ordered(train, labelled=False), ordered(test, labelled=False)
    fitted, judged = seen.features.cpu().double(), asked.features.cpu().double()
    if not len(fitted) or not len(judged):
        return {}
    standardise = not train.isometric if standardise is None else standardise
    if standardise:
        mean, std = fitted.mean(0), fitted.std(0, correction=0)
        constant = std <= 1e-6 * mean.abs()
        fitted, judged = (
            ((part - mean) / std.masked_fill(constant, 1.0)).masked_fill(constant, 0.0) for part in (fitted, judged)
        )
    groups = min(spec.num_classes or k, len(fitted))
    own, assigned, found, how = MODELS[model](fitted, judged, groups, seed)
    names = match(own, seen.labels.cpu(), groups, spec.num_classes)
    found |= cluster_scores(assigned, asked.labels.cpu(), spec.num_classes, names)
    found |= silhouette(judged, assigned, seed)
    found["protocol"] = {
        "": {
            "k": groups,
            **how,
            "rows": len(fitted),
            "standardised": "training mean and standard deviation" if standardise else "no",
            "accuracy": "clusters named one to one by the training labels (Hungarian matching), scored on test",
            "silhouette_rows": min(len(judged), SILHOUETTE_ROWS),
        }
    }
    return found


def silhouette(x: Tensor, assigned: Tensor, seed: int) -> dict[str, float]:
    """The mean silhouette (Rousseeuw 1987) of a sample of rows (N, D) in clusters (N,); nothing of a single cluster."""
    from sklearn.metrics import silhouette_score

    draw = torch.Generator().manual_seed(seed_of("silhouette", seed))
    some = torch.randperm(len(x), generator=draw)[:SILHOUETTE_ROWS]
    if not 1 < len(assigned[some].unique()) < len(some):
        return {}
    return {"silhouette": float(silhouette_score(x[some].numpy(), assigned[some].numpy()))}


def _kmeans(fitted: Tensor, judged: Tensor, groups: int, seed: int) -> tuple[Tensor, Tensor, dict, dict]:
    """Clusters of the rows that were fitted (N,) and of those to be judged (M,), what was measured, and how."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct rows than clusters: a collapsed encoder
        means = KMeans(groups, n_init=10, random_state=seed).fit(fitted.numpy())
    assigned = torch.from_numpy(means.predict(judged.numpy())).long()
    centre = torch.from_numpy(means.cluster_centers_)[assigned]  # (M, D)
    inertia = (judged - centre).square().sum(1).mean().item()
    how = {"restarts": 10, "selected_on": "training inertia"}
    return torch.from_numpy(means.labels_).long(), assigned, {"inertia": inertia}, how


def _gmm(fitted: Tensor, judged: Tensor, groups: int, seed: int) -> tuple[Tensor, Tensor, dict, dict]:
    """The same by a mixture of Gaussians whose shared covariance needs few rows."""
    middle = fitted.mean(0)
    fitted, judged = fitted - middle, judged - middle
    axes = torch.linalg.eigh(fitted.T @ fitted / len(fitted)).eigenvectors.flip(1)[:, :COMPONENTS]
    fitted, judged = fitted @ axes, judged @ axes  # (N, C), (M, C)
    floor = max(FLOOR * float(fitted.square().mean()), 1e-12)  # a collapsed encoder has no variance at all
    draw = torch.Generator().manual_seed(seed_of("mixture", seed))
    mixture, value = em(fitted, started(fitted, groups, "tied", "kmeans", floor, RESTARTS, draw), "tied", floor)
    theta = coefficients(mixture, "tied")[value.argmax()]
    own, assigned = (joint_log(part, theta, "tied").argmax(1) for part in (fitted, judged))
    how = {
        "covariance": f"one for all components, {FLOOR:g} of the mean variance added",
        "principal_components": axes.shape[1],
        "restarts": RESTARTS,
        "selected_on": "training likelihood",
    }
    return own, assigned, {}, how


MODELS = {"kmeans": _kmeans, "gmm": _gmm}


def refuse(data: Any, *, model: str = "kmeans", **_: Any) -> None:
    """Says before training that there is no such model.

    Raises:
        UserError: `model` is unknown.
    """
    if model not in MODELS:
        raise UserError(f"model={model} of eval=[cluster] is unknown; choose from {', '.join(MODELS)}.")


def trivial(train: Tensor, test: Tensor, spec: DataSpec) -> dict[str, float]:
    """One cluster for all rows, the commonest class of the training labels (N,), scored on those of test (M,)."""
    names = match(torch.zeros_like(train), train, 1, spec.num_classes)
    return cluster_scores(torch.zeros_like(test), test, spec.num_classes, names)


cluster.needs = ("features",)
cluster.refuse = refuse
cluster.trivial = trivial


def match(assigned: Tensor, labels: Tensor, num_clusters: int, num_classes: int) -> Tensor | None:
    """The class of each cluster (num_clusters,), one to one, that agrees most with the labelled rows.

    A cluster that is left over is -1; without a labelled row, or without classes, there is no answer.
    """
    table = _table(assigned, labels, num_clusters, num_classes)
    if table is None:
        return None
    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    names = torch.full((num_clusters,), -1)
    names[torch.from_numpy(rows)] = torch.from_numpy(columns)
    return names


def majority(assigned: Tensor, labels: Tensor, num_clusters: int, num_classes: int) -> Tensor | None:
    """The commonest class of each cluster (num_clusters,) among its labelled rows; several may share one.

    A cluster without a labelled row is -1; without a labelled row at all, or without classes, there is no answer.
    """
    table = _table(assigned, labels, num_clusters, num_classes)
    return None if table is None else torch.where(table.sum(1) > 0, table.argmax(1), -1)


def named(
    assigned: Tensor, labels: Tensor, num_clusters: int, num_classes: int, budget: int | None
) -> tuple[Tensor | None, dict[str, Any]]:
    """The class of each cluster by the labelled training rows, and how it came about.

    One to one where there are no more clusters than classes, and by the majority of its rows where there are more.
    `budget` is the number of labels shown; None: all.
    """
    more = num_clusters > num_classes
    names = (majority if more else match)(assigned, labels, num_clusters, num_classes)
    if names is None:
        return None, {"k": num_clusters}
    how = "each cluster is the commonest class" if more else "clusters are classes one to one (Hungarian matching)"
    rows = f"those of labels={budget} in splits.json" if budget else "all that have a label"
    return names, {
        "k": num_clusters,
        "accuracy": f"{how} of {int((labels >= 0).sum())} labelled training rows, {rows}; scored on test",
        "clusters_without_name": int((names < 0).sum()),
    }


def _table(assigned: Tensor, labels: Tensor, num_clusters: int, num_classes: int) -> Tensor | None:
    """Labelled rows by cluster and class, (num_clusters, num_classes); None where there is none."""
    known = (labels >= 0) & (assigned >= 0)
    if not num_classes or not known.any():
        return None
    pairs = assigned[known] * num_classes + labels[known]
    return torch.bincount(pairs, minlength=num_clusters * num_classes).view(num_clusters, num_classes)


def cluster_scores(assigned: Tensor, labels: Tensor, num_classes: int, names: Tensor | None = None) -> dict[str, float]:
    """How well clusters (N,) agree with labels (N,), of which -1 is left out.

    `nmi` and `ari` need nothing else; accuracy, balanced accuracy and macro F1 need `names`, the class of each cluster
    from `match` on other rows than these. A cluster of -1 (unknown) is a group of its own, and has no class.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    known = labels >= 0
    assigned, labels = assigned[known], labels[known]
    if not num_classes or not len(labels):
        return {}
    found = {
        "nmi": float(normalized_mutual_info_score(labels.numpy(), assigned.numpy())),
        "ari": float(adjusted_rand_score(labels.numpy(), assigned.numpy())),
    }
    if names is not None:
        found |= scores(torch.where(assigned < 0, -1, names[assigned.clamp_min(0)]), labels, num_classes)
    return found
