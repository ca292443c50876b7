import pytest
import torch
import torch.nn.functional as F

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate.finetune import finetune

SPEC = DataSpec("toy", "table", (4,), 3)
TRAIN = Split(None, torch.arange(30) % 3, torch.arange(30), {3: torch.arange(3), 6: torch.arange(6)})
TEST = Split(None, torch.tensor([0, 1, 2, 0, -1]), torch.arange(5))


def test_scores_what_the_runner_trained():
    asked = []

    def tune(n):
        asked.append(n)
        return F.one_hot(torch.tensor([0, 1, 2, 0 if n is None else 1, 2]), 3).float()

    found = finetune(TRAIN, None, TEST, SPEC, tune=tune)
    assert asked == [None, 3, 6]
    assert found["accuracy"] == 1 and found["@3/accuracy"] == 0.75
    assert found["@6/balanced_accuracy"] == pytest.approx((0.5 + 1 + 1) / 3)
    assert {prefix: how["rows"] for prefix, how in found["protocol"].items()} == {"": 30, "@3": 3, "@6": 6}


def test_only_the_budgets_asked_for_are_trained():
    asked = []
    finetune(TRAIN, None, TEST, SPEC, tune=lambda n: asked.append(n) or torch.ones(5, 3), budgets=[6, 99])
    assert asked == [None, 6]


def test_a_row_of_zeros_is_unknown_and_wrong():
    found = finetune(TRAIN, None, TEST, SPEC, tune=lambda n: torch.zeros(5, 3), budgets=[])
    assert found["accuracy"] == 0


def test_without_classes_nothing_is_trained():
    unlabelled = DataSpec("toy", "table", (4,), 0)
    assert finetune(TRAIN, None, TEST, unlabelled, tune=lambda n: pytest.fail("trained")) == {}
