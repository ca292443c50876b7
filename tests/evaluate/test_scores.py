import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from sslrun.evaluate.scores import scores


def test_equals_scikit_learn_also_without_some_classes():
    draw = np.random.default_rng(0)
    labels = draw.choice(6, 300, p=[0.5, 0.2, 0.15, 0.1, 0.05, 0])  # class 5 never occurs, but is predicted
    predicted = np.where(draw.random(300) < 0.6, labels, draw.integers(0, 7, 300))
    predicted[predicted == 6] = 5
    found = scores(torch.tensor(predicted), torch.tensor(labels), 7)
    present = np.unique(labels)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    recalls = [np.mean(predicted[labels == c] == c) for c in present]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    f1 = f1_score(labels, predicted, labels=present, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(f1)
    clipped = np.minimum(predicted, 4)
    assert scores(torch.tensor(clipped), torch.tensor(labels), 7)["balanced_accuracy"] == pytest.approx(
        balanced_accuracy_score(labels, clipped)
    )


def test_unlabelled_rows_do_not_count_and_unknown_predictions_are_wrong():
    found = scores(torch.tensor([0, -1, 1, 1]), torch.tensor([0, 0, 1, -1]), 2)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert scores(torch.tensor([0]), torch.tensor([-1]), 2) == {}
