"""What label propagation and label spreading share: they solve for the training rows, over a graph of neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder, UserError
from sslrun.nn.collected import Collected, refuse_prior
from sslrun.nn.graph import Graph, Solution, knn_graph, nearest


class Transductive(Collected):
    """Labels of the training rows, solved for at the end of the first epoch over the symmetric graph of neighbours.

    A subclass writes `solve`. Values become probabilities, each row of sum 1, and then (class mass normalisation, Zhu,
    Ghahramani and Lafferty 2003) the mass of each class over the unlabelled rows is brought to its prior. Rows in a
    component of the graph without a label stay unknown: zeros. Other samples take the mean of their k nearest training
    rows' probabilities, weighted as edges are (Delalleau, Bengio and Le Roux 2005); the graph never contains them.

    Args:
        k: neighbours of each row, before the graph is made symmetric.
        prior: the classes' expected shares: `labelled`, those of the labelled rows; or numbers; null: masses stay as
            they come.
        tol: largest relative residual of the solution.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        k: int = 7,
        prior: str | Sequence[float] | None = "labelled",
        tol: float = 1e-10,
    ):
        super().__init__(encoder, spec)
        if k < 1:
            raise ValueError(f"k={k} must be 1 or more, for example 7")
        if tol <= 0:
            raise ValueError(f"tol={tol} must be above 0, for example 1e-10")
        if isinstance(prior, str) and prior != "labelled":
            raise ValueError(f"prior={prior} is unknown; use labelled, null, or a list of shares")
        if prior is not None and not isinstance(prior, str):
            refuse_prior(prior, spec)
        self.k, self.prior, self.tol = k, prior, tol
        self.register_buffer("solved", torch.zeros(0, spec.num_classes, dtype=torch.float64))  # (N, K)
        for name in ("scale", "residual"):
            self.register_buffer(name, torch.ones((), dtype=torch.float64))
        for name in ("iterations", "edges", "components", "unreached"):
            self.register_buffer(name, torch.zeros((), dtype=torch.long))

    def solve(self, graph: Graph, y: np.ndarray, known: np.ndarray) -> Solution:
        """Values (N, K) of labels y (N, K), which are zeros where no label is, and in components that lack one; `known`
        (N,) are the rows that need no value.
        """
        raise NotImplementedError

    def prepare(self, data: Any, encoder: Encoder) -> None:
        super().prepare(data, encoder)
        if self.k >= len(self.y):
            raise UserError(
                f"k={self.k} neighbours need more than {self.k} training samples, and there are {len(self.y)}; "
                f"use k={max(1, len(self.y) - 1)} or less."
            )
        seen = self.y[self.y >= 0].unique().tolist()
        if len(seen) < 2:
            only = f"class '{self.classes[seen[0]]}' alone" if seen else "none"
            raise UserError(f"the labels shown are of {only}; spreading them needs labels of two classes or more.")
        self.solved = torch.zeros(len(self.y), self.solved.shape[1], dtype=torch.float64)

    def round(self) -> bool:
        bad = ~self.features.isfinite().all(1)
        if bad.any():
            first = int(self.index[bad][0])
            raise UserError(
                f"features of {int(bad.sum()):,} of {len(bad):,} training samples hold NaN or infinity, the first at "
                f"index {first}; a graph of neighbours needs numbers."
            )
        graph = knn_graph(self.features, self.k)
        y = self.y.cpu().numpy()
        known = y >= 0
        count, part = graph.components()
        reached = np.isin(part, part[known])
        found = self.solve(graph, np.eye(self.solved.shape[1])[y] * known[:, None], known | ~reached)
        shares = np.bincount(y[known], minlength=self.solved.shape[1]) if self.prior == "labelled" else self.prior
        p = probabilities(np.where(reached[:, None], found.values, 0.0), ~known, shares)
        self.solved = torch.from_numpy(p).to(self.solved)
        told = {"scale": graph.scale, "residual": found.residual, "iterations": found.iterations,
                "edges": graph.weights.nnz // 2, "components": count, "unreached": (p.sum(1) == 0).sum()}  # fmt: skip
        for name, value in told.items():
            getattr(self, name).fill_(value)
        self.loss = -self.solved[self.y >= 0, self.y[self.y >= 0]].clamp_min(1e-12).log().mean()
        return False

    def predict(self, encoder: Encoder, x: Any) -> Tensor:
        with torch.no_grad():
            f = encoder(x).to(self.features)
        if not self.done:
            return self.solved.new_zeros(len(f), self.solved.shape[1]).float()
        distance, place = nearest(self.features, self.k, f)  # (B, k) each
        return induced(self.solved, distance, place, self.scale).float()

    def transductive(self) -> tuple[Tensor, Tensor]:
        hidden = self.y < 0
        return self.index[hidden], self.solved[hidden]

    def audit(self) -> list[dict[str, Any]]:
        """Each row that had no label: the class that reached it, if one did, and its probability."""
        index, p = self.transductive()
        best = zip(index.tolist(), *(column.tolist() for column in p.max(1)), strict=True)
        return [{"index": i, "label": self.classes[c] if s > 0 else "", "confidence": f"{s:.4f}"} for i, s, c in best]

    def facts(self) -> dict[str, Any]:
        names = ("edges", "components", "unreached", "iterations", "residual")
        told = {"k": self.k, "rows": len(self.y), "prior": self.prior, "tol": self.tol}
        return told | {name: getattr(self, name).item() for name in names}

    def remarks(self) -> list[str]:
        """Whether it was solved, and which rows and classes no label reaches."""
        without = [name for c, name in enumerate(self.classes) if not (self.y == c).any()]
        said = []
        if not self.done:
            said.append(
                "training ended before every feature was collected, so that nothing was solved: leave steps= out"
            )
        elif self.unreached:
            said.append(
                f"no label reaches {int(self.unreached):,} of {len(self.y):,} training samples (the graph falls into "
                f"{int(self.components):,} parts): they are unknown; a larger k joins parts"
            )
        if without:
            said.append(f"no label of {', '.join(without)} was shown, so that it is never predicted")
        return said


def probabilities(values: np.ndarray, hidden: np.ndarray, shares: Sequence[float] | np.ndarray | None) -> np.ndarray:
    """Rows of sum 1 of solved values (N, K), whose classes have these shares (K,) of the mass of the rows hidden (N,).

    Without shares masses stay as they come; a row of zeros stays one.
    """
    p = _normalised(values.clip(min=0))
    if shares is None or not hidden.any():
        return p
    mass = p[hidden].sum(0)
    return _normalised(p * np.divide(shares, mass, out=np.zeros_like(mass), where=mass > 0))


def induced(p: Tensor, distance: Tensor, place: Tensor, scale: float | Tensor) -> Tensor:
    """Probabilities (B, K) of samples by their nearest rows' p (N, K): squared distances and places, (B, k) each."""
    weight = torch.softmax(-distance / scale, 1)
    mean = (weight.unsqueeze(2) * p[place]).sum(1)  # (B, K)
    mass = mean.sum(1, keepdim=True)
    return mean / torch.where(mass > 0, mass, 1.0)


def _normalised(values: np.ndarray) -> np.ndarray:
    """Rows of sum 1; zeros stay."""
    total = values.sum(1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)
