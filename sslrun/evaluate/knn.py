"""Weighted nearest neighbours on frozen features (Wu et al. 2018, arXiv:1805.01978): near means of the same class."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate.features import ordered
from sslrun.evaluate.scores import scores

CELLS = 2**25  # similarities in memory at a time


def knn(
    train: Split, val: Split | None, test: Split, spec: DataSpec, *, k: int = 20, temperature: float = 0.07
) -> dict[str, Any]:
    """Scores of the test rows, each classified by its k most similar labelled training rows.

    Nothing is selected: `k` and `temperature` stay as they are, and `val` is not read. Without labels the result is
    empty.
    """
    bank, asked = ordered(train), ordered(test)
    if not spec.num_classes or not len(bank.labels) or not len(asked.labels):
        return {}
    predicted = classify(bank.features, bank.labels, asked.features, spec.num_classes, k, temperature)
    protocol = {
        "k": min(k, len(bank.labels)),
        "temperature": temperature,
        "similarity": "cosine",
        "rows": len(bank.labels),
        "selected_on": "nothing",
    }
    return {**scores(predicted, asked.labels.to(predicted.device), spec.num_classes), "protocol": {"": protocol}}


knn.needs = ("features",)


def classify(
    bank: Tensor, labels: Tensor, features: Tensor, num_classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Classes (N,) of features (N, D) by the votes exp(cosine / temperature) of the k nearest rows of bank (M, D).

    Equal votes go to the lowest class; of equally near rows at the edge of the neighbourhood, those of the lowest
    class come first. `k` is at most M.
    """
    order = labels.to(bank.device).argsort(stable=True)  # lowest class first, which settles ties at the edge
    bank, labels = F.normalize(bank[order].float(), dim=1), labels.to(bank.device)[order]
    features, k = features.to(bank.device), min(k, len(bank))
    one_hot = F.one_hot(labels, num_classes).double()  # (M, K)
    predicted = []
    for part in features.split(max(1, CELLS // len(bank))):
        similarity = F.normalize(part.float(), dim=1) @ bank.T  # (B, M)
        value, neighbour = _nearest(similarity, k)  # (B, k) each
        weight = ((value - value[:, :1]).double() / temperature).exp()  # the nearest weighs 1: nothing overflows
        votes = (weight.unsqueeze(2) * one_hot[neighbour]).sum(1)  # (B, K)
        predicted.append(votes.argmax(1))  # the first of equal maxima
    return torch.cat(predicted)


def _nearest(similarity: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row and their columns, where topk alone leaves open which of equal values it takes."""
    value, column = similarity.topk(k, dim=1)
    edge = value[:, -1:]
    unclear = ((similarity >= edge).sum(1) > k).nonzero().squeeze(1)
    if len(unclear):
        column[unclear] = similarity[unclear].argsort(dim=1, descending=True, stable=True)[:, :k]
    return value, column
