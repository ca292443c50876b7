"""k-means: one epoch is one Lloyd pass over all restarts at once (Lloyd 1982; Arthur & Vassilvitskii 2007)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder, Objective, UserError
from sslrun.nn.gather import all_sum, gather
from sslrun.rng import seed_of


class KMeans(Objective):
    """Lloyd's algorithm on the encoder's features, greedy k-means++ starts, the restart of least inertia wins.

    Lloyd 1982; Arthur & Vassilvitskii 2007, "k-means++: The Advantages of Careful Seeding". Features are centred and
    sums kept in float64; sums are all-reduced at every step, so that the centres do not depend on how many processes
    share the work. An empty cluster moves to the sample that is farthest from its centre.

    Args:
        k: number of clusters; null takes the data's number of classes.
        restarts: number of starts, all computed in one matrix product.
        tol: a restart has converged when no centre moves by more than this share of the data's standard deviation.
    """

    streams = ("all",)
    trains = False
    whole_epochs = True
    predicts = "cluster"

    def __init__(self, encoder: Encoder, spec: DataSpec, k: int | None = None, restarts: int = 10, tol: float = 1e-6):
        super().__init__(encoder, spec)
        k = k or spec.num_classes
        if k < 2:
            raise UserError(
                f"method.kmeans.k={k} must be at least 2; data={spec.name} has no classes to count, so set it."
            )
        self.k, self.restarts, self.tol = k, restarts, tol
        d = encoder.dim
        self.register_buffer("origin", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("spread", torch.ones((), dtype=torch.float64))
        self.register_buffer("centres", torch.zeros(restarts, k, d, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(restarts, k, d + 1, dtype=torch.float64))  # last column: counts
        self.register_buffer("cost", torch.zeros(restarts, dtype=torch.float64))  # of the pass under way
        self.register_buffer("inertia", torch.full((restarts,), torch.inf, dtype=torch.float64))
        self.register_buffer("far", torch.zeros(restarts, d, dtype=torch.float64))
        self.register_buffer("far_distance", torch.zeros(restarts, dtype=torch.float64))
        self.register_buffer("moved", torch.full((restarts,), torch.inf, dtype=torch.float64))

    def prepare(self, data: Any, encoder: Encoder) -> None:
        rows = data.sample(20_000)
        encoder.eval()
        with torch.no_grad():
            x = torch.cat([encoder(data.train.inputs(part)).double() for part in rows.split(1024)])  # (N, D)
        distinct = len(torch.unique(x, dim=0))
        if distinct < self.k:
            raise UserError(
                f"method.kmeans.k={self.k} is above the {distinct} distinct samples; use {distinct} or fewer."
            )
        self.origin = x.mean(0)
        x = x - self.origin
        self.spread = x.square().sum(1).mean().sqrt()
        for r in range(self.restarts):
            generator = torch.Generator().manual_seed(seed_of(data.seed, "kmeans++", r))
            self.centres[r] = plus_plus(x, self.k, generator)

    def features(self, encoder: Encoder, x: Any) -> Tensor:
        with torch.no_grad():
            return encoder(x).double() - self.origin  # (B, D)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        encoder.eval()
        f = self.features(encoder, batch["all"]["x"])  # (B, D)
        distance, nearest = squared_distances(f, self.centres).min(2)  # (B, R)
        sums = torch.zeros_like(self.sums)
        extended = torch.cat([f, torch.ones_like(f[:, :1])], 1)  # (B, D + 1)
        for r in range(self.restarts):
            sums[r].index_add_(0, nearest[:, r], extended)
        packed = all_sum(torch.cat([sums.flatten(), distance.sum(0)]))
        if self.training:
            self.sums += packed[: sums.numel()].view_as(sums)
            self.cost += packed[sums.numel() :]
            self._remember_farthest(f, distance)
        count = packed[: sums.numel()].view_as(sums)[0, :, -1].sum()
        return {"loss": (packed[sums.numel() :].min() / count).float()}

    def _remember_farthest(self, f: Tensor, distance: Tensor) -> None:
        # a last batch may leave this process without a row: then it offers one that never wins
        f = torch.cat([f, torch.zeros_like(self.origin).unsqueeze(0)])
        distance = torch.cat([distance, torch.full_like(self.far_distance, -1).unsqueeze(0)])
        value, row = distance.max(0)  # (R,)
        values, points = gather(value.unsqueeze(0)), gather(f[row].unsqueeze(0))  # (world, R), (world, R, D)
        best, rank = values.max(0)
        better = best > self.far_distance
        self.far = torch.where(better.unsqueeze(1), points[rank, torch.arange(len(best), device=f.device)], self.far)
        self.far_distance = torch.where(better, best, self.far_distance)

    def after_epoch(self, encoder: Encoder) -> None:
        counts = self.sums[..., -1:]  # (R, K, 1)
        new = torch.where(counts > 0, self.sums[..., :-1] / counts.clamp_min(1), self.centres)
        for r in range(self.restarts):
            empty = (counts[r, :, 0] == 0).nonzero()
            if len(empty):  # one a pass: the next pass finds the next farthest sample
                new[r, empty[0, 0]] = self.far[r]
        self.moved = (new - self.centres).norm(dim=2).amax(1)
        self.inertia, self.centres = self.cost.clone(), new
        for buffer in (self.sums, self.cost, self.far_distance):
            buffer.zero_()

    def converged(self) -> bool:
        return bool((self.moved <= self.tol * self.spread).all())

    def predict(self, encoder: Encoder, x: Any) -> Tensor:
        nearest = self.to_centres(encoder, x).argmin(1)
        return torch.nn.functional.one_hot(nearest, self.k).float()  # (B, K)

    def score(self, encoder: Encoder, batch: Batch) -> Tensor:
        """The distance of each sample to its nearest centre, (B,)."""
        return self.to_centres(encoder, batch["all"]["x"]).amin(1).sqrt()

    def to_centres(self, encoder: Encoder, x: Any) -> Tensor:
        """Squared distances to the centres of the restart of least inertia, (B, K)."""
        return squared_distances(self.features(encoder, x), self.centres[self.inertia.argmin()].unsqueeze(0))[:, 0]


def squared_distances(x: Tensor, centres: Tensor) -> Tensor:
    """(B, D) and (R, K, D) to (B, R, K), by one matrix product; x is centred, so that no digits are lost."""
    flat = centres.flatten(0, 1)
    product = x @ flat.T
    distance = x.square().sum(1, keepdim=True) - 2 * product + flat.square().sum(1)
    return distance.clamp_min_(0).view(len(x), *centres.shape[:2])


def plus_plus(x: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Greedy k-means++: of 2 + ln k candidates drawn by squared distance, the one that lowers the cost most."""
    trials = 2 + int(torch.tensor(float(k)).log())
    centres = [x[torch.randint(len(x), (1,), generator=generator)]]  # each (1, D)
    nearest = (x - centres[0]).square().sum(1)  # (N,)
    for _ in range(1, k):
        candidates = x[torch.multinomial(nearest, trials, replacement=True, generator=generator)]
        distance = squared_distances(x, candidates.unsqueeze(0))[:, 0].minimum(nearest.unsqueeze(1))  # (N, trials)
        best = distance.sum(0).argmin()
        centres.append(candidates[best : best + 1])
        nearest = (x - centres[-1]).square().sum(1).minimum(nearest)
    return torch.cat(centres)
