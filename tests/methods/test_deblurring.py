import math

import pytest
import torch
from batches import Cells, Rows, batch, draw, picture

from sslrun.methods.pretext.image.deblurring import Deblurring
from sslrun.rng import Rng


def objective(*sigma):
    return Deblurring(Cells(), picture(), *([sigma] if sigma else []))


def test_a_point_becomes_a_normal_density_of_the_said_width():
    x = torch.zeros(1, 1, 21, 41)
    x[0, 0, 10, 20] = 1
    blurred, target = objective(0.1, 0.1).make(x, Rng("b", total=1))
    assert torch.equal(target, x)
    weight = torch.tensor([math.exp(-0.5 * (i / 2.1) ** 2) for i in range(-7, 8)])  # a tenth of 21, to three widths
    weight /= weight.sum()
    torch.testing.assert_close(blurred[0, 0, 3:18, 13:28], weight.outer(weight), atol=1e-6, rtol=0)
    assert blurred.sum().item() == pytest.approx(1, abs=1e-5)


def test_every_picture_has_a_width_of_its_own_within_the_range():
    x = torch.zeros(300, 1, 20, 20)
    x[:, :, 10, 10] = 1
    blurred, _ = objective(0.05, 0.1).make(x, Rng("b", total=300))
    at = torch.arange(20.0) - 10
    width = (blurred[:, 0].sum(1) * at.square()).sum(1).sqrt()  # 1 to 2 pixels
    assert 0.95 < width.min() < 1.1 and 1.8 < width.max() < 2.0 and len(width.unique()) > 200


def test_even_pictures_stay_as_they_are():
    x = torch.full((4, 3, 4, 4), 0.7)
    torch.testing.assert_close(objective().make(x, Rng("b", total=4))[0], x)


def test_without_learning_the_answer_is_the_blurred_picture_or_the_mean_one():
    x = draw(6, 1, 4, 4)
    seen = batch(all={"view": x})
    made = objective(0.05, 0.1)
    made.prepare(Rows(x), None)
    blurred, _ = made.make(x, seen["all"].rng("make", "Deblurring"))
    assert made.trivial(seen)["loss"].item() == pytest.approx((blurred - x).square().mean().item(), rel=1e-5)
    made.picture = x[0]
    one = batch(all={"view": x[:1]})
    assert made.trivial(one)["loss"] == 0


@pytest.mark.parametrize("sigma", ((0.0, 0.1), (0.2, 0.1), (0.1,)))
def test_ranges_that_blur_nothing_are_refused(sigma):
    with pytest.raises(ValueError, match="sigma=.* for example"):
        objective(*sigma)
