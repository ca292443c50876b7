"""Objectives that collect features and work on them in rounds, run on rows at hand."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Objective, Stream
from sslrun.encoders.identity import Identity


def table(columns: int, classes: int) -> DataSpec:
    names = tuple(f"class {c}" for c in range(classes))
    return DataSpec("rows", "table", (columns,), classes, names, mean=(0.0,) * columns, std=(1.0,) * columns)


def shown(x: Tensor, y: Tensor, seed: int = 0) -> SimpleNamespace:
    """What `prepare` reads of a data module whose training rows are x (N, D), with labels y (N,), -1: hidden."""
    train = SimpleNamespace(index=torch.arange(len(x)), y=y, inputs=lambda rows, device="cpu": x[rows])
    labelled = (y >= 0).nonzero().squeeze(1)
    return SimpleNamespace(train=train, labelled=labelled, seed=seed, sample=lambda most: torch.arange(len(x))[:most])


def start(objective: Objective, x: Tensor, y: Tensor) -> Identity:
    encoder = Identity(table(x.shape[1], 2))
    objective.prepare(shown(x, y), encoder)
    return encoder


def go_through(objective: Objective, encoder: Identity, x: Tensor, passes: int = 100, size: int = 64) -> int:
    """Whole passes until it has converged; returns how many there were."""
    for done in range(passes):
        if objective.converged():
            return done
        for rows in torch.arange(len(x)).split(size):
            hidden = {"x": x[rows], "index": rows, "y": torch.full_like(rows, -1)}
            objective(encoder, Batch({"unlabelled": Stream(hidden, None), "labelled": Stream(hidden, None)}))
        objective.after_epoch(encoder)
    return passes


def few_digits(each: int, rows: int = 400) -> tuple[Tensor, Tensor, Tensor]:
    """Digits (N, 64) in [0, 1], their labels (N,) with `each` of every class shown and -1 elsewhere, and the truth."""
    bundle = load_digits()
    x, truth = torch.from_numpy(bundle.data[:rows] / 16).float(), torch.from_numpy(bundle.target[:rows]).long()
    y = truth.clone()
    for c in range(10):
        y[(truth == c).nonzero().squeeze(1)[each:]] = -1
    return x, y, truth
