"""Students of earlier generations: when they start anew, from what, and what a teacher may say."""

import pytest
import torch
from batches import Linear, batch, draw, picture
from torch import nn
from worlds import device, train

from sslrun.check.byhand import held_against
from sslrun.methods.semi.distillation import Distillation
from sslrun.methods.semi.noisy_student import NoisyStudent
from sslrun.nn.example import Example

SHARE = 1e-3  # that every step of `trained` adds to all weights


class Says(nn.Module):
    """A teacher that says the same whatever it sees."""

    def __init__(self, *rows):
        super().__init__()
        self.rows = torch.tensor(rows)

    def predict(self, x):
        return self.rows[: len(x)]


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


def trained(steps, horizon, **settings):
    """An objective and its encoder after so many steps, and what the student's weights were after each."""
    torch.manual_seed(0)
    encoder = Linear(16, 3)
    made = Distillation(encoder, picture(), **settings)
    made.horizon = horizon
    student, seen = nn.ModuleList([encoder, made.head]), []
    for _ in range(steps):
        with torch.no_grad():
            for p in student.parameters():
                p.add_(SHARE)
        seen.append(weights(student))
        made.after_step(encoder)
    return made, student, seen


def test_each_generation_starts_from_the_first_weights_and_learns_from_the_last():
    made, student, seen = trained(4, 10, generations=3, ema=0.0)  # of 4, 3 and 3 steps
    torch.testing.assert_close(weights(student), seen[0] - SHARE)
    assert torch.equal(weights(made.past), seen[3]) and made.guide() is made.past
    assert torch.equal(weights(made.ema.module), weights(student))
    made, student, seen = trained(8, 10, generations=3, ema=0.0)
    torch.testing.assert_close(seen[4], seen[0])
    assert torch.equal(weights(made.past), seen[6]) and torch.equal(weights(student), seen[7])


def test_the_last_generation_keeps_what_it_has_learned():
    made, student, seen = trained(10, 10, generations=3)
    assert torch.equal(weights(student), seen[9])
    made, student, seen = trained(2, 2, generations=3)  # fewer steps than generations
    assert torch.equal(weights(student), seen[1])


def test_the_average_of_a_generation_knows_nothing_of_the_one_before():
    made, _, seen = trained(6, 8, generations=2, ema=0.99)
    torch.testing.assert_close(weights(made.ema.module), torch.stack([seen[0] - SHARE, *seen[:2]]).mean(0))


def test_the_average_teaches():
    made, _, seen = trained(2, 4, generations=2, ema=0.99)
    torch.testing.assert_close(weights(made.past), torch.stack([seen[0] - SHARE, *seen]).mean(0))


def test_the_optimiser_starts_anew_with_each_generation():
    arguments = ["method=distillation", "method.distillation.generations=2", "labels=20", "batch_size=16", "mu=1"]
    done = train(arguments, device(), steps=5)  # of 3 and 2
    assert {int(state["step"]) for state in done.trainer.optimizers[0].state.values()} == {2}


def test_nobody_teaches_the_first_generation_unless_a_teacher_is_given():
    assert trained(3, 8, generations=2)[0].guide() is None
    given = Says((0.2, 0.3, 0.5))
    for generations in (None, 2):
        made, *_ = trained(3, 8, generations=generations, teacher=given)
        assert made.guide() is given
    made, *_ = trained(4, 8, generations=2, teacher=given)
    assert made.guide() is made.past


def test_teachers_stay_in_eval_mode_and_are_not_trained():
    made, *_ = trained(1, 8)
    made.train()
    for network in (made.first, made.past):
        assert not any(part.training for part in network.modules())
        assert not any(p.requires_grad for p in network.parameters())


def test_softened_probabilities_are_those_of_softened_logits():
    made, *_ = trained(1, 8, temperature=4.0)
    z = 5 * draw(7, 3)
    torch.testing.assert_close(made.soften(torch.softmax(z, 1)), torch.softmax(z / 4, 1))
    sure = made.soften(torch.tensor([[1.0, 0.0, 0.0]]))
    assert torch.equal(sure, torch.tensor([[1.0, 0.0, 0.0]]))


def test_a_row_that_the_teacher_does_not_know_teaches_nothing():
    given = Says((0.2, 0.3, 0.5), (0.0, 0.0, 0.0), (0.6, 0.3, 0.1))
    made, student, _ = trained(1, 8, teacher=given, alpha=1.0)
    x, u = draw(1, 1, 4, 4), draw(2, 1, 4, 4, seed=1).requires_grad_()
    out = made(student[0], batch(labelled={"student": x, "y": torch.tensor([0])}, unlabelled={"student": u}))
    (gradient,) = torch.autograd.grad(out["loss"], u)
    assert out["loss"].isfinite() and gradient[1].any() and not gradient[0].any()


@pytest.mark.parametrize(("temperature", "low", "high"), [(1.0, 0.9, 1.1), (20.0, 0.9, 1.1)])
def test_the_soft_gradient_is_as_large_at_every_high_temperature(temperature, low, high):
    """For large T it goes to (z_s - z_t) / K of centred logits (Hinton et al. 2015, equation 4)."""
    made, *_ = trained(1, 8, temperature=temperature)
    student, teacher = 0.1 * draw(5, 3).requires_grad_(), 0.1 * draw(5, 3, seed=1)
    loss = made.divergence(student, made.soften(torch.softmax(teacher, 1)))
    (gradient,) = torch.autograd.grad(loss, student)
    limit = (student - student.mean(1, keepdim=True) - teacher + teacher.mean(1, keepdim=True)).detach() / (3 * 5)
    assert low < gradient.norm() / limit.norm() < high


def test_a_temperature_of_one_is_plain_cross_entropy_less_the_entropy():
    rows = ((0.5, 0.3, 0.2), (0.1, 0.1, 0.8))
    streams = {"labelled": {"student": rows[:1], "y": (0,)}, "unlabelled": {"student": rows[1:]}}
    given = Says(*rows)
    settings = {"temperature": 1.0, "teacher": given}
    assert held_against(Distillation, Example("", streams, {"loss_unlabelled": 0.0}, settings=settings)) == {
        "numbers": None
    }


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (Distillation, {"alpha": 0.0}, "alpha=0.0 must lie above 0 and not above 1"),
        (Distillation, {"temperature": 0.0}, "temperature=0.0 must lie above 0"),
        (Distillation, {"generations": 1}, "generations=1 has no teacher; use 2 or more, or teacher=RUN"),
        (Distillation, {"generations": 0}, "generations=0 must be 1 or more"),
        (NoisyStudent, {"generations": 1}, "generations=1 has no teacher; use 2 or more"),
        (NoisyStudent, {"threshold": 0.0}, "threshold=0.0 must lie above 0"),
    ],
)
def test_refuses_what_cannot_work(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        kind(Linear(16, 3), picture(), **settings)
