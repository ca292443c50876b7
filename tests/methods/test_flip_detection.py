import math

import pytest
import torch
from batches import Linear, batch, draw, picture

from sslrun.contracts import UserError
from sslrun.methods.pretext.image.flip_detection import FlipDetection
from sslrun.rng import Rng


def test_flips_are_exact_and_each_picture_comes_once_with_each():
    x = draw(3, 2, 4, 6)
    flipped, target = FlipDetection(Linear(48, 5), picture()).make(x, Rng("any", total=3))
    assert target.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert torch.equal(flipped[:3], x)
    assert torch.equal(flipped[3:6, :, :, 0], x[:, :, :, 5]) and torch.equal(flipped[3:6, :, 0], x[:, :, 0].flip(2))
    assert torch.equal(flipped[6:9, :, 0], x[:, :, 3]) and torch.equal(flipped[6:9, :, :, 0], x[:, :, :, 0].flip(2))
    assert torch.equal(flipped[9:], torch.rot90(x, 2, (2, 3)))


def test_flips_are_those_that_were_asked_for():
    x = draw(2, 1, 4, 4)
    made = FlipDetection(Linear(16, 5), picture(), flips=["none", "vertical"])
    flipped, target = made.make(x, Rng("any", total=2))
    assert target.tolist() == [0, 0, 1, 1] and torch.equal(flipped[2:], x.flip(2))
    trivial = made.trivial(batch(all={"view": x}))
    assert trivial["loss"].item() == pytest.approx(math.log(2)) and trivial["accuracy"] == 0.5


@pytest.mark.parametrize("flips", [["none"], ["none", "none"], ["none", "diagonal"]])
def test_other_flips_are_refused(flips):
    with pytest.raises(UserError, match="must be two or more of none, horizontal, vertical, both, each once"):
        FlipDetection(Linear(16, 5), picture(), flips=flips)
