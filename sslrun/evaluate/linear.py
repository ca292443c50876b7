"""The linear probe: multinomial logistic regression on standardised frozen features, its strength chosen, not typed.

    min over W, b of  C * sum of log losses + |W|^2 / 2

as scikit-learn's LogisticRegression(C) has it. A second class is the complement of the first, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate.features import ordered
from sslrun.evaluate.scores import scores
from sslrun.rng import seed_of

STRENGTHS = tuple(10.0**power for power in range(-4, 4))  # values of C, from strong to weak regularisation
FOLDS = 5  # of a cross-validation, at most
FIXED = 1.0  # C where there are too few labels to choose it
SMALL = 2**22  # up to this many feature values, matrix products in float64 cost nothing
ROUGH, SHARP = 1e-4, 1e-7  # largest gradient of the mean loss: while choosing C, and for the probe that is scored
FLOOR = 1e-5  # float32 products do not resolve gradients much below


@dataclass(frozen=True)
class Probe:
    """An affine classifier of the classes (J,) that it has seen: weight (J, D), bias (J,), for plain features."""

    classes: Tensor
    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor, num_classes: int) -> Tensor:
        """(N, K) in float64, minus infinity for a class that was never seen."""
        out = features.new_full((len(features), num_classes), -torch.inf, dtype=torch.float64)
        out[:, self.classes] = (features.to(self.weight.dtype) @ self.weight.T).double() + self.bias
        return out


class Regression:
    """Logistic regression of labels (N,) on features (N, D), solved for one strength after another.

    The solver is L-BFGS. It works along the principal axes of the features, each scaled by the bound on its curvature
    (Boehning 1992, "Multinomial logistic regression algorithm"), which spares it most steps where features correlate.
    """

    def __init__(self, features: Tensor, labels: Tensor):
        self.classes, answer = labels.unique(return_inverse=True)
        wide = features.double() if features.numel() <= SMALL else features
        self.mean, std = wide.mean(0), wide.std(0, correction=0)  # (D,)
        constant = std <= 1e-6 * self.mean.abs()  # below the rounding of float32
        self.std = std.masked_fill(constant, 1.0)
        z = ((wide - self.mean) / self.std).masked_fill(constant, 0.0)
        axes = None
        if len(z) < z.shape[1]:  # the best weights lie in the span of the rows
            axes = torch.linalg.qr(z.T).Q  # (D, N)
            z = z @ axes
        scatter, turn = torch.linalg.eigh((z.T @ z).double())
        self.axes = turn.to(z.dtype) if axes is None else axes @ turn.to(z.dtype)  # (D, R)
        self.z = z @ turn.to(z.dtype)  # (N, R)
        self.curvature = scatter.clamp_min(0) / (2 * len(z))  # (R,)
        self.binary = len(self.classes) == 2
        self.target = answer.double().unsqueeze(1) if self.binary else F.one_hot(answer).double()  # (N, J)
        self.weight = torch.zeros(self.target.shape[1], self.z.shape[1], dtype=torch.float64)  # (J, R)
        self.bias = torch.zeros(self.target.shape[1], 1, dtype=torch.float64)
        self.solved: dict[float, tuple[Tensor, Tensor]] = {}

    def solve(self, strength: float, tolerance: float) -> Probe:
        """The probe for C = strength, from where it was left, or else from where the last strength was."""
        n = len(self.z)
        self.weight, self.bias = self.solved.get(strength, (self.weight, self.bias))
        decay = 1 / (strength * n)
        scale = (self.curvature + decay).rsqrt()  # (R,)

        def objective(flat):
            at = torch.from_numpy(flat).view(-1, len(scale) + 1)
            weight = at[:, :-1] * scale  # (J, R)
            logits = (self.z @ weight.to(self.z.dtype).T).double() + at[:, -1]  # (N, J)
            if self.binary:
                loss = F.binary_cross_entropy_with_logits(logits, self.target, reduction="sum")
                error = (logits.sigmoid() - self.target) / n
            else:
                log_share = logits.log_softmax(1)
                loss = -(log_share * self.target).sum()
                error = (log_share.exp() - self.target) / n
            slope = (error.T.to(self.z.dtype) @ self.z).double() + decay * weight
            gradient = torch.cat([slope * scale, error.sum(0).unsqueeze(1)], 1)
            return (loss / n + decay / 2 * weight.square().sum()).item(), gradient.flatten().numpy()

        if len(self.classes) > 1:
            start = torch.cat([self.weight / scale, self.bias], 1).flatten().numpy()
            reachable = tolerance if self.z.dtype == torch.float64 else max(tolerance, FLOOR)
            options = {"gtol": reachable, "ftol": 1e-14, "maxiter": 1000, "maxfun": 2000, "maxcor": 20}
            best = minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
            at = torch.from_numpy(best.x).view(-1, len(scale) + 1)
            self.weight, self.bias = at[:, :-1] * scale, at[:, -1:].clone()
            self.solved[strength] = self.weight, self.bias
        weight = self.weight.to(self.axes.dtype) @ self.axes.T / self.std  # (J, D)
        bias = self.bias.squeeze(1) - (weight @ self.mean).double()
        if self.binary:
            weight, bias = torch.cat([0 * weight, weight]), torch.cat([0 * bias, bias])
        return Probe(self.classes, weight, bias)


def linear(
    train: Split, val: Split | None, test: Split, spec: DataSpec, *, strengths: Sequence[float] = STRENGTHS
) -> dict[str, Any]:
    """Test scores of a probe on all training labels and on each budget of `train.budgets`.

    With all labels C is the one of `strengths` that is best on validation; within a budget (and where validation has
    no labels) it is chosen by stratified cross-validation among the training rows used. Without labels the result is
    empty.
    """
    found: dict[str, Any] = {"protocol": {}}
    for prefix, rows in parts(train, spec):
        values, found["protocol"][prefix] = probe(train, val if prefix == "" else None, test, spec, rows, strengths)
        found |= {f"{prefix}/{name}".removeprefix("/"): value for name, value in values.items()}
    return found if len(found) > 1 else {}


linear.needs = ("features",)


def parts(train: Split, spec: DataSpec) -> list[tuple[str, Tensor | None]]:
    """What probes train on: prefixes of metrics, "" for all labels and "@n" for a budget, and rows of train."""
    if not spec.num_classes or not (train.labels >= 0).any():
        return []
    return [("", None), *((f"@{n}", rows) for n, rows in sorted((train.budgets or {}).items()))]


def probe(
    train: Split,
    val: Split | None,
    test: Split,
    spec: DataSpec,
    rows: Tensor | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[dict[str, float], dict[str, Any]]:
    """Test scores of one probe on `rows` of train (all: None), and its protocol.

    The protocol has `C`, what it was `selected_on`, and `selected_score`, the (accuracy, -log loss) it reached there.
    """
    used, asked = ordered(train, rows), ordered(test)
    held_out = ordered(val) if val is not None else None
    chosen, on, score, regression = choose(used, held_out, spec.num_classes, strengths)
    final = regression.solve(chosen, SHARP)
    predicted = final.logits(asked.features, spec.num_classes).argmax(1)
    protocol = {
        "C": chosen,
        "selected_on": on,
        "selected_score": score,
        "rows": len(used.labels),
        "standardised": "mean and standard deviation of the training rows used",
    }
    return scores(predicted, asked.labels, spec.num_classes), protocol


def choose(
    used: Split, held_out: Split | None, num_classes: int, strengths: Sequence[float]
) -> tuple[float, str, tuple[float, float] | None, Regression]:
    """The C with the best accuracy, of equal ones that with the lower log loss, then the stronger regularisation.

    Returns it with what it was chosen on, its score there, and the regression on all rows used.
    """
    strengths = sorted(strengths)
    whole = Regression(used.features, used.labels)
    if held_out is not None and len(held_out.labels):
        on = "val"
        judged = [judge(whole.solve(c, ROUGH), held_out, num_classes) for c in strengths]
        total = torch.stack(judged) / len(held_out.labels)  # (number of strengths, 2)
    else:
        smallest = int(used.labels.unique(return_counts=True)[1].min())
        folds = min(FOLDS, smallest)
        if folds < 2:
            return FIXED, "nothing: a class has a single label", None, whole
        on = f"cross-validation in the training rows used, a fold for each label of the rarest class, {FOLDS} at most"
        fold = stratified(used, folds)
        total = torch.zeros(len(strengths), 2, dtype=torch.float64)
        for held in range(folds):
            kept, left = take(used, fold != held), take(used, fold == held)
            regression = Regression(kept.features, kept.labels)
            total += torch.stack([judge(regression.solve(c, ROUGH), left, num_classes) for c in strengths])
        total /= len(used.labels)
    ranked = [tuple(row) for row in total.tolist()]
    best = max(range(len(strengths)), key=lambda i: ranked[i])  # the first of equals: the strongest regularisation
    return strengths[best], on, ranked[best], whole


def judge(probe: Probe, split: Split, num_classes: int) -> Tensor:
    """Number of hits and minus the summed log loss, (2,); a class that was never seen costs 50."""
    logits = probe.logits(split.features, num_classes)
    loss = F.cross_entropy(logits, split.labels, reduction="none").clamp_max(50)
    return torch.stack([(logits.argmax(1) == split.labels).sum().double(), -loss.sum()])


def stratified(split: Split, folds: int) -> Tensor:
    """A fold for each row, (N,): every class spread evenly, by a shuffle that depends on `index` alone."""
    pairs = zip(split.labels.tolist(), split.index.tolist(), strict=True)
    keys = [(label, seed_of("fold", index)) for label, index in pairs]
    order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % folds
    return fold


def take(split: Split, mask: Tensor) -> Split:
    return Split(split.features[mask], split.labels[mask], split.index[mask])
