import pytest
import torch
from torch import nn

from sslrun.nn.ema import Ema


def weights(ema):
    return ema.module.weight.item()


def test_first_steps_by_hand():
    student = nn.Linear(1, 1)
    nn.init.constant_(student.weight, 1.0)
    ema = Ema(student, decay=0.7)
    seen = [weights(ema)]
    for value in (4.0, 10.0, 5.0, 0.0):
        nn.init.constant_(student.weight, value)
        ema.update(student)
        seen.append(weights(ema))
    # means of 1 4, of 1 4 10; then 1 - 1 / 4 exceeds the decay: .7 5 + .3 5, .7 5 + .3 0
    assert seen == pytest.approx([1.0, 2.5, 5.0, 5.0, 3.5], rel=1e-6)
    assert ema.t == 4 and ema.t.dtype == torch.int64


def test_without_warmup_the_decay_holds_from_the_start():
    student = nn.Linear(1, 1)
    nn.init.constant_(student.weight, 0.0)
    ema = Ema(student, decay=0.9, warmup=False)
    nn.init.constant_(student.weight, 1.0)
    ema.update(student)
    assert weights(ema) == pytest.approx(0.1)
    ema.decay = 1.0
    ema.update(student)
    assert weights(ema) == pytest.approx(0.1)


def test_buffers_are_copied_and_parameters_averaged():
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    ema = Ema(student, decay=0.99)
    for mine, theirs in zip(ema.module.state_dict().values(), student.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    optimiser = torch.optim.SGD(student.parameters(), lr=1.0)
    for _ in range(10):
        optimiser.zero_grad()
        student(torch.randn(8, 3)).square().mul(torch.arange(4)).mean().backward()
        optimiser.step()
        ema.update(student)
    norm = ema.module[1]
    assert norm.num_batches_tracked == 10 and norm.num_batches_tracked.dtype == torch.int64
    assert torch.equal(norm.running_var, student[1].running_var)
    assert not torch.equal(ema.module[0].weight, student[0].weight)
    assert not any(p.requires_grad for p in ema.parameters())


def test_the_average_is_called_and_saved():
    student = nn.Linear(2, 2)
    ema = Ema(student, decay=0.5)
    nn.init.zeros_(student.weight)
    ema.update(student)
    copy = Ema(nn.Linear(2, 2), decay=0.5)
    copy.load_state_dict(ema.state_dict())
    x = torch.randn(3, 2)
    assert torch.equal(copy(x), ema.module(x)) and copy.t == 1
    for average in (ema, copy):
        average.update(student)
    assert torch.equal(copy(x), ema(x))
