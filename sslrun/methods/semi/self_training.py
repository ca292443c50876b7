"""Self-training: a classifier labels the rows that it is surest of, and is fitted again (Scudder 1965)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.collected import Rounds, classifier, surest

RULES = ("quota", "threshold", "top_k")
OFTEN = 3  # a row that has lost its label so many times stays without one, or rounds might never end


class SelfTraining(Rounds):
    """Logistic regression that takes its surest guesses for labels, round by round, each fit from scratch.

    Scudder 1965, "Probability of error of some adaptive pattern-recognition machines"; Yarowsky 1995, "Unsupervised
    word sense disambiguation rivaling supervised methods". The first epoch collects features, and every epoch is a
    round. A quota for each class keeps the classes that are easily believed from flooding the rest. A guess that the
    next fit does not share loses its label. It ends when nothing changes, or when every row has a label.

    Args:
        rule: which guesses become labels: the surest of each class (`quota`), all that are sure enough (`threshold`),
            or the surest of all (`top_k`).
        per_round: rows for each class and round on average, in proportion to the prior.
        threshold: least confidence of a guess, in [0, 1).
        strength: C of the logistic regression, above 0.
        prior: expected shares of the classes; null: those that the first fit expects.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        rule: str = "quota",
        per_round: int = 5,
        threshold: float = 0.0,
        strength: float = 1.0,
        prior: Sequence[float] | None = None,
    ):
        super().__init__(encoder, spec, prior)
        if rule not in RULES:
            raise ValueError(f"rule={rule} is unknown; choose from {', '.join(RULES)}")
        if per_round < 1:
            raise ValueError(f"per_round={per_round} must be 1 or more, for example 5")
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold={threshold} must lie in [0, 1), for example 0.75")
        if strength <= 0:
            raise ValueError(f"strength={strength} must be above 0, for example 1")
        self.rule, self.per_round, self.threshold, self.strength = rule, per_round, threshold, strength
        k = spec.num_classes
        self.register_buffer("weight", torch.zeros(k, encoder.dim, dtype=torch.float64))
        self.register_buffer("bias", torch.zeros(k, dtype=torch.float64))

    def posteriors(self, z: Tensor) -> Tensor:
        """Log probabilities of the classes (B, K), of scaled features (B, D)."""
        return (z @ self.weight.T + self.bias).log_softmax(1)

    def refit(self, z: Tensor) -> bool:
        fitted = self.given >= 0
        self.weight, self.bias = classifier(z[fitted], self.given[fitted], len(self.bias), self.strength)
        log_p = self.posteriors(z)
        self.expect(log_p.exp())
        self.loss = -log_p[fitted].gather(1, self.given[fitted].unsqueeze(1)).mean()
        confidence, guess = log_p.exp().max(1)  # (N,)
        wrong = (fitted & (self.y < 0) & (guess != self.given)).nonzero().squeeze(1)
        self.revoke(wrong)
        chosen = self.choose(confidence, guess, (self.given < 0) & (self.revoked < OFTEN))
        self.accept(chosen, guess[chosen], confidence[chosen])
        return len(wrong) + len(chosen) > 0

    def choose(self, confidence: Tensor, guess: Tensor, free: Tensor) -> Tensor:
        """Rows that get their guess (N,) for a label, of those that are free (N,)."""
        free = free & (confidence >= self.threshold)
        total = self.per_round * len(self.prior)
        if self.rule == "quota":
            quotas = enumerate(self.quotas(total, guess[free]))
            return torch.cat([surest(confidence, free & (guess == c), most) for c, most in quotas])
        return surest(confidence, free, total if self.rule == "top_k" else len(free))

    def predict(self, encoder: Encoder, x: Any) -> Tensor:
        with torch.no_grad():
            return self.posteriors(self.scaled(encoder(x))).exp().float()
