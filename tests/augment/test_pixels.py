import pytest
import torch
from scipy.stats import binomtest, kstest
from torchvision.transforms.v2 import functional as V

from sslrun.augment import pixels as P
from sslrun.contracts import UserError
from sslrun.rng import Rng


def images(batch=6, channels=3, height=40, width=60):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_blur_matches_torchvision(channels):
    x, sigma = images(channels=channels), torch.linspace(0.1, 2, 6)
    side = 2 * P.kernel_radius(x.shape) + 1
    theirs = torch.stack([V.gaussian_blur(a, [side, side], [s.item()] * 2) for a, s in zip(x, sigma, strict=True)])
    torch.testing.assert_close(P.blur(x, sigma, P.kernel_radius(x.shape)), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("side", "kernel"), [(224, 23), (96, 9), (32, 3), (8, 3), (1, 1)])
def test_blur_kernel_grows_with_the_image(side, kernel):
    assert 2 * P.kernel_radius(torch.Size([1, 3, side, side])) + 1 == kernel
    assert P.GaussianBlur(p=1, smallest=1)(torch.rand(2, 3, side, side), Rng(0, total=2)).shape == (2, 3, side, side)


@pytest.mark.parametrize(("shape", "widest"), [((224, 300), 2.0), ((112, 112), 1.0), ((96, 64), 2 * 64 / 224)])
def test_blur_width_follows_the_shorter_side(shape, widest):
    sigma = P.GaussianBlur().draw(Rng(0, total=2000), torch.Size([2000, 3, *shape]))["sigma"] / widest
    assert kstest(sigma.numpy(), "uniform", (0.05, 0.95)).pvalue > 1e-3


@pytest.mark.parametrize(("side", "blurred"), [(32, False), (47, False), (48, True), (128, True)])
def test_small_pictures_stay_sharp(side, blurred):
    x = torch.rand(32, 3, side, side, generator=torch.Generator().manual_seed(0))
    assert torch.equal(P.GaussianBlur(p=1)(x, Rng(0, total=32)), x) != blurred


@pytest.mark.parametrize(
    ("op", "p"), [(P.GaussianBlur((20, 40), 0.3, 1), 0.3), (P.Solarize(p=0.2), 0.2), (P.Cutout(p=0.6), 0.6)]
)
def test_a_share_p_is_changed_and_the_input_never_is(op, p):
    x = images(400, 3, 10, 10)
    before = x.clone()
    changed = (op(x, Rng(0, total=400)) != x).flatten(1).any(1)
    assert binomtest(int(changed.sum()), 400, p).pvalue > 1e-3
    assert torch.equal(x, before)


def test_solarize_matches_torchvision():
    x = images()
    torch.testing.assert_close(P.Solarize(p=1, threshold=0.4)(x, Rng(0, total=6)), V.solarize(x, 0.4))


@pytest.mark.parametrize(("size", "side"), [(0.5, 4), (3 / 8, 3), (1.0, 8), (0.0, 0)])
def test_cutout_fills_a_square_that_may_hang_over(size, side):
    x = torch.zeros(3000, 2, 8, 8)
    hidden = P.Cutout(size, fill=0.5)(x, Rng(0, total=3000)) == 0.5
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    rows, columns = hidden[:, 0].any(2), hidden[:, 0].any(1)  # (B, 8)
    assert torch.equal(hidden[:, 0], rows.unsqueeze(2) & columns.unsqueeze(1))
    for axis in (rows, columns):
        centres = torch.arange(8)
        expected = [min(8, c - side // 2 + side) - max(0, c - side // 2) for c in centres.tolist()]
        counts = torch.bincount(axis.sum(1), minlength=9)
        for length in range(9):
            share = expected.count(length) / 8
            assert (
                share in (0, 1)
                and counts[length] == share * 3000
                or binomtest(int(counts[length]), 3000, share).pvalue > 1e-3
            )


def test_noise_has_its_deviation_and_stays_in_range():
    x = torch.full((64, 3, 16, 16), 0.5)
    noise = P.GaussianNoise(0.05)(x, Rng(0, total=64)) - x
    assert noise.std().item() == pytest.approx(0.05, rel=0.02) and abs(noise.mean().item()) < 1e-3
    out = P.GaussianNoise(1.0)(x, Rng(0, total=64))
    assert out.min() == 0 and out.max() == 1


def test_mistakes_are_named():
    with pytest.raises(UserError, match="sigma"):
        P.GaussianBlur(sigma=(0, 1))
    with pytest.raises(UserError, match="size=3"):
        P.Cutout(size=3)
