"""How many clusters do rows have? Inertia and its elbow, silhouette, and stability over resamples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslrun.nn.lloyd import lloyd, plus_plus, squared_distances
from sslrun.rng import seed_of

ROWS = 5000  # that clusterings are compared on
PAIRS = 2000  # rows whose silhouettes are averaged: these take all pairs
RESTARTS, RESAMPLES, SHARE = 5, 5, 0.8  # starts of each clustering; pairs of resamples, and the rows of each
STABLE = 0.9  # a number of clusters counts as stable from this share of the largest stability


def how_many(x: Tensor, ks: range, seed: int) -> list[dict[str, Any]]:
    """What speaks for each number of clusters of rows (N, D), as a table, in which one is `chosen`.

    `inertia` always falls with k: its `elbow` is where the scaled curve lies farthest below the line through its ends
    (Satopaa et al. 2011, kneedle). `silhouette` is Rousseeuw's (1987). `stability` is the adjusted Rand index between
    the clusterings of all rows by centres of two resamples (Ben-Hur et al. 2002). Chosen is the largest silhouette
    among the stable ones.
    """
    draw = torch.Generator().manual_seed(seed_of(seed, "how many"))
    x = x[torch.randperm(len(x), generator=draw)[:ROWS]]
    apart = torch.cdist(x[:PAIRS], x[:PAIRS], compute_mode="donot_use_mm_for_euclid_dist")
    table = []
    for k in ks:
        _, nearest, inertia = lloyd(x, plus_plus(x, k, RESTARTS, draw))
        table.append({"k": k, "inertia": float(inertia.min()), "silhouette": silhouette(apart, nearest[:PAIRS]),
                      "stability": stability(x, k, draw)})  # fmt: skip
    bend, best = elbow([row["inertia"] for row in table]), max(row["stability"] for row in table)
    stable = [row for row in table if row["stability"] >= STABLE * best]
    chosen = max(stable, key=lambda row: row["silhouette"])
    return [row | {"elbow": i == bend, "chosen": row is chosen} for i, row in enumerate(table)]


def elbow(inertia: list[float]) -> int | None:
    """The place in a falling curve where it bends most; None where it has no inside."""
    if len(inertia) < 3 or inertia[0] <= inertia[-1]:
        return None
    fall = [(inertia[0] - value) / (inertia[0] - inertia[-1]) for value in inertia]
    return max(range(len(fall)), key=lambda i: fall[i] - i / (len(fall) - 1))


def silhouette(apart: Tensor, nearest: Tensor) -> float:
    """The mean silhouette of rows with distances (N, N) and clusters (N,); 0 for a row that is alone in its own."""
    names, own = nearest.unique(return_inverse=True)
    if len(names) < 2:
        return 0.0
    member = torch.nn.functional.one_hot(own).to(apart)  # (N, K)
    sums, counts = apart @ member, member.sum(0)
    within = sums.gather(1, own.unsqueeze(1)).squeeze(1) / (counts[own] - 1).clamp_min(1)
    other = (sums / counts).scatter(1, own.unsqueeze(1), torch.inf).amin(1)
    value = (other - within) / torch.maximum(other, within).clamp_min(1e-300)
    return float(torch.where(counts[own] > 1, value, 0.0).mean())


def stability(x: Tensor, k: int, draw: torch.Generator) -> float:
    """The mean adjusted Rand index of pairs of clusterings, each by the centres of another resample of rows (N, D)."""
    from sklearn.metrics import adjusted_rand_score

    def clusters() -> Tensor:
        some = x[torch.randperm(len(x), generator=draw)[: max(k, int(SHARE * len(x)))]]
        centres = lloyd(some, plus_plus(some, k, RESTARTS, draw))[0]
        return squared_distances(x, centres.unsqueeze(0))[:, 0].argmin(1)

    return sum(float(adjusted_rand_score(clusters(), clusters())) for _ in range(RESAMPLES)) / RESAMPLES
