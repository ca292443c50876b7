"""What a classifier believes: its guesses where labels are hidden, and whether it is as sure as it is right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import Batch, Encoder, Objective
from sslrun.data.module import Data
from sslrun.streams import classifies

GUESSED = 1024  # unlabelled samples that a look guesses
BINS = 10  # of confidence


@dataclass
class Beliefs:
    """Probabilities (N, K) of unlabelled training samples, and (M, K) of validation samples with their labels (M,).

    `prior` (K,) are the shares of the classes among the labels that were shown.
    """

    name: str
    prior: Tensor
    guesses: Tensor
    p: Tensor
    y: Tensor

    @property
    def shares(self) -> Tensor:
        """The share of each class among the guesses, (K,)."""
        return torch.bincount(self.guesses.argmax(1), minlength=len(self.prior)) / max(len(self.guesses), 1)

    def scalars(self) -> dict[str, float]:
        """Worth a curve: how far the guesses stray from the prior, how sure they are, and the calibration error."""
        told = {}
        if len(self.guesses):
            told["guesses/largest_class"] = float(self.shares.max())
            told["guesses/off_prior"] = float((self.shares - self.prior).abs().sum() / 2)  # total variation
            told["guesses/confidence"] = float(self.guesses.amax(1).mean())
        if len(self.y):
            told["validation/calibration_error"] = float(calibration_error(self.p, self.y))
        return told


def unlabelled(data: Data) -> Tensor:
    """Rows of training samples without a label, evenly over the part; at most as many as a look guesses."""
    rows = (data.train.y < 0).nonzero().squeeze(1)
    return rows[torch.linspace(0, len(rows) - 1, min(GUESSED, len(rows))).long()] if len(rows) else rows


def bins(p: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, mean confidence and accuracy of each of ten equal bins of confidence, each (10,)."""
    confidence, guess = p.double().max(1)
    place = (confidence * BINS).long().clamp(0, BINS - 1)
    count = torch.bincount(place, minlength=BINS)
    confident = torch.bincount(place, confidence, BINS) / count.clamp_min(1)
    right = torch.bincount(place, (guess == y).double(), BINS) / count.clamp_min(1)
    return count, confident, right


def calibration_error(p: Tensor, y: Tensor) -> Tensor:
    """The mean distance of confidence and accuracy over ten bins, weighted by rows (Guo et al. 2017)."""
    count, confident, right = bins(p, y)
    return ((confident - right).abs() * count).sum() / count.sum().clamp_min(1)


def gradient_norms(encoder: Encoder, objective: Objective, batch: Batch) -> dict[str, float]:
    """The norm of each loss term's gradient by the encoder's weights, in eval mode, by the term's name."""
    weights = [w for w in encoder.parameters() if w.requires_grad]
    # a compiled encoder's backward runs once only, and here each term wants its own
    with torch.enable_grad(), torch.compiler.set_stance("force_eager"):
        terms = {k: v for k, v in objective(encoder, batch).items() if k.startswith("loss_")}
        found = {}
        for name, term in terms.items():
            if weights and term.requires_grad:
                parts = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
                norms = [g.float().norm() for g in parts if g is not None]
                found[name] = float(torch.stack(norms).norm()) if norms else 0.0
    return found


def classifier(objectives: Any) -> tuple[str, Objective] | None:
    """The first method that learns to classify by gradients."""
    return next(((name, o) for name, o in objectives.items() if o.trains and classifies(o)), None)
