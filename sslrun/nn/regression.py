"""Multinomial logistic regression on standardised features:

    min over W, b of  C * sum of log losses + |W|^2 / 2

as scikit-learn's LogisticRegression(C) has it. A second class is the complement of the first, as there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

SMALL = 2**22  # up to this many feature values, matrix products in float64 cost nothing
ROUGH, SHARP = 1e-4, 1e-7  # largest gradient of the mean loss: while choosing C, and for what is scored
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

    Features are standardised by these rows, unless the caller has scaled them already.

    The solver is L-BFGS. It works along the principal axes of the features, each scaled by the bound on its curvature
    (Boehning 1992, "Multinomial logistic regression algorithm"), which spares it most steps where features correlate.
    """

    def __init__(self, features: Tensor, labels: Tensor, standardise: bool = True):
        self.classes, answer = labels.unique(return_inverse=True)
        wide = features.double() if features.numel() <= SMALL else features
        self.mean, std = wide.mean(0), wide.std(0, correction=0)  # (D,)
        if not standardise:
            self.mean, std = torch.zeros_like(std), torch.ones_like(std)
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
