"""Co-training: two classifiers that see different features label rows for each other (Blum and Mitchell 1998)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.collected import Rounds, classifier, surest
from sslrun.rng import seed_of

VIEWS = ("halves", "alternate", "random")
ROUNDS = 60  # in about how many all rows are labelled, if the views agree


class CoTraining(Rounds):
    """Logistic regressions on two views; each labels the rows of a pool that it is surest of, for both.

    Blum and Mitchell 1998, "Combining labeled and unlabeled data with co-training". A row that both choose and label
    differently gets no label in that round; a row that both agree on counts once. The prediction is the product of the
    two posteriors. The first epoch collects features, and every epoch is a round. It ends when no row is left, or when
    nothing of the whole pool can be agreed on.

    Args:
        views: which features make the first view: the first half (of pictures: the upper half of each channel), every
            other one, or a random half, fixed by the seed.
        pool: rows that are looked at in a round, refilled from the rest in a random order; null: the paper's 75, or
            seven times what a view may label where that is more.
        per_round: rows for each class, view and round on average, in proportion to the prior; null: as many as label
            all rows in some sixty rounds.
        strength: C of the logistic regressions, above 0.
        prior: expected shares of the classes; null: those that the first fit expects.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        views: str = "halves",
        pool: int | None = None,
        per_round: int | None = None,
        strength: float = 1.0,
        prior: Sequence[float] | None = None,
    ):
        super().__init__(encoder, spec, prior)
        k, d = spec.num_classes, encoder.dim
        if views not in VIEWS:
            raise ValueError(f"views={views} is unknown; choose from {', '.join(VIEWS)}")
        if d < 2:
            raise ValueError(f"two views need at least 2 features, and there is {d}; use weights=RUN")
        if per_round is not None and per_round < 1:
            raise ValueError(f"per_round={per_round} must be 1 or more, or null")
        rows = per_round or 1
        if pool is not None and pool < rows * k:
            raise ValueError(f"pool={pool} is below per_round={rows} times {k} classes; use pool={rows * k} or more")
        if strength <= 0:
            raise ValueError(f"strength={strength} must be above 0, for example 1")
        self.views_by, self.pool, self.per_round, self.strength = views, pool, per_round, strength
        self.register_buffer("first", torch.zeros(d, dtype=torch.bool))  # features of the first view
        self.register_buffer("order", torch.zeros(0, dtype=torch.long))  # in which rows come into the pool
        self.register_buffer("weight", torch.zeros(2, k, d, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(2, k, dtype=torch.float64))
        picture = len(spec.shape) == 3 and d == math.prod(spec.shape)
        self.grid = spec.shape if picture else (1, d, 1)  # channels, rows, columns

    def prepare(self, data: Any, encoder: Encoder) -> None:
        super().prepare(data, encoder)
        place = torch.arange(len(self.first))
        if self.views_by == "halves":
            _, height, width = self.grid
            self.first = place % (height * width) < (height + 1) // 2 * width
        elif self.views_by == "alternate":
            self.first = place % 2 == 0
        else:
            self.first = self._shuffled(data.seed, "views", len(place)) < (len(place) + 1) // 2
        self.order = self._shuffled(data.seed, "pool", len(self.y))
        k = len(self.prior)
        if self.per_round is None:
            share = int((self.y < 0).sum()) / (2 * k * ROUNDS)
            self.per_round = max(1, round(share if self.pool is None else min(share, self.pool // k)))
        if self.pool is None:
            self.pool = max(75, 7 * k * self.per_round)

    @staticmethod
    def _shuffled(seed: int, purpose: str, n: int) -> Tensor:
        return torch.randperm(n, generator=torch.Generator().manual_seed(seed_of(seed, "co_training", purpose)))

    def posteriors(self, z: Tensor) -> Tensor:
        """Log probabilities of the classes by each view, (2, B, K), of scaled features (B, D)."""
        return (z @ self.weight.transpose(1, 2) + self.bias.unsqueeze(1)).log_softmax(2)

    def refit(self, z: Tensor) -> bool:
        fitted = self.given >= 0
        for v, mask in enumerate((self.first, ~self.first)):
            seen = z[fitted][:, mask]
            self.weight[v].zero_()
            self.weight[v][:, mask], self.bias[v] = classifier(seen, self.given[fitted], len(self.prior), self.strength)
        log_p = self.posteriors(z)
        self.expect(log_p.sum(0).softmax(1))
        self.loss = -log_p[:, fitted].gather(2, self.given[fitted].expand(2, -1).unsqueeze(2)).mean()
        free = self.order[(self.given < 0)[self.order]][: self.pool]
        rows, labels, confidence = self.agreed(log_p[:, free].exp())
        self.accept(free[rows], labels, confidence)
        return len(rows) > 0

    def agreed(self, p: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of the pool that get a label (n), these labels and how sure it is, by posteriors (2, B, K)."""
        confidence, guess = p.max(2)  # (2, B)
        label = torch.full_like(guess, -1)
        quotas = self.quotas(self.per_round * len(self.prior), guess)
        for v in range(2):
            for c, most in enumerate(quotas):
                label[v, surest(confidence[v], guess[v] == c, most)] = c
        clash = (label >= 0).all(0) & (label[0] != label[1])
        rows = ((label >= 0).any(0) & ~clash).nonzero().squeeze(1)
        sure = torch.where(label >= 0, confidence, 0.0).amax(0)
        return rows, label.amax(0)[rows], sure[rows]

    def predict(self, encoder: Encoder, x: Any) -> Tensor:
        with torch.no_grad():
            log_p = self.posteriors(self.scaled(encoder(x)))  # (2, B, K)
        return log_p.sum(0).softmax(1).float()
