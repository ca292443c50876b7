import pytest
import torch
from batches import Linear, draw, picture
from scipy.stats import chisquare
from shortcuts import places

from sslrun.contracts import DataSpec, UserError
from sslrun.methods.pretext.image.corruption_classification import KINDS, CorruptionClassification
from sslrun.rng import Rng

SPEC = DataSpec("pictures", "image", (2, 24, 32), mean=(0.0, 5.0), std=(1.0, 1.0))


def corrupted(kind, x=None, n=200):
    """Pictures that suffered `kind`, and others that suffered nothing, each (., 2, H, W)."""
    made = CorruptionClassification(Linear(16, 5), SPEC, kinds=[kind, "none"])
    x = places(24, 32).expand(n, -1, -1, -1) if x is None else x
    seen, target = made.make(x, Rng("any", total=len(x)))
    return seen[target == 0], seen[target == 1]


def slopes(seen):
    """How positions change across and down in the middle, in pixels per pixel: four (B,)."""
    across, down = (seen[:, :, 12, 17] - seen[:, :, 12, 15]) / 2, (seen[:, :, 13, 16] - seen[:, :, 11, 16]) / 2
    unit = torch.tensor([16.0, 12.0])
    return *(across * unit).unbind(1), *(down * unit).unbind(1)


def test_what_suffered_nothing_is_a_crop_within_the_picture():
    for kind in KINDS[1:]:
        _, clean = corrupted(kind)
        xx, yx, xy, yy = slopes(clean)
        assert torch.allclose(xx, yy, atol=1e-4) and yx.abs().max() < 1e-4 and xy.abs().max() < 1e-4
        assert 0.69 < xx.min() < 0.74 and 0.96 < xx.max() < 1.001
        assert (clean.abs() <= torch.tensor([31 / 32, 23 / 24]).view(1, 2, 1, 1) + 1e-5).all()


def test_moved_pictures_by_hand():
    xx, yx, xy, yy = slopes(corrupted("upside_down")[0])
    assert torch.allclose(xx, yy, atol=1e-4) and xx.max() < -0.69 and yx.abs().max() < 1e-4
    xx, yx, xy, yy = slopes(corrupted("rotated")[0])
    assert torch.allclose(xx, yy, atol=1e-4) and torch.allclose(xx, yx.abs(), atol=1e-4) and (xx > 0).all()
    assert (yx > 0).any() and (yx < 0).any()
    for kind, turn in (("stretched", 1), ("contracted", -1)):
        xx, yx, xy, yy = slopes(corrupted(kind)[0])
        ratio = (yy / xx) ** turn
        assert 1.39 < ratio.min() < 1.45 and 1.75 < ratio.max() < 1.81
        assert yx.abs().max() < 1e-4 and xy.abs().max() < 1e-4


def test_swapped_halves_fit_when_they_are_swapped_back():
    swapped, _ = corrupted("swapped")
    ways = {(16, 0): 0, (0, 12): 0, (16, 12): 0}
    for one in swapped:
        for across, down in ways:
            back = one.roll((across, down), (2, 1))
            if back.diff(dim=2).abs().amax() < 0.07 and back.diff(dim=1).abs().amax() < 0.1:
                ways[across, down] += 1
    assert sum(ways.values()) == len(swapped) and min(ways.values()) > len(swapped) / 6


def test_changed_values_by_hand():
    ones = torch.ones(200, 2, 24, 32)
    dark, clean = corrupted("darkened", ones)
    gain = dark.amax((1, 2, 3))
    assert torch.allclose(dark, gain.view(-1, 1, 1, 1).expand_as(dark))
    assert 0.3 <= gain.min() < 0.35 and 0.55 < gain.max() <= 0.6
    assert torch.allclose(clean, torch.ones_like(clean))
    hidden, _ = corrupted("missing", ones)
    assert ((hidden[:, 0] == 0) == (hidden[:, 1] == 5)).all()  # the data's mean
    assert ((hidden[:, 0] == 0).sum((1, 2)) == 12 * 16).all()
    assert ((hidden[:, 0] == 0).any(2).sum(1) == 12).all()  # in one box
    noisy, clean = corrupted("noisy", ones)
    spread = noisy.std((1, 2, 3))
    assert 0.28 < spread.min() < 0.35 and 0.55 < spread.max() < 0.63 and torch.allclose(clean, torch.ones_like(clean))
    blurred, clean = corrupted("blurred", draw(200, 2, 24, 32))
    assert blurred.std((1, 2, 3)).max() < clean.std((1, 2, 3)).min()


def test_every_kind_is_equally_likely():
    made = CorruptionClassification(Linear(16, 5), picture(size=8))
    _, target = made.make(draw(4000, 1, 8, 8), Rng("any", total=4000))
    assert chisquare(torch.bincount(target, minlength=10).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("kinds", [["none"], ["none", "none"], ["none", "burnt"]])
def test_other_kinds_are_refused(kinds):
    with pytest.raises(UserError, match="must be two or more of none, swapped, .* noisy, each once"):
        CorruptionClassification(Linear(16, 5), picture(), kinds=kinds)


def test_small_pictures_are_refused():
    with pytest.raises(UserError, match="needs pictures of 4 x 4 pixels or more, .* data=pictures have 3 x 3"):
        CorruptionClassification(Linear(9, 5), picture(size=3))
