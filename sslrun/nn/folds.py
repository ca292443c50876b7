"""Folds of a cross-validation."""

from __future__ import annotations

import torch
from torch import Tensor

from sslrun.rng import seed_of


def stratified(labels: Tensor, index: Tensor, folds: int) -> Tensor:
    """A fold for each row, (N,): every class spread evenly, by a shuffle that depends on `index` (N,) alone."""
    pairs = zip(labels.tolist(), index.tolist(), strict=True)
    keys = [(label, seed_of("fold", index)) for label, index in pairs]
    order = torch.tensor(sorted(range(len(keys)), key=keys.__getitem__))
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % folds
    return fold
