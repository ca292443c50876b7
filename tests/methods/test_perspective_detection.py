import pytest
import torch
from batches import Linear, draw, picture
from scipy.stats import binomtest
from shortcuts import guessed, places

from sslrun.contracts import UserError
from sslrun.methods.pretext.image.perspective_detection import PerspectiveDetection
from sslrun.nn.blur import blur
from sslrun.nn.warp import area, fit, resample, tilt
from sslrun.rng import Rng


def objective(**settings):
    return PerspectiveDetection(Linear(16, 5), picture(), **settings)


def test_a_tilted_square_reads_a_trapezium_by_hand():
    # x / (1 + x / 2): the left edge at -1 / 0.5, the right one at 1 / 1.5, heights 1 / 0.5 and 1 / 1.5 about the middle
    flat = tilt(torch.tensor([0.5]), torch.tensor([0.0]))
    inside = fit(flat, torch.tensor([1.0]), torch.zeros(1, 2))
    seen = resample(places(64, 64), inside)[0]  # the height, 4, becomes 2, and the width 8 / 3 becomes 4 / 3
    assert seen[1, 0, 0] == pytest.approx(-1, abs=0.06) and seen[1, 0, -1] == pytest.approx(-1 / 3, abs=0.06)
    assert seen[0, 0, 0] == pytest.approx(-2 / 3, abs=0.06) and seen[0, 0, -1] == pytest.approx(2 / 3, abs=0.06)
    assert area(inside).item() == pytest.approx(4 / 3 * (2 + 2 / 3) / 2, rel=1e-5)


def test_only_the_slanted_ones_change_scale_and_none_leaves_the_picture():
    x = places(24, 32).expand(200, -1, -1, -1)
    seen, target = objective().make(x, Rng("any", total=200))
    inner = seen[:, :, 2:-2, 2:-2]  # away from what half a pixel at the rim is clamped to
    bend = torch.maximum(inner.diff(n=2, dim=2).abs().amax((1, 2, 3)), inner.diff(n=2, dim=3).abs().amax((1, 2, 3)))
    assert bend[target == 0].max() < 1e-4 < 2e-3 < bend[target == 1].min()
    limit = torch.tensor([31 / 32, 23 / 24]).view(1, 2, 1, 1)  # the outermost pixels
    assert (seen.abs() <= limit + 1e-5).all()


def test_both_classes_are_equally_likely_and_equally_soft_and_zoomed():
    n = 2000
    noise = blur(draw(n, 1, 16, 16), torch.full((n,), 1.0), 3)
    seen, target = objective().make(noise, Rng("any", total=n))
    assert binomtest(int(target.sum()), n).pvalue > 1e-3
    border = torch.cat([seen[..., 0], seen[..., -1], seen[..., 0, :], seen[..., -1, :]], -1).flatten(1)
    energy = torch.stack([d.square().mean((1, 2, 3)) for d in (seen, seen.diff(dim=2), seen.diff(dim=3))], 1)
    assert guessed(torch.cat([border, energy.log()], 1), target) < 0.58  # .5 by chance
    flat, slanted = energy[target == 0].mean(0), energy[target == 1].mean(0)
    torch.testing.assert_close(slanted, flat, rtol=0.06, atol=0)


def test_a_picture_of_one_colour_stays_as_it_is():
    seen, _ = objective().make(torch.full((50, 3, 8, 8), 0.3), Rng("any", total=50))
    torch.testing.assert_close(seen, torch.full_like(seen, 0.3))


@pytest.mark.parametrize("strength", [(0.0, 0.5), (0.5, 0.3), (0.3, 0.7), (0.3,)])
def test_other_strengths_are_refused(strength):
    with pytest.raises(UserError, match="must be two ascending numbers between 0 and 0.7"):
        objective(strength=strength)
