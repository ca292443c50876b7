"""Train and eval mode of a network's parts."""

import pytest
from torch import nn

from sslrun.nn.modes import evaluating


def test_every_part_gets_its_own_mode_back():
    student, teacher = nn.Sequential(nn.BatchNorm1d(2)), nn.Dropout()
    both = nn.ModuleList([student, teacher]).train()
    teacher.eval()
    with pytest.raises(KeyError), evaluating(both):
        assert not any(part.training for part in both.modules())
        raise KeyError
    assert both.training and student.training and student[0].training and not teacher.training
