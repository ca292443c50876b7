import pytest
import torch
from batches import Cells, Rows, batch, draw, picture

from sslrun.contracts import DataSpec
from sslrun.methods.pretext.image.denoising import Denoising
from sslrun.rng import Rng

TWO = DataSpec("pictures", "image", (2, 4, 4), mean=(0.5, 10.0), std=(0.1, 2.0))


class Wide(Cells):
    dim = 8


def test_noise_has_the_said_deviation_of_each_channel_and_a_level_of_its_own():
    x = torch.zeros(4000, 2, 4, 4)
    noisy, target = Denoising(Wide(), TWO, std=(0.5, 0.5), rate=0).make(x, Rng("n", total=4000))
    assert torch.equal(target, x)
    torch.testing.assert_close(noisy.std((0, 2, 3)), torch.tensor([0.05, 1.0]), rtol=0.02, atol=0)
    assert noisy.mean((0, 2, 3)).abs().max() < 0.02
    noisy, _ = Denoising(Wide(), TWO, std=(0.2, 0.8), rate=0).make(x, Rng("n", total=4000))
    level = noisy[:, 1].flatten(1).std(1) / 2  # of each picture: uniform, less what 16 pixels vary by
    assert abs(level.mean() - 0.5) < 0.02 and abs(level.var() - (0.03 + 0.28 / 30)) < 0.005


def test_a_share_of_the_pixels_has_the_mean_in_all_channels():
    x = torch.rand(500, 2, 4, 4) + 20
    noisy, _ = Denoising(Wide(), TWO, std=(0, 0), rate=0.25).make(x, Rng("n", total=500))
    hidden = noisy != x
    assert torch.equal(hidden[:, 0], hidden[:, 1]) and abs(hidden.float().mean() - 0.25) < 0.02
    assert set(noisy[:, 1][hidden[:, 1]].tolist()) == {10.0}
    assert len(hidden.flatten(1).unique(dim=0)) > 400  # pictures differ in what is hidden


def test_every_pixel_is_asked_for_in_standard_deviations():
    made = Denoising(Cells(), DataSpec("p", "image", (1, 4, 4), mean=(0.0,), std=(2.0,)))
    target = torch.zeros(2, 1, 4, 4)
    answer = target.clone()
    answer[0, 0, 0, 0], answer[1] = 8.0, 1.0
    assert made.losses(answer, target).tolist() == [16 / 16, 0.25]


def test_without_learning_the_answer_is_the_noisy_picture_or_the_mean_one():
    x = draw(6, 1, 4, 4)
    seen = batch(all={"view": x})
    weak, strong = (Denoising(Cells(), picture(), std=(s, s), rate=0) for s in (0.1, 5.0))
    for made in (weak, strong):
        made.prepare(Rows(x), None)
    noisy, _ = weak.make(x, seen["all"].rng("make", "Denoising"))
    assert weak.trivial(seen)["loss"].item() == pytest.approx((noisy - x).square().mean().item())
    assert strong.trivial(seen)["loss"].item() == pytest.approx((x.mean(0) - x).square().mean().item())


def test_answers_and_completed_pictures_have_the_units_of_the_data():
    made = Denoising(Wide(), TWO)
    torch.nn.init.zeros_(made.decoder.pixels.weight)
    torch.nn.init.ones_(made.decoder.pixels.bias)
    x = torch.rand(3, 1, 4, 4)

    class Encoder(Wide):
        def tokens(self, x, keep=None):
            return torch.zeros(len(x), 4, 8), None

    full = made.complete(Encoder(), x.expand(-1, 2, -1, -1))
    torch.testing.assert_close(full, torch.tensor([0.6, 12.0]).view(1, 2, 1, 1).expand(3, 2, 4, 4))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"rate": 1.0}, "rate=1.0"),
        ({"std": (0.5, 0.1)}, "std="),
        ({"std": 0.5}, "two ascending"),
        ({"std": (0, 0), "rate": 0}, "leave the pictures"),
    ],
)
def test_settings_that_teach_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        Denoising(Cells(), picture(), **settings)
