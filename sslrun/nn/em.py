"""Expectation-maximisation over labelled and unlabelled rows, for class densities of exponential families."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder, Objective
from sslrun.nn.folds import stratified
from sslrun.nn.gather import all_sum

FOLDS = 5  # of the cross-validation that chooses lambda, at most
FIXED = 0.1  # lambda where a class has a single label, and nothing can be held out
SAMPLE = 20_000  # training rows that scales are measured on


class LabelledEm(Objective):
    """EM-lambda (Nigam et al. 2000): unlabelled rows count in every class by their posterior, lambda times.

    One epoch is one pass. Sums are kept in float64 and all-reduced at every step. A subclass writes log p(x, class) as
    the product of statistics of x (P, the first of them 1) and parameters of the class (K, P). All of `grid` are
    followed at once, on all labelled rows and without each fold of them; the lambda whose held-out labelled rows are
    hit most often, of equal ones at the lower log loss, is the one that predicts. Validation labels are not used.

    Args:
        grid: values of lambda to choose from, in [0, 1]; 0 learns from the labelled rows alone.
        tol: a model has converged when a pass raises its objective by less than this share.
    """

    streams = ("labelled", "unlabelled")
    trains = False
    whole_epochs = True

    def __init__(self, encoder: Encoder, spec: DataSpec, width: int, grid: Sequence[float], tol: float = 1e-7):
        super().__init__(encoder, spec)
        k = spec.num_classes
        if k < 2:
            raise ValueError(f"labels need at least 2 classes, and data={spec.name} has {k}")
        if not len(grid) or min(grid) < 0 or max(grid) > 1:
            raise ValueError(f"grid={list(grid)} must be weights from 0 to 1, for example [0, 0.01, 0.1, 1]")
        self.tol = tol
        many, each = (FOLDS + 1, len(grid)), {"dtype": torch.float64}  # the last of the first axis sees all labels
        self.register_buffer("grid", torch.tensor(list(grid), **each))
        self.register_buffer("theta", torch.zeros(*many, k, width, **each))
        self.register_buffer("counted", torch.zeros(FOLDS + 1, 1, k, width, **each))  # sums of the labelled rows
        self.register_buffer("sums", torch.zeros(*many, k, width, **each))  # of the unlabelled ones, of this pass
        self.register_buffer("evidence", torch.zeros(*many, **each))  # their log p(x)
        self.register_buffer("log_prior", torch.zeros(*many, **each))
        self.register_buffer("objective", torch.full(many, -torch.inf, **each))  # by the parameters before this pass
        self.register_buffer("gain", torch.full(many, torch.inf, **each))
        self.register_buffer("chosen", torch.zeros((), dtype=torch.long))

    def statistics(self, features: Tensor) -> Tensor:
        """Features (B, D) to what sums are taken of (B, P), the first column 1."""
        raise NotImplementedError

    def fit(self, sums: Tensor) -> tuple[Tensor, Tensor]:
        """Sums (..., K, P) to the parameters of largest posterior (..., K, P), and the log of their prior (...)."""
        raise NotImplementedError

    def settle(self, features: Tensor) -> None:
        """Measures scales on features (N, D) of training rows."""

    def prepare(self, data: Any, encoder: Encoder) -> None:
        encoder.eval()

        def encoded(rows: Tensor) -> Tensor:
            with torch.no_grad():
                return torch.cat([encoder(data.train.inputs(part)) for part in rows.split(1024)]).double()

        self.settle(encoded(data.sample(SAMPLE)))
        self.index, y = data.train.index[data.labelled], data.train.y[data.labelled]
        folds = min(FOLDS, int(torch.bincount(y)[y.unique()].min()))
        self.fold = stratified(y, self.index, folds) if folds > 1 else torch.full_like(y, FOLDS)
        self.held, self.y = self.statistics(encoded(data.labelled)), y
        for f in range(FOLDS + 1):
            kept = self.fold != f if f < FOLDS else torch.ones_like(y, dtype=torch.bool)
            self.counted[f, 0] = torch.zeros_like(self.counted[f, 0]).index_add_(0, y[kept], self.held[kept])
        self.theta, self.log_prior = self.fit(self.counted.expand_as(self.theta))
        self._choose()

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        encoder.eval()
        stream = batch["unlabelled"]
        with torch.no_grad():
            t = self.statistics(encoder(stream["x"]).double())  # (B, P)
        if not self.training:
            return {"loss": -(t @ self.theta[-1, self.chosen].T).logsumexp(1).mean()}
        t = t[~torch.isin(stream["index"], self.index.to(t.device))]  # labelled rows are counted already
        joint = (t @ self.theta.flatten(0, 2).T).unflatten(1, (self.grid.numel() * (FOLDS + 1), -1))  # (B, models, K)
        evidence = joint.logsumexp(2)
        share = (joint - evidence.unsqueeze(2)).exp()
        sums = share.flatten(1).T @ t  # (models K, P)
        rows = evidence.new_tensor([len(t)])
        packed = all_sum(torch.cat([sums.flatten(), evidence.sum(0), rows]))
        sums, evidence, rows = packed.split([self.sums.numel(), self.evidence.numel(), 1])
        evidence = evidence.view_as(self.evidence)
        self.sums += sums.view_as(self.sums)
        self.evidence += evidence
        return {
            "loss": -(evidence[-1, self.chosen] / rows.clamp_min(1)).squeeze(),
            "objective": self.objective[-1, self.chosen],
            "lambda": self.grid[self.chosen],
        }

    def after_epoch(self, encoder: Encoder) -> None:
        labelled = (self.counted * self.theta).sum((2, 3))
        objective = labelled + self.grid * self.evidence + self.log_prior
        self.gain, self.objective = objective - self.objective, objective
        self.theta, self.log_prior = self.fit(self.counted + self.grid.view(-1, 1, 1) * self.sums)
        self.sums.zero_()
        self.evidence.zero_()
        self._choose()

    def _choose(self) -> None:
        """Hits and log loss of every lambda on the labelled rows, each by the model that has not seen its label."""
        if bool((self.fold == FOLDS).all()):
            self.chosen = (self.grid - FIXED).abs().argmin()
            return
        device = self.theta.device
        held, y, fold = self.held.to(device), self.y.to(device), self.fold.to(device)
        hits, loss = torch.zeros_like(self.grid), torch.zeros_like(self.grid)
        for f in fold.unique().tolist():
            joint = torch.einsum("bp,lkp->lbk", held[fold == f], self.theta[f])
            answer = y[fold == f].expand(len(self.grid), -1)
            hits += (joint.argmax(2) == answer).sum(1)
            loss -= joint.log_softmax(2).gather(2, answer.unsqueeze(2)).sum((1, 2))
        self.chosen = torch.where(hits == hits.max(), loss, torch.inf).argmin()

    def converged(self) -> bool:
        settled = self.gain.isfinite() & (self.gain <= self.tol * self.objective.abs())
        return bool(settled.all())

    def predict(self, encoder: Encoder, x: Any) -> Tensor:
        with torch.no_grad():
            t = self.statistics(encoder(x).double())
        return (t @ self.theta[-1, self.chosen].T).softmax(1).float()  # (B, K)


def log_shares(counts: Tensor) -> Tensor:
    """The log of class shares (..., K) of counts, one more of each."""
    more = counts + 1
    return (more / more.sum(-1, keepdim=True)).log()
