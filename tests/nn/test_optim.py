import math

import pytest
import torch
from torch import nn

from sslrun.contracts import DataSpec, UserError
from sslrun.encoders.cnn import Cnn
from sslrun.nn.optim import Lars, adamw, cycle_of, lars, parameter_groups, scaled_lr, schedule, sgd


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.mask_token = nn.Parameter(torch.randn(1, 1, 4))
        self.position = nn.Parameter(torch.randn(1, 5, 4))
        self.prototypes = nn.Linear(4, 6, bias=False)
        self.teacher = nn.Linear(4, 4).requires_grad_(False)


def names(model, group):
    known = {id(p): n for n, p in model.named_parameters()}
    return {known[id(p)] for p in group["params"]}


def test_groups_by_name_and_dimension():
    model = Model()
    kernels, plain = parameter_groups(model, 0.1)
    assert names(model, kernels) == {"encoder.0.weight"} and kernels["weight_decay"] == 0.1 and kernels["adapt"]
    others = {"encoder.0.bias", "encoder.1.weight", "encoder.1.bias", "mask_token", "position", "prototypes.weight"}
    assert names(model, plain) == others and plain["weight_decay"] == 0 and not plain["adapt"]
    kernels, plain = parameter_groups(Cnn(DataSpec("d", "image", (1, 8, 8))), 0.1)
    assert all(p.dim() == 4 for p in kernels["params"]) and len(kernels["params"]) == 4
    assert len(parameter_groups(nn.Linear(2, 2, bias=False), 0.1)) == 1


@pytest.mark.parametrize("make", [adamw, sgd, lars])
def test_a_step_of_zero_gradient_moves_no_excluded_parameter(make):
    model = Model()
    before = {n: p.clone() for n, p in model.named_parameters()}
    optimiser = make(model, lr=0.5, weight_decay=0.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved == {"encoder.0.weight"}  # by its decay


def quadratic(make, steps=5):
    w = nn.Parameter(torch.tensor([[1.0, -2.0], [3.0, 0.5]], dtype=torch.float64))
    optimiser = make([w])
    for _ in range(steps):
        optimiser.zero_grad()
        (w.square() * torch.tensor([[1.0, 2.0], [0.1, 1.0]])).sum().backward()
        optimiser.step()
    return w.detach()


def test_optimisers_equal_torch():
    ours = quadratic(lambda p: adamw(p, lr=0.1, weight_decay=0.2, betas=[0.8, 0.9]))
    theirs = quadratic(lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.2, betas=(0.8, 0.9)))
    assert torch.equal(ours, theirs)
    ours = quadratic(lambda p: sgd(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1))
    theirs = quadratic(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1))
    assert torch.equal(ours, theirs)
    groups = lambda p: [{"params": p, "adapt": False}]  # noqa: E731
    ours = quadratic(lambda p: Lars(groups(p), lr=0.1, momentum=0.9, weight_decay=0.1))
    theirs = quadratic(lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("clip", "lr"), [(False, 0.4), (True, 0.4), (True, 1e-3)])
def test_lars_first_step_by_hand(clip, lr):
    w = nn.Parameter(torch.tensor([[3.0, 4.0]]))
    w.grad = torch.tensor([[0.0, 2.0]])
    Lars([w], lr=lr, momentum=0.9, weight_decay=0.1, trust=0.02, clip=clip).step()
    quotient = 0.02 * 5 / (2 + 0.1 * 5)
    rate = min(lr, quotient) if clip else lr * quotient
    torch.testing.assert_close(w.detach(), torch.tensor([[3 - rate * 0.3, 4 - rate * 2.4]]))


def test_lars_resumes_from_its_state():
    def run(split):
        w = nn.Parameter(torch.ones(2, 2))
        optimiser = Lars([w], lr=0.1)
        for i in range(4):
            if i == split:
                state = optimiser.state_dict()
                optimiser = Lars([w], lr=0.1)
                optimiser.load_state_dict(state)
            w.grad = torch.full((2, 2), float(i + 1))
            optimiser.step()
        return w.detach()

    assert torch.equal(run(None), run(2))


def test_schedules():
    cosine = schedule("cosine", 10, 110)
    assert cosine(0) == pytest.approx(1 / 11) and cosine(4) == pytest.approx(5 / 11) and cosine(10) == 1
    assert cosine(60) == pytest.approx(0.5) and cosine(110) == 0 and cosine(200) == 0
    assert schedule("cosine", 0, 100)(0) == 1
    assert schedule("constant", 2, 10)(0) == pytest.approx(1 / 3) and schedule("constant", 2, 10)(9) == 1
    fixmatch = schedule("fixmatch", 0, 1000)
    assert fixmatch(0) == 1 and fixmatch(500) == pytest.approx(math.cos(7 * math.pi / 32))
    assert fixmatch(1000) == pytest.approx(0.195, abs=1e-3)
    with pytest.raises(UserError, match="cosine, constant, fixmatch"):
        schedule("step", 0, 10)


def test_a_schedule_starts_anew_in_each_part_of_a_run():
    parts = {0: (0, 0, 4), 3: (0, 0, 4), 4: (1, 4, 7), 6: (1, 4, 7), 7: (2, 7, 10), 9: (2, 7, 10), 10: (2, 7, 10)}
    assert {step: cycle_of(step, 10, 3) for step in parts} == parts
    factor, once = schedule("cosine", 1, 10, cycles=3), schedule("cosine", 1, 4)
    assert [factor(step) for step in range(4)] == [once(step) for step in range(4)]
    assert [factor(step) for step in (4, 7)] == [0.5, 0.5] and [factor(step) for step in (5, 8)] == [1, 1]
    assert factor(9) == pytest.approx(0.5) and factor(10) == pytest.approx(0) and factor(99) == pytest.approx(0)
    assert [cycle_of(step, 2, 3)[1] for step in range(3)] == [0, 1, 1]  # more parts than steps
    assert cycle_of(0, 0, 3)[0] == 0


def test_scaled_learning_rate():
    assert scaled_lr(0.1, 1024, 256, "linear") == pytest.approx(0.4)
    assert scaled_lr(0.1, 1024, 256, "sqrt") == pytest.approx(0.2)
    assert scaled_lr(0.1, 1024, 256, "none") == 0.1
    with pytest.raises(UserError, match="linear, sqrt, none"):
        scaled_lr(0.1, 1, 1, "cubic")
