"""Gaussian mixtures as linear models of quadratic features: expectation and maximisation are one matrix product each.

Letters: N rows, D features, R restarts, K components, P quadratic features. Rows are centred and float64.
A covariance is (R, K, D, D) of kind `full`, (R, 1, D, D) `tied`, (R, K, D) `diagonal`, (R, K, 1) `spherical`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from sslrun.nn.lloyd import lloyd, plus_plus

KINDS = ("full", "tied", "diagonal", "spherical")
BLOCK = 1 << 19  # quadratic features at once: what a processor's cache holds; an accelerator takes many more
DEAD = 1e-6  # samples' worth of responsibility, below which a component stays where it was


class Mixture(NamedTuple):
    """Shares (R, K), means (R, K, D) and covariances of R mixtures."""

    shares: Tensor
    means: Tensor
    covariance: Tensor


def width(kind: str, d: int) -> int:
    """The number of quadratic features P."""
    return {"diagonal": d, "spherical": 1}.get(kind, d * (d + 1) // 2) + d + 1


def parameters(kind: str, k: int, d: int) -> int:
    """How many numbers a mixture has that are free."""
    each = {"full": k * d * (d + 1) // 2, "tied": d * (d + 1) // 2, "diagonal": k * d, "spherical": k}[kind]
    return k - 1 + k * d + each


def bic(log_likelihood: float, kind: str, k: int, d: int, n: int) -> float:
    """Schwarz 1978 of n rows with this mean log-likelihood: the lower, the better."""
    return -2 * n * log_likelihood + parameters(kind, k, d) * math.log(n)


def quadratic(x: Tensor, kind: str, out: Tensor) -> Tensor:
    """Second-order terms, x and 1 of rows (D, N) as columns, (P, N), written to `out`."""
    d, n = x.shape
    out = out[:, :n]
    if kind == "diagonal":
        torch.mul(x, x, out=out[:d])
    elif kind == "spherical":
        torch.sum(x * x, 0, keepdim=True, out=out[:1])
    else:
        start = 0
        for i in range(d):
            torch.mul(x[i], x[i:], out=out[start : start + d - i])
            start += d - i
    out[-d - 1 : -1] = x
    out[-1] = 1
    return out


def coefficients(mixture: Mixture, kind: str) -> Tensor:
    """log p(x, k) is the product of these (R, K, P) and the quadratic features of x. By Cholesky, in log space."""
    shares, means, covariance = mixture
    d = means.shape[-1]
    if kind in ("full", "tied"):
        root = torch.linalg.cholesky(covariance)  # (R, K or 1, D, D)
        precision = torch.cholesky_inverse(root.flatten(0, 1)).view_as(root)
        log_det = 2 * root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        pulled = (precision @ means.unsqueeze(-1)).squeeze(-1)  # (R, K, D)
        rows, columns = torch.triu_indices(d, d, device=means.device)
        second = -precision[..., rows, columns] * torch.where(rows == columns, 0.5, 1.0).to(precision)
    else:
        precision = 1 / covariance
        log_det = covariance.log().sum(-1) * (d / covariance.shape[-1])
        pulled, second = means * precision, -0.5 * precision
    level = shares.log() - 0.5 * (d * math.log(2 * math.pi) + log_det + (pulled * means).sum(-1))
    return torch.cat([second.expand(*means.shape[:2], -1), pulled, level.unsqueeze(-1)], -1)


def expect(x: Tensor, theta: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Sums of quadratic features by responsibility (R, K, P), and log p of rows (N, D) summed by restart, (R,)."""
    many, k, p = theta.shape
    sums, total = torch.zeros_like(theta), theta.new_zeros(many)
    for phi in _blocks(x, kind, p):
        joint = (theta.flatten(0, 1) @ phi).view(many, k, -1)  # (R, K, n)
        high = joint.amax(1, keepdim=True)
        share = joint.sub_(high).exp_()
        mass = share.sum(1, keepdim=True)
        share.div_(mass)
        sums.flatten(0, 1).addmm_(share.flatten(0, 1), phi.T)
        total += (high + mass.log()).sum((1, 2))
    return sums, total


def joint_log(x: Tensor, theta: Tensor, kind: str) -> Tensor:
    """log p(x, k) of rows (N, D) under one mixture (K, P), (N, K)."""
    parts = [(theta @ phi).T for phi in _blocks(x, kind, theta.shape[1])]
    return torch.cat(parts) if parts else x.new_zeros(0, len(theta))


