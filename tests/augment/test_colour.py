import pytest
import torch
from scipy.stats import binomtest, kstest
from torchvision.transforms.v2 import functional as V

from sslrun.augment import colour as C
from sslrun.contracts import UserError
from sslrun.rng import Rng

FACTORS = torch.tensor([0.6, 0.8, 0.9, 1.0, 1.1, 1.4])


def images(batch=6, channels=3, low=0.0, high=1.0):
    return torch.rand(batch, channels, 16, 16, generator=torch.Generator().manual_seed(0)) * (high - low) + low


@pytest.mark.parametrize(
    ("build", "reference", "channels"),
    [
        (C.scaling, V.adjust_brightness, 3),
        (C.scaling, V.adjust_brightness, 1),
        (C.contrast_matrix, V.adjust_contrast, 3),
        (C.contrast_matrix, V.adjust_contrast, 1),
        (C.saturation_matrix, V.adjust_saturation, 3),
    ],
)
def test_each_matrix_matches_torchvision(build, reference, channels):
    x = images(channels=channels)
    ours = C.recolour(x, build(FACTORS, C.mean_colour(x)))
    theirs = torch.stack([reference(a, f.item()) for a, f in zip(x, FACTORS, strict=True)])
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=0)  # torchvision's luma weights are rounded differently


def hue_shifted(x, turns):
    one = torch.ones_like(turns)
    return C.ColorJitter(hue=0.5).apply(x, brightness=one, contrast=one, saturation=one, hue=turns)


def yiq_rotation(x, turns):
    """The linear alternative to a hue shift in HSV: chroma rotated about the grey axis."""
    to = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    angle = -2 * torch.pi * turns
    turn = torch.zeros(len(x), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = angle.cos()
    turn[:, 1, 2], turn[:, 2, 1] = -angle.sin(), angle.sin()
    return torch.einsum("bij,bjhw->bihw", to.inverse() @ turn @ to, x).clamp(0, 1)


def test_hue_is_torchvisions_which_a_rotation_in_yiq_is_not():
    x, turns = images(), torch.tensor([-0.5, -0.1, 0.0, 0.05, 0.1, 0.5])
    theirs = torch.stack([V.adjust_hue(a, t.item()) for a, t in zip(x, turns, strict=True)])
    torch.testing.assert_close(hue_shifted(x, turns), theirs, atol=1e-5, rtol=0)
    mild = turns.abs() == 0.1
    assert (yiq_rotation(x, turns) - theirs)[mild].abs().mean() > 0.02


def test_hue_leaves_grey_and_extremes_alone():
    for value in (0.0, 0.5, 1.0):
        x = torch.full((2, 3, 4, 4), value)
        torch.testing.assert_close(hue_shifted(x, torch.tensor([0.3, -0.5])), x)
    corners = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1]]).T.view(1, 3, 1, 6)
    torch.testing.assert_close(hue_shifted(corners, torch.tensor([1 / 6])), corners.roll(-1, 3), atol=1e-5, rtol=0)


def test_jitter_is_the_four_in_order():
    x = images(low=0.4, high=0.6)  # nothing reaches the clamp, which torchvision applies in between
    op = C.ColorJitter(0.2, 0.2, 0.2, 0.1)
    params = op.draw(Rng(0, total=6), x.shape)
    for ours, a, (b, c, s, h) in zip(op.apply(x, **params), x, zip(*params.values(), strict=True), strict=True):
        a = V.adjust_saturation(V.adjust_contrast(V.adjust_brightness(a, b.item()), c.item()), s.item())
        torch.testing.assert_close(ours, V.adjust_hue(a, h.item()), atol=1e-3, rtol=0)


def test_jitter_parameters():
    total = 3000
    params = C.ColorJitter(0.4, 0.3, 1.5, 0.1, p=0.8).draw(Rng(0, total=total), torch.Size([total, 3, 8, 8]))
    chosen = params["brightness"] != 1
    assert binomtest(int(chosen.sum()), total, 0.8).pvalue > 1e-3
    for key, low, high in (
        ("brightness", 0.6, 1.4),
        ("contrast", 0.7, 1.3),
        ("saturation", 0, 2.5),
        ("hue", -0.1, 0.1),
    ):
        assert kstest(params[key][chosen].numpy(), "uniform", (low, high - low)).pvalue > 1e-3
    assert (params["hue"][~chosen] == 0).all() and (params["saturation"][~chosen] == 1).all()


def test_grayscale():
    x = images(500)
    out = C.Grayscale(0.2)(x, Rng(0, total=500))
    grey = (out.amax(1) - out.amin(1)).flatten(1).amax(1) < 1e-5
    assert binomtest(int(grey.sum()), 500, 0.2).pvalue > 1e-3
    torch.testing.assert_close(out[~grey], x[~grey])
    torch.testing.assert_close(out[grey], V.rgb_to_grayscale(x[grey], 3), atol=2e-4, rtol=0)


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channel_counts_keep_to_brightness_and_contrast(channels):
    x = images(channels=channels)
    torch.testing.assert_close(C.ColorJitter(0, 0, 0.8, 0.5)(x, Rng(0, total=6)), x)
    torch.testing.assert_close(C.Grayscale(1.0)(x, Rng(0, total=6)), x)
    out = C.ColorJitter(0.4, 0.4)(x, Rng(0, total=6))
    assert not torch.allclose(out, x) and out.min() >= 0 and out.max() <= 1


def test_mistakes_are_named():
    with pytest.raises(UserError, match="hue=0.7"):
        C.ColorJitter(hue=0.7)
    with pytest.raises(UserError, match="contrast=-1"):
        C.ColorJitter(contrast=-1)
