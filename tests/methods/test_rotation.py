import math

import pytest
import torch
from batches import Linear, batch, draw, picture

from sslrun.contracts import DataSpec
from sslrun.methods.pretext.image.rotation import Rotation
from sslrun.rng import Rng


def objective(encoder):
    return Rotation(encoder, picture())


def test_turns_are_exact_and_labelled_by_quarter():
    x = draw(3, 1, 4, 4)
    turned, target = objective(Linear(16, 5)).make(x, Rng("any", total=3))
    assert target.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    for k in range(4):
        # a quarter turn counter-clockwise takes row i, column j to row n - 1 - j, column i
        expected = x.clone()
        for _ in range(k):
            expected = expected.transpose(2, 3).flip(2)
        assert torch.equal(turned[3 * k : 3 * k + 3], expected)


def test_without_learning_the_loss_is_that_of_four_equal_chances():
    encoder = Linear(16, 5)
    seen = batch(all={"view": draw(6, 1, 4, 4)})
    trivial = objective(encoder).trivial(seen)
    assert trivial["loss"].item() == pytest.approx(math.log(4)) and trivial["accuracy"] == 0.25


def test_loss_is_cross_entropy_over_all_turns_and_the_score_is_each_pictures_own():
    encoder, x = Linear(16, 5), draw(6, 1, 4, 4)
    made = objective(encoder)
    out = made(encoder, batch(all={"view": x}))
    logs = torch.stack([made.head(encoder(torch.rot90(x, k, (2, 3)))).log_softmax(1)[:, k] for k in range(4)])
    assert out["loss"].item() == pytest.approx(-logs.mean().item(), rel=1e-5)
    torch.testing.assert_close(made.score(encoder, batch(all={"view": x})), -logs.mean(0))


def test_oblong_pictures_are_refused():
    with pytest.raises(ValueError, match="square pictures, and these are 4 x 6"):
        Rotation(Linear(24, 5), DataSpec("pictures", "image", (1, 4, 6)))