def _blocks(x: Tensor, kind: str, p: int):
    size = max(64, (BLOCK if x.device.type == "cpu" else BLOCK << 8) // p)
    space = x.new_empty(p, min(size, len(x)))
    for part in x.split(size) if len(x) else ():
        yield quadratic(part.T.contiguous(), kind, space)


def maximise(sums: Tensor, kind: str, floor: float, before: Mixture | None = None) -> Mixture:
    """The mixtures of largest likelihood for sums (R, K, P); `floor` is added to every variance.

    A component that has no sample left stays where it was `before`, with a share of next to nothing.
    """
    second, first, count = sums[..., : -_d(sums, kind) - 1], sums[..., -_d(sums, kind) - 1 : -1], sums[..., -1:]
    d, eps = first.shape[-1], 10 * torch.finfo(sums.dtype).eps
    count = count + eps  # (R, K, 1)
    means = first / count
    shares = (count / count.sum(1, keepdim=True)).squeeze(-1)
    if kind in ("full", "tied"):
        rows, columns = torch.triu_indices(d, d, device=sums.device)
        moment = sums.new_zeros(*sums.shape[:2], d, d)
        moment[..., rows, columns] = second
        moment[..., columns, rows] = second
        outer = means.unsqueeze(-1) * means.unsqueeze(-2)
        covariance = moment / count.unsqueeze(-1) - outer
        if kind == "tied":
            covariance = (shares[..., None, None] * covariance).sum(1, keepdim=True)
        covariance.diagonal(dim1=-2, dim2=-1).add_(floor)
    elif kind == "diagonal":
        covariance = (second / count - means.square()).clamp_min(0) + floor
    else:
        covariance = ((second / count - means.square().sum(-1, keepdim=True)) / d).clamp_min(0) + floor
    if before is not None:
        alive = count > DEAD
        means = torch.where(alive, means, before.means)
        if kind != "tied":
            covariance = torch.where(alive.view(*alive.shape, *(1,) * (covariance.dim() - 3)), covariance,
                                     before.covariance)  # fmt: skip
    return Mixture(shares, means, covariance)


def _d(sums: Tensor, kind: str) -> int:
    p = sums.shape[-1]
    return {"diagonal": (p - 1) // 2, "spherical": p - 2}.get(kind, (math.isqrt(8 * p + 1) - 3) // 2)


def started(x: Tensor, k: int, kind: str, start: str, floor: float, restarts: int, draw: torch.Generator) -> Mixture:
    """First mixtures of rows (N, D): of the clusters of k-means, or as wide as the data around random rows."""
    p = width(kind, x.shape[1])
    if start == "random":
        every = torch.cat(list(phi.sum(1, keepdim=True) for phi in _blocks(x, kind, p)), 1).sum(1)  # (P,)
        whole = maximise(every.view(1, 1, -1), kind, floor)
        rows = torch.stack([torch.randperm(len(x), generator=draw)[:k] for _ in range(restarts)])
        many = 1 if kind == "tied" else k
        covariance = whole.covariance.expand(restarts, many, *whole.covariance.shape[2:]).clone()
        return Mixture(x.new_full((restarts, k), 1 / k), x[rows], covariance)
    found = []
    for _ in range(restarts):
        nearest, at = lloyd(x, plus_plus(x, k, 1, draw))[1], 0
        sums = x.new_zeros(k, p)
        for phi in _blocks(x, kind, p):
            sums.index_add_(0, nearest[at : at + phi.shape[1]], phi.T)
            at += phi.shape[1]
        found.append(sums)
    return maximise(torch.stack(found), kind, floor)


def em(
    x: Tensor, mixture: Mixture, kind: str, floor: float, most: int = 100, tol: float = 1e-3
) -> tuple[Mixture, Tensor]:
    """Passes over rows (N, D) until the mean log-likelihood of no restart rises by `tol`; it is returned, (R,)."""
    value = x.new_full((len(mixture.shares),), -torch.inf)
    for _ in range(most):
        sums, total = expect(x, coefficients(mixture, kind), kind)
        gain, value = total / len(x) - value, total / len(x)
        if bool((gain < tol).all()):
            break
        mixture = maximise(sums, kind, floor, mixture)
    return mixture, value


def least_variance(mixture: Mixture, kind: str) -> Tensor:
    """The smallest variance in any direction of each component, (R, K), or (R, 1) where they share it."""
    if kind in ("full", "tied"):
        return torch.linalg.eigvalsh(mixture.covariance)[..., 0]
    return mixture.covariance.amin(-1)
