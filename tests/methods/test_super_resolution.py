import pytest
import torch
import torch.nn.functional as F
from batches import Cells, Rows, batch, draw, picture

from sslrun.methods.pretext.image.super_resolution import SuperResolution
from sslrun.rng import Rng


def objective(factor):
    return SuperResolution(Cells(), picture(), factor)


def test_shrinking_is_the_exact_mean_of_squares_and_enlarging_bicubic():
    x = draw(3, 2, 8, 12)
    for factor in (2, 4):
        large, target = objective(factor).make(x, Rng("any", total=3))
        small = x.view(3, 2, 8 // factor, factor, 12 // factor, factor).mean((3, 5))
        assert torch.equal(target, x) and large.shape == x.shape
        torch.testing.assert_close(large, F.interpolate(small, size=(8, 12), mode="bicubic"), atol=1e-6, rtol=0)


def test_pictures_that_the_factor_does_not_divide_keep_their_size_and_place():
    x = torch.full((1, 1, 5, 7), 3.0)
    large, _ = objective(4).make(x, Rng("any", total=1))
    torch.testing.assert_close(large, x)  # the cut squares at the border are means of what is there


def test_equal_small_pictures_give_equal_inputs():
    x = draw(2, 1, 8, 8)
    detail = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)
    inputs = [objective(2).make(a, Rng("any", total=2))[0] for a in (x, x + detail)]
    torch.testing.assert_close(*inputs, atol=1e-6, rtol=0)


def test_without_learning_the_answer_is_the_enlargement_or_the_mean_picture():
    x = draw(6, 1, 2, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)  # (6, 1, 4, 4), squares of one colour
    seen = batch(all={"view": x})
    made = objective(2)
    made.prepare(Rows(x + 5), None)  # far away
    large = F.interpolate(x[:, :, ::2, ::2], size=(4, 4), mode="bicubic")
    assert made.trivial(seen)["loss"].item() == pytest.approx((large - x).square().mean().item(), rel=1e-5)
    made.prepare(Rows(x[:1]), None)
    seen = batch(all={"view": x[:1]})
    assert made.trivial(seen)["loss"] == 0  # the mean of one picture is the picture


def test_other_factors_are_refused():
    with pytest.raises(ValueError, match="factor=3 must be 2 or 4"):
        objective(3)
