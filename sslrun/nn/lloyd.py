"""What k-means is made of: distances, sums and starts of many restarts in one matrix product.

Letters: N rows, D features, R restarts, K clusters. Rows are centred and float64, so that no digits are lost.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

BLOCK = 1 << 19  # scores at once: more than a processor's cache holds are slower; an accelerator takes many more
PAIRS = 4096  # rows up to which k-means++ keeps the distances of all pairs


def extended(x: Tensor) -> Tensor:
    """Rows with a column of ones, (N, D) to (N, D + 1): what scores and sums are products with."""
    return torch.cat([x, torch.ones_like(x[:, :1])], 1)


def weights_of(centres: Tensor) -> Tensor:
    """Centres (R, K, D) as (R K, D + 1): extended rows times these are half the squared distances less |x|^2 / 2."""
    flat = centres.flatten(0, 1)
    return torch.cat([-flat, flat.square().sum(1, keepdim=True) / 2], 1)


def squared_distances(x: Tensor, centres: Tensor) -> Tensor:
    """(N, D) and (R, K, D) to (N, R, K)."""
    squares = x.square().sum(1, keepdim=True)
    flat = torch.addmm(squares, extended(x), weights_of(centres).T, alpha=2)
    return flat.clamp_min_(0).view(len(x), *centres.shape[:2])


def assign(rows: Tensor, centres: Tensor, before: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest centre of each extended row (N, D + 1) in each restart, and its score, both (R, N).

    A score is half the squared distance less |x|^2 / 2. With the clusters `before` (R, N) a row stays where no other
    centre is nearer: which centre is nearest is then asked only of rows that go, since that costs as much as the
    distances. Rows come last, so that the least score over centres is taken of whole vectors of rows.
    """
    many, k, _ = centres.shape
    size = max(1, (BLOCK if rows.device.type == "cpu" else BLOCK << 10) // max(1, many * k))
    # used again and again: fresh memory costs more than what is done in it
    space = rows.new_empty(many * k * min(size, len(rows)))
    nearest = torch.empty(many, len(rows), dtype=torch.long, device=rows.device) if before is None else before.clone()
    least = rows.new_empty(many, len(rows))
    weights = weights_of(centres)
    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        score = torch.mm(weights, part.T, out=space[: many * k * len(part)].view(many * k, len(part)))
        score = score.view(many, k, len(part))
        low, near = least[:, start : start + size], nearest[:, start : start + size]
        if before is None:
            torch.min(score, 1, out=(low, near))
        else:
            torch.amin(score, 1, out=low)
            restart, row = (low < score.gather(1, near.unsqueeze(1)).squeeze(1)).nonzero(as_tuple=True)
            near[restart, row] = score[restart, :, row].argmin(1)
    return nearest, least


def distances(scores: Tensor, x: Tensor) -> Tensor:
    """Scores (R, N) of rows (N, D) as squared distances."""
    return (2 * scores + x.square().sum(1)).clamp_min_(0)


def totals(rows: Tensor, nearest: Tensor, k: int) -> Tensor:
    """Sums and counts of extended rows (N, D + 1) by their cluster (R, N), (R, K, D + 1)."""
    sums = rows.new_zeros(len(nearest), k, rows.shape[1])
    for own, clusters in zip(sums, nearest, strict=True):
        own.index_add_(0, clusters, rows)
    return sums


def corrected(sums: Tensor, rows: Tensor, before: Tensor, nearest: Tensor) -> Tensor:
    """Sums (R, K, D + 1) after some rows went from a cluster `before` to another (R, N): only these are touched."""
    restart, row = (before != nearest).nonzero(as_tuple=True)
    part, flat, first = rows[row], sums.flatten(0, 1), restart * sums.shape[1]
    flat.index_add_(0, first + nearest[restart, row], part).index_add_(0, first + before[restart, row], part, alpha=-1)
    return sums


def soft(x: Tensor, centres: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Shares exp(-d^2 / width), normalised over centres, of rows (N, D), as (N, R, K), and their free energy (N, R).

    MacKay 2003, "Information Theory, Inference, and Learning Algorithms", chapter 20. The energy tends to the squared
    distance to the nearest centre as the width tends to 0.
    """
    distance = squared_distances(x, centres)
    level = -distance / width
    total = level.logsumexp(2, keepdim=True)
    return (level - total).exp(), -width * total.squeeze(2)


def means(sums: Tensor, centres: Tensor) -> Tensor:
    """Sums and counts (R, K, D + 1) to means (R, K, D); an empty cluster keeps its centre."""
    counts = sums[..., -1:]
    return torch.where(counts > 0, sums[..., :-1] / counts.clamp_min(1e-300), centres)


def refilled(centres: Tensor, counts: Tensor, far: Tensor) -> Tensor:
    """Centres (R, K, D), of which an empty one by its count (R, K) goes to the farthest row of its restart, (R, D).

    One of several empty ones: the next pass finds the next farthest row.
    """
    empty = counts == 0
    first = empty & (empty.cumsum(1) == 1)
    return torch.where(first.unsqueeze(2), far.unsqueeze(1), centres)


def lloyd(x: Tensor, centres: Tensor, most: int = 300, tol: float = 1e-6) -> tuple[Tensor, Tensor, Tensor]:
    """Lloyd's passes on rows (N, D) from starts (R, K, D), all restarts at once; those that converged drop out.

    A restart has converged when no centre moves by more than `tol` times the rows' spread. Returns the centres of the
    best restart (K, D), each row's cluster in it (N,), and the inertia of every restart (R,): the best one's as it is
    returned, the others' before their last move.
    """
    rows, centres = extended(x), centres.clone()
    squares = x.square().sum()
    limit = tol * (squares / len(x)).sqrt()
    live = torch.arange(len(centres), device=x.device)
    inertia = x.new_zeros(len(centres))
    sums = before = None
    for _ in range(most):
        now = centres[live]
        nearest, scores = assign(rows, now, before)
        inertia[live] = 2 * scores.sum(1) + squares
        sums = totals(rows, nearest, centres.shape[1]) if sums is None else corrected(sums, rows, before, nearest)
        new, counts = means(sums, now), sums[..., -1]
        if not bool(counts.all()):
            new = refilled(new, counts, x[distances(scores, x).argmax(1)])
        going = (new - now).norm(dim=2).amax(1) > limit
        centres[live] = new
        if not bool(going.any()):
            break
        live, sums, before = live[going], sums[going], nearest[going]
    best = inertia.argmin()
    nearest, scores = assign(rows, centres[best : best + 1])
    inertia[best] = distances(scores, x).sum()
    return centres[best], nearest[0], inertia


def plus_plus(x: Tensor, k: int, restarts: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++ (Arthur and Vassilvitskii 2007) of all restarts at once, (N, D) to (R, K, D).

    Of 2 + ln K candidates drawn by squared distance, the one that lowers the cost most becomes the next centre.
    """
    trials = 2 + int(math.log(k))
    draws = torch.rand(k, restarts, trials, dtype=x.dtype, generator=generator).to(x.device)
    pairs = None
    if len(x) <= PAIRS:
        pairs = squared_distances(x, x.unsqueeze(0))[:, 0]  # (N, N)
        space = x.new_empty(restarts * trials, len(x))  # fresh memory costs more than what is done in it

    def to_rows(chosen: Tensor) -> Tensor:  # (R, T) to (R, T, N)
        if pairs is not None:
            return torch.index_select(pairs, 0, chosen.flatten(), out=space[: chosen.numel()]).view(*chosen.shape, -1)
        return squared_distances(x, x[chosen]).permute(1, 2, 0)

    picked = (draws[0, :, :1] * len(x)).long()  # (R, 1)
    nearest = to_rows(picked)[:, 0].clone()  # (R, N)
    for step in range(1, k):
        mass = nearest.cumsum(1)
        candidates = torch.searchsorted(mass, draws[step] * mass[:, -1:], right=True).clamp_max(len(x) - 1)  # (R, T)
        distance = to_rows(candidates)  # (R, T, N)
        torch.minimum(distance, nearest.unsqueeze(1), out=distance)
        best = distance.sum(2).argmin(1)
        each = torch.arange(restarts, device=x.device)
        picked = torch.cat([picked, candidates[each, best].unsqueeze(1)], 1)
        nearest = distance[each, best]
    return x[picked]
