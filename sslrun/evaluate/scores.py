"""How good class predictions are, also where classes are uneven."""

from __future__ import annotations

import torch
from torch import Tensor


def guesses(p: Tensor) -> Tensor:
    """The likeliest class of each row of probabilities (N, K); -1 where a row of zeros says that it is not known."""
    return torch.where(p.sum(1) > 0, p.argmax(1), -1)


def scores(predicted: Tensor, labels: Tensor, num_classes: int) -> dict[str, float]:
    """Accuracy, balanced accuracy (mean recall) and macro F1 of predictions (N,) against labels (N,).

    Rows with label -1 are left out; a prediction of -1 (unknown) is wrong. Balanced accuracy and macro F1 are means
    over the classes that occur among the labels. Without a labelled row there is nothing to say: an empty dictionary.
    """
    known = labels >= 0
    predicted, labels = predicted[known], labels[known]
    if not len(labels):
        return {}
    answer = torch.where(predicted < 0, num_classes, predicted)  # the last column counts the unknown
    cells = torch.bincount(labels * (num_classes + 1) + answer, minlength=num_classes * (num_classes + 1))
    confusion = cells.view(num_classes, num_classes + 1).double()  # (K, K + 1), truth by prediction
    hits, truths, guesses = confusion.diagonal(), confusion.sum(1), confusion.sum(0)[:num_classes]
    present = truths > 0
    return {
        "accuracy": (hits.sum() / len(labels)).item(),
        "balanced_accuracy": (hits / truths)[present].mean().item(),
        "macro_f1": (2 * hits / (truths + guesses))[present].mean().item(),
    }
