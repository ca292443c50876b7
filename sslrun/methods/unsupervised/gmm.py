"""Gaussian mixture: one epoch is one pass of expectation-maximisation (Dempster et al. 1977)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder, Objective, UserError
from sslrun.nn.gather import all_sum
from sslrun.nn.mixture import (
    KINDS,
    Mixture,
    bic,
    coefficients,
    em,
    expect,
    joint_log,
    least_variance,
    maximise,
    parameters,
    started,
    width,
)
from sslrun.nn.rows import SAMPLE, encoded, range_of, refuse_infinite, refuse_more_clusters
from sslrun.rng import seed_of

STARTS = ("kmeans", "random")


class Gmm(Objective):
    """A mixture of Gaussians on the encoder's features, fitted by EM.

    Dempster, Laird and Rubin 1977, "Maximum likelihood from incomplete data via the EM algorithm". Densities come from
    Cholesky factors and are summed in log space. Features are centred, and sums, of float64 numbers, are all-reduced at
    every step, so that the mixture does not depend on how many processes share the work. Of several starts the one of
    largest likelihood wins. `score` is the negative log-likelihood of a sample's features.

    Args:
        k: number of components; null takes the data's number of classes; auto chooses from `k_range` by BIC.
        covariance: full, tied (one for all), diagonal, spherical, or auto: chosen by BIC.
        k_range: least and largest number for k=auto.
        start: from the clusters of k-means, or at random samples (`random`), as wide as the data.
        restarts: number of starts.
        regularisation: is added to every variance, as a share of the features' mean variance.
        tol: a start has converged when a pass raises the mean log-likelihood by less than this.
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
        covariance: str = "full",
        k_range: Sequence[int] = (2, 20),
        start: str = "kmeans",
        restarts: int = 1,
        regularisation: float = 1e-6,
        tol: float = 1e-3,
    ):
        super().__init__(encoder, spec)
        self.range = range_of(k_range, "method.gmm.k_range") if k == "auto" else None
        k = 0 if self.range else k or spec.num_classes
        if not self.range and (not isinstance(k, int) or k < 1):
            raise UserError(f"method.gmm.k={k} must be a number of components, or auto; data={spec.name} names none.")
        if covariance not in (*KINDS, "auto"):
            raise ValueError(f"covariance={covariance} is unknown; choose from {', '.join(KINDS)}, auto")
        if start not in STARTS:
            raise ValueError(f"start={start} is unknown; choose from {', '.join(STARTS)}")
        if restarts < 1 or regularisation <= 0:
            raise ValueError(f"restarts={restarts} must be 1 or more, and regularisation={regularisation} above 0")
        self.kinds = KINDS if covariance == "auto" else (covariance,)
        self.start, self.restarts, self.regularisation, self.tol = start, restarts, regularisation, tol
        self.table: list[dict[str, Any]] = []  # why auto took what it took
        d = encoder.dim
        self.register_buffer("kind", torch.tensor(KINDS.index(self.kinds[0])))
        self.register_buffer("origin", torch.zeros(d, dtype=torch.float64))
        self.register_buffer("variance", torch.ones((), dtype=torch.float64))  # the features' mean one
        self.register_buffer("rows", torch.zeros((), dtype=torch.float64))  # of the pass under way
        self.register_buffer("total", torch.zeros(restarts, dtype=torch.float64))  # log-likelihood of that pass
        self.register_buffer("samples", torch.zeros((), dtype=torch.float64))  # of the last whole pass
        self.register_buffer("value", torch.full((restarts,), -torch.inf, dtype=torch.float64))  # its mean
        self.register_buffer("settled", torch.zeros(restarts, dtype=torch.bool))
        self._allocate(k or 1)

    def _allocate(self, k: int) -> None:
        many, d = self.restarts, len(self.origin)
        shape = {"full": (k, d, d), "tied": (1, d, d), "diagonal": (k, d), "spherical": (k, 1)}[self.covariance]
        whole = torch.eye(d, dtype=torch.float64) if len(shape) == 3 else torch.ones((), dtype=torch.float64)
        self.set(Mixture(
            torch.full((many, k), 1 / k, dtype=torch.float64),
            torch.zeros(many, k, d, dtype=torch.float64),
            whole.expand(many, *shape).clone(),
        ))  # fmt: skip
        self.register_buffer("sums", torch.zeros(many, k, width(self.covariance, d), dtype=torch.float64))

    @property
    def covariance(self) -> str:
        return KINDS[int(self.kind)]

    @property
    def floor(self) -> float:
        return self.regularisation * float(self.variance)

    def mixture(self) -> Mixture:
        return Mixture(self.shares, self.means, self.covariances)

    def set(self, mixture: Mixture) -> None:
        """Goes on from these mixtures, of centred features."""
        for name, value in zip(("shares", "means", "covariances"), mixture, strict=True):
            self.register_buffer(name, value)
        self.register_buffer("theta", coefficients(mixture, self.covariance))  # (R, K, P)

    def prepare(self, data: Any, encoder: Encoder) -> None:
        x = encoded(encoder, data.train, data.sample(SAMPLE))  # (N, D)
        most = self.range[-1] if self.range else self.shares.shape[1]
        key = f"method.gmm.k_range={[self.range[0], most]}" if self.range else f"method.gmm.k={most}"
        refuse_more_clusters(x, most, key)
        self.origin = x.mean(0)
        x = x - self.origin
        each = x.square().mean(0)
        self.variance = each.mean()
        constant = (each <= 1e-12 * self.variance).nonzero().squeeze(1).tolist()
        if constant:
            shown = ", ".join(map(str, constant[:5])) + (" and more" if len(constant) > 5 else "")
            note = (
                f"gmm: {len(constant)} of {len(each)} features are constant ({shown}), so no density has a scale there"
            )
            data.notes += [note] if note not in data.notes else []
        k = most
        if self.range or len(self.kinds) > 1:
            self.table = self._compare(x, data.seed)
            chosen = next(row for row in self.table if row["chosen"])
            k, self.kind = chosen["k"], torch.tensor(KINDS.index(chosen["covariance"]))
        self._allocate(k)
        draw = torch.Generator().manual_seed(seed_of(data.seed, "gmm"))
        self.set(started(x, k, self.covariance, self.start, self.floor, self.restarts, draw))

    def _compare(self, x: Tensor, seed: int) -> list[dict[str, Any]]:
        """Every number of components and kind of covariance on rows (N, D), by BIC where that means something."""
        table, (n, d) = [], x.shape
        for kind in self.kinds:
            for k in self.range or [self.shares.shape[1]]:
                draw = torch.Generator().manual_seed(seed_of(seed, "gmm", "bic", k))
                found, value = em(x, started(x, k, kind, self.start, self.floor, self.restarts, draw), kind, self.floor)
                best, least = float(value.max()), least_variance(found, kind)[value.argmax()].min()
                table.append({"covariance": kind, "k": k, "parameters": parameters(kind, k, d), "rows": n,
                              "log_likelihood": best, "bic": bic(best, kind, k, d, n),
                              "singular": bool(least < 2 * self.floor)})  # fmt: skip
        best = min(table, key=lambda row: (row["singular"], row["bic"]))
        return [row | {"chosen": row is best} for row in table]

    def features(self, encoder: Encoder, x: Any) -> Tensor:
        with torch.no_grad():
            return encoder(x).double() - self.origin  # (B, D)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        encoder.eval()
        f = self.features(encoder, batch["all"]["x"])  # (B, D)
        refuse_infinite(f, batch["all"]["index"])
        lead = self.value.argmax()
        going = ~self.settled
        going[lead] = True
        some = going.nonzero().squeeze(1) if self.training else lead.unsqueeze(0)  # starts at work, r of them
        sums, total = expect(f, self.theta[some], self.covariance)
        packed = all_sum(torch.cat([sums.flatten(), total, total.new_tensor([len(f)])]))
        sums, total, count = packed[: sums.numel()].view_as(sums), packed[sums.numel() : -1], packed[-1]
        if self.training:
            self.sums[some] += sums
            self.total[some] += total
            self.rows += count
        return {"loss": (-total[some == lead].squeeze(0) / count).float()}

    def after_epoch(self, encoder: Encoder) -> None:
        value = torch.where(self.settled, self.value, self.total / self.rows)
        # what has converged keeps the parameters that this likelihood is of
        self.settled = self.settled | (value - self.value < self.tol)
        before = self.mixture()
        new = maximise(self.sums, self.covariance, self.floor, before)
        kept = [
            torch.where(self.settled.view(-1, *(1,) * (a.dim() - 1)), a, b) for a, b in zip(before, new, strict=True)
        ]
        self.set(Mixture(*kept))
        self.value, self.samples = value, self.rows.clone()
        for buffer in (self.sums, self.total, self.rows):
            buffer.zero_()

    def converged(self) -> bool:
        return bool(self.settled.all())

    def joint(self, encoder: Encoder, x: Any) -> Tensor:
        """log p(x, component) under the mixture of largest likelihood, (B, K)."""
        return joint_log(self.features(encoder, x), self.theta[self.value.argmax()], self.covariance)

    def predict(self, encoder: Encoder, x: Any) -> Tensor:
        """Responsibilities, (B, K)."""
        return self.joint(encoder, x).softmax(1).float()

    def score(self, encoder: Encoder, batch: Batch) -> Tensor:
        """The negative log-likelihood of each sample, (B,)."""
        return -self.joint(encoder, batch["all"]["x"]).logsumexp(1)

    def facts(self) -> dict[str, Any]:
        """Mean log-likelihood and BIC are of the training samples in the last pass, by the parameters before it."""
        k, d, best = self.shares.shape[1], len(self.origin), self.value.argmax()
        value, n = float(self.value[best]), int(self.samples)
        return {
            "k": k,
            "covariance": self.covariance,
            "parameters": parameters(self.covariance, k, d),
            "log_likelihood": value,
            "bic": bic(value, self.covariance, k, d, n) if n else None,
            "least_variance": float(self._least()[best].min() / self.variance),
            "converged": self.converged(),
        }

    def _least(self) -> Tensor:
        return least_variance(self.mixture(), self.covariance)

    def remarks(self) -> list[str]:
        """Whether the likelihood means anything."""
        least, found = self._least()[self.value.argmax()], self.facts()
        said, singular = [], int((least < 2 * self.floor).sum())
        if singular:
            said.append(
                f"gmm: {singular} of {len(least)} covariances are singular, held up by regularisation="
                f"{self.regularisation:g} alone: likelihood and BIC mean nothing; use fewer features or another "
                "method.gmm.covariance"
            )
        if found["parameters"] > self.samples:
            said.append(f"gmm: {found['parameters']:,} parameters were fitted to {int(self.samples):,} samples")
        if not self.converged():
            said.append("gmm: it has not converged; raise epochs")
        return said

    def audit(self) -> list[dict[str, Any]]:
        """What spoke for each number of components and kind of covariance; nothing where the user chose."""
        return self.table

    def chart(self) -> dict[str, dict[float, float]]:
        """The same as curves over k."""
        found: dict[str, dict[float, float]] = {}
        for row in self.table:
            found.setdefault(f"BIC by k, {row['covariance']}", {})[row["k"]] = row["bic"]
        return found
