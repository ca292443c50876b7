"""What Predict and Encoder give to every task and network for free, by hand."""

import math

import pytest
import torch
from torch import nn

from sslrun.contracts import Batch, DataSpec, Encoder, Predict, Stream
from sslrun.rng import Rng

NAN = float("nan")
SPEC = DataSpec("rows", "table", (2,), mean=(1.0, 0.0), std=(2.0, 1.0))


class Words(Encoder):
    """Three tokens a sample, of which those above zero count."""

    dim = 2

    def tokens(self, x, keep=None):
        return x.unsqueeze(-1).expand(-1, -1, 2) * torch.tensor([1.0, 10.0]), x > 0


class Task(Predict):
    """Answers with what it was told, whatever it is asked."""

    def __init__(self, kind, given, target, num_targets=0):
        super().__init__(None, SPEC)
        self.kind, self.num_targets = kind, num_targets
        self.given, self.target = given, target

    def make(self, x, rng):
        return x, self.target

    def answer(self, encoder, inputs):
        return self.given


def batch(n):
    values = {"x": torch.zeros(n, 2), "index": torch.arange(n)}
    return Batch({"all": Stream(values, lambda *purpose: Rng(*purpose, total=n))})


def test_pooling_leaves_masked_tokens_out():
    x = torch.tensor([[1.0, 3.0, -5.0], [-1.0, -1.0, -1.0]])
    assert Words(SPEC)(x).tolist() == [[2.0, 20.0], [0.0, 0.0]]
    assert torch.equal(Words(SPEC).stages(x)[0], Words(SPEC)(x))


def test_standardising_is_per_column_and_per_channel():
    assert Words(SPEC).standardise(torch.tensor([[3.0, 4.0]])).tolist() == [[1.0, 4.0]]
    image = torch.full((1, 2, 3, 3), 3.0)
    assert Words(SPEC).standardise(image)[0, :, 0, 0].tolist() == [1.0, 3.0]


def test_a_batch_draws_for_the_rows_of_a_stream():
    streams = {
        name: Stream({"index": torch.arange(n)}, lambda *p, n=n: Rng(*p, total=n)) for name, n in (("a", 2), ("b", 5))
    }
    made = Batch(streams)
    assert list(made) == ["a", "b"] and len(made["b"]) == 5
    assert (len(made.rng("x")), len(made.rng("x", stream="b"))) == (2, 5)


def test_class_targets():
    logits = torch.tensor([[0.0, 0.0, math.log(2)], [math.log(8), 0.0, 0.0]])
    task = Task("class", logits, torch.tensor([2, 1]), num_targets=3)
    out = task(None, batch(2))
    expected = (-math.log(2 / 4) - math.log(1 / 10)) / 2
    assert out["loss"].item() == pytest.approx(expected) and out["accuracy"] == 0.5
    assert task.trivial(batch(2))["loss"].item() == pytest.approx(math.log(3))
    assert task.score(None, batch(2)).tolist() == pytest.approx([math.log(2), math.log(10)])


def test_classes_at_positions_average_within_the_sample_first():
    logits = torch.zeros(2, 3, 4)
    logits[0, 0, 1] = math.log(5)
    task = Task("classes", logits, torch.tensor([[1, -1, -1], [0, 2, 3]]), num_targets=4)
    out = task(None, batch(2))
    losses = [-math.log(5 / 8), math.log(4)]
    assert task.score(None, batch(2)).tolist() == pytest.approx(losses)
    assert out["loss"].item() == pytest.approx(sum(losses) / 2)
    assert out["accuracy"].item() == pytest.approx(2 / 4)  # of the positions asked for; ties go to class 0


def test_numbers_that_are_not_asked_for_carry_no_loss_and_no_gradient():
    given = torch.tensor([[1.0, 5.0], [2.0, 2.0]], requires_grad=True)
    task = Task("real", given, torch.tensor([[3.0, NAN], [NAN, NAN]]))
    out = task(None, batch(2))
    assert out["loss"].item() == 2.0  # a sample of which nothing is asked counts as 0
    out["loss"].backward()
    assert given.grad.tolist() == [[-2.0, 0.0], [0.0, 0.0]]


def test_bits():
    given = torch.tensor([[0.0, math.log(3)], [-1.0, 9.0]])
    task = Task("binary", given, torch.tensor([[1.0, 0.0], [0.0, NAN]]))
    losses = [(math.log(2) + math.log(4)) / 2, math.log(1 + math.exp(-1))]
    out = task(None, batch(2))
    assert task.score(None, batch(2)).tolist() == pytest.approx(losses)
    assert out["accuracy"].item() == pytest.approx(1 / 3)
    assert task.trivial(batch(2))["loss"].item() == pytest.approx(math.log(2))


def test_losses_are_fp32_under_autocast():
    layer = nn.Linear(2, 3)

    class Network(Task):
        def answer(self, encoder, inputs):
            return layer(inputs)

    with torch.autocast("cpu", torch.bfloat16):
        task = Network("class", None, torch.tensor([0, 1]), num_targets=3)
        assert task.answer(None, torch.zeros(2, 2)).dtype == torch.bfloat16
        assert task(None, batch(2))["loss"].dtype == torch.float32


def test_scores_of_several_copies_are_averaged_per_sample():
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9], [0.2, 0.8]]))
    task = Task("class", logits, torch.tensor([0, 0, 1, 1]), num_targets=2)
    expected = [-(math.log(0.5) + math.log(0.9)) / 2, -(math.log(0.25) + math.log(0.8)) / 2]
    assert task.score(None, batch(2)).tolist() == pytest.approx(expected)


# Randomness


def test_draws_depend_on_the_key_alone():
    draw = Rng("a", 1, total=6).uniform(2)
    torch.manual_seed(3)
    assert torch.equal(Rng("a", 1, total=6).uniform(2), draw)
    assert not torch.equal(Rng("a", 2, total=6).uniform(2), draw)
    part = Rng("a", 1, total=6, rows=slice(2, 5))
    assert torch.equal(part.uniform(2), draw[2:5]) and len(part) == 3
    assert torch.equal(part.child("x").normal(), Rng("a", 1, "x", total=6).normal()[2:5])
    assert 0.2 < Rng("c", total=10_000).chance(0.25).float().mean() < 0.3
    orders = Rng("o", total=500).orders(3)
    assert (orders.sort(1).values == torch.arange(3)).all() and len(orders.unique(dim=0)) == 6


@pytest.mark.parametrize("name", ("uniform", "normal", "integers"))
def test_draws_by_place_are_those_of_any_batch(name):
    def draw(total, first):
        rng = Rng("v", total=total, first=first).child("flip")
        return rng.integers(9, 2) if name == "integers" else getattr(rng, name)(2)

    whole = draw(200, 0)
    assert torch.equal(torch.cat([draw(128, 0), draw(72, 128)]), whole)
    assert torch.equal(draw(30, 64), whole[64:94])
    assert len(whole.unique(dim=0)) > 60
