import pytest
import torch

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate.layers import layers
from sslrun.evaluate.linear import linear

SPEC = DataSpec("toy", "table", (4,), 3)


def parts(noise=(0.3, 3.0, 1.0)):
    """Stages of which the first is clean, the second hopeless and the last middling."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    stages = [torch.eye(3)[labels] + level * torch.randn(300, 3, generator=draw) for level in noise]
    out = []
    for rows in (slice(0, 100), slice(100, 200), slice(200, 300)):
        out.append(Split(None, labels[rows], torch.arange(300)[rows], stages=[stage[rows] for stage in stages]))
    out[0].budgets = {3: torch.arange(3), 30: torch.arange(30)}
    return out


def test_each_stage_is_a_linear_probe():
    train, val, test = parts()
    found = layers(train, val, test, SPEC)
    for i in range(3):
        plain = linear(*(Split(s.stages[i], s.labels, s.index, s.budgets) for s in (train, val, test)), SPEC)
        assert found[f"stage{i + 1}/accuracy"] == plain["accuracy"]
        assert found[f"@30/stage{i + 1}/accuracy"] == plain["@30/accuracy"]
        assert found["protocol"]["@30"][f"stage{i + 1}"] == plain["protocol"]["@30"]
    assert found["best/accuracy"] == found["stage1/accuracy"] > found["stage3/accuracy"]
    assert found["protocol"][""]["best"] == {"stage": "stage1", "selected_on": "val"}


def test_the_best_stage_is_chosen_on_validation_not_on_test():
    train, val, test = parts()
    swapped = Split(None, test.labels, test.index, stages=[test.stages[1], test.stages[0], test.stages[2]])
    found = layers(train, val, swapped, SPEC)
    assert found["protocol"][""]["best"]["stage"] == "stage1"
    assert found["best/accuracy"] == found["stage1/accuracy"]
    other = Split(None, val.labels, val.index, stages=[val.stages[1], val.stages[1], val.stages[2]])
    moved = layers(train, other, test, SPEC)
    assert moved["protocol"][""]["best"]["stage"] == "stage3"
    assert moved["protocol"]["@30"] == found["protocol"]["@30"]  # a budget never reads validation


def test_where_nothing_can_be_chosen_the_last_stage_counts():
    found = layers(*parts(), SPEC)
    assert found["protocol"]["@3"]["best"]["stage"] == "stage3"
    assert found["@3/best/accuracy"] == found["@3/stage3/accuracy"]


@pytest.mark.parametrize("classes", [0, 3])
def test_without_labels_there_is_nothing_to_score(classes):
    train, val, test = parts()
    if classes:
        train.labels = torch.full_like(train.labels, -1)
    assert layers(train, val, test, DataSpec("toy", "table", (4,), classes)) == {}
