import pytest
import torch
from batches import Linear, draw, picture
from scipy.stats import binomtest
from shortcuts import places

from sslrun.contracts import DataSpec, UserError
from sslrun.methods.pretext.image.blur_detection import SHARP, BlurDetection
from sslrun.nn.blur import blur
from sslrun.rng import Rng


def objective(size=32, **settings):
    return BlurDetection(Linear(16, 5), picture(size=size), **settings)


def test_a_clean_picture_passes_the_filter_unchanged_and_a_blurred_one_by_hand():
    x = draw(2, 3, 8, 8)
    assert torch.equal(blur(x, torch.full((2,), SHARP), 2), x)
    dot = torch.zeros(1, 1, 7, 7)
    dot[0, 0, 3, 3] = 1
    side = torch.exp(torch.tensor(-0.5)) / (1 + 2 * torch.exp(torch.tensor(-0.5)))  # three taps of width 1
    assert blur(dot, torch.ones(1), 1)[0, 0, 3, 2].item() == pytest.approx((side * (1 - 2 * side)).item())


def test_targets_say_which_are_blurred():
    x = draw(400, 1, 32, 32)
    seen, target = objective().make(x, Rng("any", total=400))
    spread = seen.std((1, 2, 3))
    assert spread[target == 1].max() < spread[target == 0].min()
    assert binomtest(int(target.sum()), 400).pvalue > 1e-3


def test_both_classes_are_resampled_alike():
    x = places(24, 32).expand(400, -1, -1, -1)
    seen, target = BlurDetection(Linear(16, 5), DataSpec("pictures", "image", (2, 24, 32))).make(
        x, Rng("any", total=400)
    )
    pitch = (seen[:, 0, 12, 16] - seen[:, 0, 12, 15]) * 16  # of the middle, which a blur leaves; 1 is as it was
    for k in (0, 1):
        assert 0.84 < pitch[target == k].min() < 0.87 and 0.98 < pitch[target == k].max() < 1.01
    assert abs(pitch[target == 0].mean() - pitch[target == 1].mean()) < 0.015


def test_a_picture_of_one_colour_stays_as_it_is():
    seen, _ = objective().make(torch.full((50, 3, 8, 8), 0.3), Rng("any", total=50))
    torch.testing.assert_close(seen, torch.full_like(seen, 0.3))


def test_what_cannot_work_is_refused():
    for sigma in ((0.0, 0.1), (0.1, 0.05), (0.1, 0.3), (0.1,)):
        with pytest.raises(UserError, match="must be two ascending shares of the side up to 0.25"):
            objective(sigma=sigma)
    with pytest.raises(UserError, match="below half a pixel on data=pictures, whose shorter side has 4"):
        objective(4)
