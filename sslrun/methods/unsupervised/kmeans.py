"""k-means: one epoch is one Lloyd pass over all restarts at once (Lloyd 1982; Arthur & Vassilvitskii 2007)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder, Objective, UserError
from sslrun.nn.gather import all_sum, gather
from sslrun.nn.how_many import how_many
from sslrun.nn.lloyd import assign, distances, extended, means, plus_plus, refilled, soft, squared_distances, totals
from sslrun.nn.rows import SAMPLE, encoded, range_of, refuse_infinite, refuse_more_clusters
from sslrun.rng import seed_of

SETTLED = 1e-3  # a mini-batch restart has converged when a pass lowers its cost by less than this share


class KMeans(Objective):
    """Lloyd's algorithm on the encoder's features, greedy k-means++ starts, the restart of least inertia wins.

    Lloyd 1982; Arthur & Vassilvitskii 2007, "k-means++: The Advantages of Careful Seeding". Features are centred and
    sums kept in float64; sums are all-reduced at every step, so that the centres do not depend on how many processes
    share the work. An empty cluster moves to the sample that is farthest from its centre. A restart that has converged
    is not computed any further, but for the one of least inertia, whose loss is logged.

    Args:
        k: number of clusters; null takes the data's number of classes; auto chooses from `k_range` by silhouette among
            the numbers that are stable over resamples.
        k_range: least and largest number for k=auto.
        restarts: number of starts, all computed in one matrix product.
        minibatch: whether centres follow every batch as running means of their samples (Sculley 2010, "Web-scale
            k-means clustering"), and not every pass.
        temperature: null puts a sample into its nearest cluster; a number shares it out among all by
            exp(-d^2 / (2 v temperature)), with v the mean variance of a feature (MacKay 2003, soft k-means).
        tol: a restart has converged when no centre moves by more than this share of the data's standard deviation.
    """

    streams = ("all",)
    trains = False
    whole_epochs = True
    predicts = "cluster"

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        k: int | str | None = None,
        k_range: Sequence[int] = (2, 20),
        restarts: int = 10,
        minibatch: bool = False,
        temperature: float | None = None,
        tol: float = 1e-6,
    ):
        super().__init__(encoder, spec)
        self.range = range_of(k_range, "method.kmeans.k_range") if k == "auto" else None
        k = 0 if self.range else k or spec.num_classes
        if not self.range and (not isinstance(k, int) or k < 2):
            raise UserError(
                f"method.kmeans.k={k} must be at least 2, or auto; data={spec.name} has no classes to count, so set it."
                if not spec.num_classes
                else f"method.kmeans.k={k} must be at least 2, or auto."
            )
        if restarts < 1:
            raise ValueError(f"restarts={restarts} must be 1 or more, for example 10")
        if temperature is not None and temperature <= 0:
            raise ValueError(f"temperature={temperature} must be above 0, for example 0.1; null assigns without doubt")
        self.restarts, self.minibatch, self.temperature, self.tol = restarts, minibatch, temperature, tol
        self.table: list[dict[str, Any]] = []  # why k=auto took which number
        d = encoder.dim
        self.register_buffer("origin", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("spread", torch.ones((), dtype=torch.float64))
        self.register_buffer("cost", torch.zeros(restarts, dtype=torch.float64))  # of the pass under way
        self.register_buffer("far", torch.zeros(restarts, d, dtype=torch.float64))
        for name, value in (("far_distance", -torch.inf), ("inertia", torch.inf), ("moved", torch.inf)):
            self.register_buffer(name, torch.full((restarts,), value, dtype=torch.float64))
        self._allocate(k)

    def _allocate(self, k: int) -> None:
        many, d = self.far.shape
        self.register_buffer("centres", torch.zeros(many, k, d, dtype=torch.float64))
        self.register_buffer("sums", torch.zeros(many, k, d + 1, dtype=torch.float64))  # last column: counts
        self.register_buffer("seen", torch.zeros(many, k, dtype=torch.float64))  # samples behind a mini-batch centre

    @property
    def k(self) -> int:
        return self.centres.shape[1]

    def prepare(self, data: Any, encoder: Encoder) -> None:
        x = encoded(encoder, data.train, data.sample(SAMPLE))  # (N, D)
        most = self.range[-1] if self.range else self.k
        key = f"method.kmeans.k_range={[self.range[0], most]}" if self.range else f"method.kmeans.k={most}"
        refuse_more_clusters(x, most, key)
        self.origin = x.mean(0)
        x = x - self.origin
        self.spread = x.square().sum(1).mean().sqrt()
        if self.range:
            self.table = how_many(x, self.range, data.seed)
            self._allocate(next(row["k"] for row in self.table if row["chosen"]))
        draw = torch.Generator().manual_seed(seed_of(data.seed, "kmeans++"))
        self.centres = plus_plus(x, self.k, self.restarts, draw)

    def features(self, encoder: Encoder, x: Any) -> Tensor:
        with torch.no_grad():
            return encoder(x).double() - self.origin  # (B, D)

    @property
    def width(self) -> Tensor:
        """Twice the temperature in units of squared distance."""
        return 2 * self.temperature * self.spread.square() / len(self.origin)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        encoder.eval()
        f = self.features(encoder, batch["all"]["x"])  # (B, D)
        refuse_infinite(f, batch["all"]["index"])
        lead = self.inertia.argmin()
        going = self.moved > self.tol * self.spread
        going[lead] = True
        some = going.nonzero().squeeze(1) if self.training else lead.unsqueeze(0)  # restarts at work, r of them
        sums, cost = self.statistics(f, some)  # (r, K, D + 1), (B, r)
        packed = all_sum(torch.cat([sums.flatten(), cost.sum(0), cost.new_tensor([len(f)])]))
        sums, total, count = packed[: sums.numel()].view_as(sums), packed[sums.numel() : -1], packed[-1]
        if self.training:
            self.sums[some] += sums
            self.cost[some] += total
            self._remember_farthest(f, cost, some)
            if self.minibatch:
                self.seen[some] += sums[..., -1]
                pull = sums[..., :-1] - sums[..., -1:] * self.centres[some]
                self.centres[some] += pull / self.seen[some].clamp_min(1).unsqueeze(2)
        return {"loss": (total[some == lead].squeeze(0) / count).float()}

    def statistics(self, f: Tensor, some: Tensor) -> tuple[Tensor, Tensor]:
        """Sums and counts of each cluster (r, K, D + 1), and each row's cost (B, r), for these restarts (r,)."""
        rows, centres = extended(f), self.centres[some]
        if self.temperature is None:
            nearest, scores = assign(rows, centres)
            return totals(rows, nearest, self.k), distances(scores, f).T
        share, energy = soft(f, centres, self.width)
        return (share.flatten(1).T @ rows).view(len(some), self.k, -1), energy

    def _remember_farthest(self, f: Tensor, cost: Tensor, some: Tensor) -> None:
        # a last batch may leave this process without a row: then it offers one that never wins
        f = torch.cat([f, torch.zeros_like(self.origin).unsqueeze(0)])
        cost = torch.cat([cost, cost.new_full((1, len(some)), -torch.inf)])
        value, row = cost.max(0)  # (r,)
        values, points = gather(value.unsqueeze(0)), gather(f[row].unsqueeze(0))  # (world, r), (world, r, D)
        best, rank = values.max(0)
        better = best > self.far_distance[some]
        points = points[rank, torch.arange(len(best), device=f.device)]
        self.far[some] = torch.where(better.unsqueeze(1), points, self.far[some])
        self.far_distance[some] = torch.where(better, best, self.far_distance[some])

    def after_epoch(self, encoder: Encoder) -> None:
        counts = self.sums[..., -1]  # (R, K)
        done = counts.sum(1) > 0  # the restarts that were at work in this pass
        new = self.centres if self.minibatch else means(self.sums, self.centres)
        new = torch.where(done.view(-1, 1, 1), refilled(new, counts, self.far), self.centres)
        self.seen = torch.where(done.unsqueeze(1) & (counts == 0), 0.0, self.seen)
        if self.minibatch:
            step = torch.where(self.cost >= (1 - SETTLED) * self.inertia, 0.0, torch.inf)
        else:
            step = (new - self.centres).norm(dim=2).amax(1)
        self.moved = torch.where(done, step, self.moved)
        self.inertia, self.centres = torch.where(done, self.cost, self.inertia), new
        for buffer in (self.sums, self.cost):
            buffer.zero_()
        self.far_distance.fill_(-torch.inf)

    def converged(self) -> bool:
        return bool((self.moved <= self.tol * self.spread).all())

    def predict(self, encoder: Encoder, x: Any) -> Tensor:
        """The cluster of each sample, (B, K), or its shares in all of them where there is a temperature."""
        distance = self.to_centres(encoder, x)
        if self.temperature is None:
            return torch.nn.functional.one_hot(distance.argmin(1), self.k).float()
        return (-distance / self.width).softmax(1).float()

    def score(self, encoder: Encoder, batch: Batch) -> Tensor:
        """The distance of each sample to its nearest centre, (B,)."""
        return self.to_centres(encoder, batch["all"]["x"]).amin(1).sqrt()

    def to_centres(self, encoder: Encoder, x: Any) -> Tensor:
        """Squared distances to the centres of the restart of least inertia, (B, K)."""
        return squared_distances(self.features(encoder, x), self.centres[self.inertia.argmin()].unsqueeze(0))[:, 0]

    def facts(self) -> dict[str, float]:
        return {"k": self.k, "inertia": float(self.inertia.min())}

    def audit(self) -> list[dict[str, Any]]:
        """What spoke for each number of clusters; nothing where the user chose."""
        return self.table

    def chart(self) -> dict[str, dict[float, float]]:
        """The same as curves over k, and what they said."""
        if not self.table:
            return {}
        bend = next((f": elbow at {row['k']}" for row in self.table if row["elbow"]), "")
        heads = {"inertia": bend, "silhouette": f": {self.k} chosen", "stability": " over resamples"}
        return {f"{name} by k{head}": {row["k"]: row[name] for row in self.table} for name, head in heads.items()}
