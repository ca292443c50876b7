"""What methods share that first collect the features of all training rows, and then label these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder, Objective
from sslrun.nn.gather import gather, sizes
from sslrun.nn.regression import Regression

TOLERANCE = 1e-5  # largest gradient of the mean loss of a fitted classifier


class Collected(Objective):
    """The first epoch collects the features of every training row on every process; each epoch ends with a round.

    A subclass writes `round`. Rows (N) are in the order of their index in the data.
    """

    streams = ("labelled", "unlabelled")
    trains = False
    whole_epochs = True

    def __init__(self, encoder: Encoder, spec: DataSpec):
        super().__init__(encoder, spec)
        if spec.num_classes < 2:
            raise ValueError(f"labels need at least 2 classes, and data={spec.name} has {spec.num_classes}")
        self.classes = spec.classes
        self.register_buffer("rounds", torch.zeros((), dtype=torch.long))
        self.register_buffer("done", torch.zeros((), dtype=torch.bool))
        self.register_buffer("loss", torch.tensor(float(spec.num_classes)).double().log())  # on the labelled rows
        self.register_buffer("features", torch.zeros(0, encoder.dim))  # (N, D)
        self.register_buffer("index", torch.zeros(0, dtype=torch.long))  # (N,)
        self.register_buffer("y", torch.zeros(0, dtype=torch.long))  # (N,)

    def prepare(self, data: Any, encoder: Encoder) -> None:
        order = data.train.index.argsort()
        self.index, self.y = data.train.index[order], data.train.y[order]
        self.features = torch.zeros(len(order), encoder.dim)
        known = order[self.y >= 0]
        encoder.eval()
        with torch.no_grad():
            x = torch.cat([encoder(data.train.inputs(part)) for part in known.split(1024)])
        self.features[self.y >= 0] = x.to(self.features)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        encoder.eval()
        if not self.training:
            p = self.predict(encoder, batch["labelled"]["x"])
            p = torch.where(p.sum(1, keepdim=True) > 0, p, 1 / p.shape[1])  # what is unknown costs as much as chance
            return {"loss": F.nll_loss(p.clamp_min(1e-12).log(), batch["labelled"]["y"])}
        if not self.rounds:
            self._collect(encoder, batch["unlabelled"])
        return {"loss": self.loss.float()}

    def _collect(self, encoder: Encoder, stream: Any) -> None:
        with torch.no_grad():
            f, index = encoder(stream["x"]), stream["index"]
        counts = sizes(index)
        f, index = gather(f, counts), gather(index, counts)
        place = torch.searchsorted(self.index, index)
        self.features[place] = f.to(self.features)

    def after_epoch(self, encoder: Encoder) -> None:
        if self.done:
            return
        self.rounds += 1
        self.done = torch.as_tensor(not self.round(), device=self.done.device)

    def round(self) -> bool:
        """Learns from features and labels; false: nothing changed, and another round would change nothing."""
        raise NotImplementedError

    def converged(self) -> bool:
        return bool(self.done)


class Rounds(Collected):
    """Every round gives rows labels, which the next one learns from.

    A subclass writes `refit`, which gives rows labels by `accept` and takes them back by `revoke`. Features are centred
    and scaled to a mean variance of 1: one scale for all, since a column that hardly varies would be noise if it were
    blown up.

    Args:
        prior: expected shares of the classes, which quotas follow; null: those that the first fit expects.
    """

    def __init__(self, encoder: Encoder, spec: DataSpec, prior: Sequence[float] | None = None):
        super().__init__(encoder, spec)
        if prior is not None:
            refuse_prior(prior, spec)
        self.estimated = prior is None
        shares = torch.tensor(list(prior or (1.0,) * spec.num_classes), dtype=torch.float64)
        self.register_buffer("prior", shares / shares.sum())
        self.register_buffer("origin", torch.zeros(encoder.dim, dtype=torch.float64))
        self.register_buffer("spread", torch.ones((), dtype=torch.float64))
        for name, kind in (("given", torch.long), ("since", torch.long), ("revoked", torch.long),
                           ("confidence", torch.float64)):  # fmt: skip
            self.register_buffer(name, torch.zeros(0, dtype=kind))  # (N,)

    def prepare(self, data: Any, encoder: Encoder) -> None:
        super().prepare(data, encoder)
        self.given = self.y.clone()
        self.since, self.revoked = torch.zeros_like(self.y), torch.zeros_like(self.y)
        self.confidence = (self.y >= 0).double()

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        out = super().forward(encoder, batch)
        return {**out, "labelled_share": (self.given >= 0).float().mean()} if self.training else out

    def expect(self, p: Tensor) -> None:
        """Takes the mean of the first fit's probabilities (N, K) for the prior, where none was given.

        Labels are often drawn class by class, so that their shares say nothing.
        """
        if self.estimated and self.rounds == 1:
            self.prior = p.mean(0)

    def round(self) -> bool:
        if self.rounds == 1:
            self.origin = self.features.double().mean(0)
            spread = (self.features.double() - self.origin).square().mean().sqrt()
            self.spread = torch.where(spread > 0, spread, 1.0)
        return self.refit(self.scaled(self.features))

    def scaled(self, features: Tensor) -> Tensor:
        return (features.double() - self.origin) / self.spread

    def refit(self, z: Tensor) -> bool:
        """Fits on what has a label so far, of scaled features (N, D), and labels more; false: nothing changed."""
        raise NotImplementedError

    def quotas(self, total: int, guess: Tensor) -> list[int]:
        """This round's rows of each class, `total` on average: over the rounds they add up to the prior's shares.

        Where none of the guesses (n,) has a place, each class has one, since only rows that nobody takes end the run.
        """
        upto = [(total * r * self.prior + 0.5).floor() for r in (int(self.rounds), int(self.rounds) - 1)]
        places = (upto[0] - upto[1]).long()
        return (places if places[guess].any() else places.clamp_min(1)).tolist()

    def accept(self, rows: Tensor, labels: Tensor, confidence: Tensor) -> None:
        self.given[rows], self.confidence[rows], self.since[rows] = labels, confidence, self.rounds

    def revoke(self, rows: Tensor) -> None:
        self.given[rows], self.confidence[rows] = -1, 0.0
        self.revoked[rows] += 1

    def audit(self) -> list[dict[str, Any]]:
        """Each row that had no label: what it was given, in which round, how surely, and how often it was revoked."""
        names = dict(enumerate(self.classes)) | {-1: ""}
        hidden = self.y < 0
        columns = (self.index, self.given, self.since, self.confidence, self.revoked)
        return [
            {"index": i, "label": names[g], "round": r if g >= 0 else "", "confidence": f"{c:.4f}", "revoked": times}
            for i, g, r, c, times in zip(*(column[hidden].tolist() for column in columns), strict=True)
        ]


def refuse_prior(prior: Sequence[float], spec: DataSpec) -> None:
    if len(prior) != spec.num_classes or min(prior) <= 0:
        raise ValueError(
            f"prior={list(prior)} must be {spec.num_classes} shares above 0, one for each class of data={spec.name}; "
            "null does without"
        )


def classifier(z: Tensor, labels: Tensor, num_classes: int, strength: float) -> tuple[Tensor, Tensor]:
    """Weight (K, D) and bias (K,) of a logistic regression on scaled features (n, D); a class never seen is ruled out.

    From scratch and on the processor, so that it depends on these rows alone.
    """
    probe = Regression(z.cpu(), labels.cpu(), standardise=False).solve(strength, TOLERANCE)
    weight = torch.zeros(num_classes, z.shape[1], dtype=torch.float64)
    bias = torch.full((num_classes,), -torch.inf, dtype=torch.float64)
    weight[probe.classes], bias[probe.classes] = probe.weight.double(), probe.bias
    return weight.to(z.device), bias.to(z.device)


def surest(confidence: Tensor, candidates: Tensor, most: int) -> Tensor:
    """The rows of largest confidence (N,) among candidates (N,), a mask; at most so many."""
    rows = candidates.nonzero().squeeze(1)
    return rows[confidence[rows].argsort(descending=True, stable=True)[:most]]
