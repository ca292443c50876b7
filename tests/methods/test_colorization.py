import math

import numpy as np
import pytest
import torch
from batches import Rows, batch, picture
from torch import nn

from sslrun.contracts import DataSpec, UserError
from sslrun.encoders.cnn import Cnn
from sslrun.methods.pretext.image.colorization import Colorization, bins, grey, rarity
from sslrun.nn.lab import lab, lightness, rgb
from sslrun.rng import Rng

SPEC = DataSpec("pictures", "image", (3, 16, 16), mean=(0.5,) * 3, std=(0.25,) * 3)


class Encoder(nn.Module):
    """Tokens of squares of 4 x 4 pixels, which notes what it was shown."""

    dim, grid = 8, (4, 4)

    def tokens(self, x, keep=None):
        self.seen = x
        return x[:, :1].unfold(2, 4, 4).unfold(3, 4, 4).reshape(len(x), 16, 16)[..., :8], None


def objective(**settings):
    torch.manual_seed(0)
    return Colorization(Encoder(), SPEC, hidden=16, **settings)


def pictures(n=12, seed=0):
    """Pictures of 16 x 16 whose cells of 4 x 4 pixels have one colour each."""
    x = torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return x.repeat_interleave(4, 2).repeat_interleave(4, 3)


def prepared(x, **settings):
    made = objective(**settings)
    made.prepare(Rows(x), None)
    return made


def test_bins_are_the_squares_that_some_colour_of_srgb_falls_into():
    table, centres = bins()
    level = torch.linspace(0, 1, 97)
    place = (lab(torch.cartesian_prod(level, level, level))[:, 1:] / 10).round().unique(dim=0)
    assert len(centres) == len(place) == 261
    assert {tuple(c) for c in (centres / 10).tolist()} == {tuple(p) for p in place.tolist()}
    assert table.max() == 260 and (table >= 0).sum() == 261
    assert centres[table[13, 13]].tolist() == [0, 0] and centres[table[13 + 8, 13 - 11]].tolist() == [80, -110]


def test_a_colour_is_shared_by_its_five_nearest_bins():
    made = objective()
    colours = torch.tensor([[0.0, 0.0], [4.0, -3.0], [-23.0, 31.0]]).T.view(1, 2, 3, 1)
    number, share = (v[0, :, :, 0] for v in made.shared(colours))  # (5, 3)
    distance = torch.cdist(colours[0, :, :, 0].T, made.centres)
    nearest, order = distance.topk(5, 1, largest=False)
    torch.testing.assert_close(torch.cdist(colours[0, :, :, 0].T, made.centres).gather(1, number.T), nearest)
    torch.testing.assert_close(share.T, (-nearest.square() / 50).softmax(1))
    assert torch.equal(number[0], order[:, 0])


def test_every_colour_has_a_bin_and_those_of_pictures_five_or_almost():
    x = torch.rand(4000, 3, generator=torch.Generator().manual_seed(1))
    made, colours = objective(), lab(x)[:, 1:]
    number, share = (v[0, :, :, 0] for v in made.shared(colours.T.view(1, 2, -1, 1)))
    assert torch.equal(made.centres[number[0]], (colours / 10).round() * 10)
    torch.testing.assert_close(share.sum(0), torch.ones(4000))
    assert (share > 0).float().mean() > 0.97


def test_rare_colours_weigh_more_and_a_cell_weighs_one_on_average():
    _, centres = bins()
    counts = torch.zeros(261)
    counts[[10, 200]] = torch.tensor([90.0, 10.0])
    even, sharp = rarity(counts, centres, 1.0), rarity(counts, centres, 1e-6)
    torch.testing.assert_close(even, torch.ones(261))
    assert sharp[200] / sharp[10] == pytest.approx(9, rel=1e-3)
    half = rarity(counts, centres, 0.5)
    near = torch.cdist(centres, centres[[10, 200]])  # by hand: smoothed by a Gaussian of 5 over steps of 10
    kernel = (-near.square() / 50).exp()
    p = (kernel / kernel.sum(0)) @ torch.tensor([0.9, 0.1])
    weight = 1 / (p / 2 + 0.5 / 261)
    torch.testing.assert_close(half, weight / (weight * p).sum())
    assert (half * p).sum().item() == pytest.approx(1)


def test_the_encoder_sees_lightness_alone():
    made, x = prepared(pictures()), pictures(seed=1)
    turned = lab(x)
    turned[:, 1:] *= 0.5
    other = rgb(turned)  # the same lightness in paler colours
    assert (other - x).abs().max() > 0.05
    first, second = Encoder(), Encoder()
    answers = [made.answer(e, made.make(p, Rng("c", total=12))[0]) for e, p in ((first, x), (second, other))]
    torch.testing.assert_close(first.seen, (lightness(x) / 100).expand(-1, 3, -1, -1))
    torch.testing.assert_close(second.seen, first.seen, atol=1e-5, rtol=0)
    torch.testing.assert_close(*answers, atol=1e-4, rtol=1e-4)


def test_a_grey_picture_is_nearly_what_it_was():
    x = torch.linspace(0, 1, 256).view(1, 1, 16, 16).expand(-1, 3, -1, -1)
    assert (grey(x) - x).abs().max() < 0.04 and grey(x).max() <= 1 + 1e-6


def test_targets_are_the_colours_of_cells():
    made, x = objective(), pictures()
    _, target = made.make(x, Rng("c", total=12))
    assert target.shape == (12, 2, 4, 4)
    torch.testing.assert_close(target, lab(x)[:, 1:, ::4, ::4], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(("size", "cells"), [((32, 32), (8, 8)), ((64, 64), (16, 16)), ((36, 20), (10, 6))])
def test_cells_are_a_quarter_of_the_picture_in_whole_parts_of_a_token(size, cells):
    spec = DataSpec("p", "image", (3, *size), mean=(0.5,) * 3, std=(0.25,) * 3)
    encoder = Cnn(spec, width=8)
    made = Colorization(encoder, spec, hidden=8)
    x = torch.rand(2, 3, *size)
    inputs, target = made.make(x, Rng("c", total=2))
    assert all(a % b == 0 for a, b in zip(made.grid, encoder.grid, strict=True))
    assert made.answer(encoder, inputs).shape[2:] == target.shape[2:] == made.grid
    assert all(abs(a - b) <= 2 for a, b in zip(made.grid, cells, strict=True))


def test_loss_is_the_divergence_from_the_shares_weighted_by_rarity():
    made, x = prepared(pictures()), pictures(3, seed=1)
    _, target = made.make(x, Rng("c", total=3))
    answer = torch.randn(3, 261, 4, 4, generator=torch.Generator().manual_seed(0))
    number, share = made.shared(target)
    by_hand = torch.zeros(3)
    for b in range(3):
        for i in range(4):
            for j in range(4):
                logs = answer[b, :, i, j].log_softmax(0)
                p, known = share[b, :, i, j], logs[number[b, :, i, j]]
                cell = sum(float(q * (q.log() - k)) for q, k in zip(p, known, strict=True) if q > 0)
                by_hand[b] += made.weights[number[b, 0, i, j]] * cell / 16
    torch.testing.assert_close(made.losses(answer, target), by_hand)
    perfect = torch.full_like(answer, -60.0).scatter(1, number, share.clamp_min(1e-20).log())
    torch.testing.assert_close(made.losses(perfect, target), torch.zeros(3), atol=1e-4, rtol=0)


def test_no_constant_answer_is_better_than_the_one_without_learning():
    x = pictures(200)
    made = prepared(x)
    seen = batch(all={"view": x})
    least = made.trivial(seen)["loss"]
    _, target = made.make(x, Rng("c", total=200))
    answer = made.guess(x, target).clone().requires_grad_(True)
    made.losses(answer, target).mean().backward()
    assert answer.grad.sum((0, 2, 3)).abs().max() < 1e-4  # a minimum over what is the same everywhere
    assert least < made.losses(torch.zeros_like(answer), target).mean() < math.log(261) * 1.1


def test_regression_is_in_standard_deviations_and_its_trivial_answer_is_the_mean():
    x = pictures(200)
    made = prepared(x, target="regression")
    assert made.trivial(batch(all={"view": x}))["loss"].item() == pytest.approx(1, abs=0.01)
    _, target = made.make(x, Rng("c", total=200))
    torch.testing.assert_close(made.losses(target + made.std, target), torch.ones(200))
    torch.testing.assert_close(made.mean.flatten(), target.mean((0, 2, 3)), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("target", ("bins", "regression"))
def test_a_network_that_knows_gives_the_colours_back(target):
    x = pictures(4)
    made = prepared(x, target=target)

    def knows(encoder, inputs):
        if target == "regression":
            return made.colours(x)
        number, share = made.shared(made.colours(x))
        sure = torch.full((4, 261, 4, 4), -100.0).scatter(1, number, share.clamp_min(1e-9).log())
        return sure * 0.38  # the temperature of the annealed mean

    made.answer = knows
    full = made.complete(Encoder(), x)
    torch.testing.assert_close(lightness(full).clamp(0, 100), lightness(x), atol=12, rtol=0)  # clipped colours
    inner = lab(full)[:, 1:, 1::4, 1::4] - made.colours(x)
    assert inner.abs().median() < 12  # of colours that spread over 100 and more
    shown = made.figure(Encoder(), batch(all={"view": x}))
    assert list(shown) == ["input", "output", "target"]
    assert torch.equal(shown["input"], grey(x)) and torch.equal(shown["target"], x)


def test_an_encoder_without_rows_and_columns_is_refused():
    with pytest.raises(UserError, match="no rows and columns"):
        Colorization(type("Flat", (nn.Module,), {"dim": 8, "grid": (1,)})(), SPEC)


def test_grey_pictures_are_refused():
    with pytest.raises(UserError, match="pictures have 1 channel; method=denoising and method=inpainting"):
        Colorization(Encoder(), picture(size=16))
    with pytest.raises(UserError, match="no colours in the pictures of data=pictures; method=denoising"):
        prepared(pictures().mean(1, keepdim=True).expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("settings", "words"), [({"target": "bin"}, "bins, regression"), ({"uniform": 0}, "uniform=0")]
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        objective(**settings)


def test_a_data_set_of_grey_pictures_is_refused_in_one_sentence(command, tmp_path):
    said = command("method=colorization", "data=digits", "steps=1")
    assert said.status != 0 and "1 channel" in said.err and "Traceback" not in said.err
    grey_ones = np.random.default_rng(0).integers(0, 256, (60, 16, 16, 1), np.uint8).repeat(3, 3)
    np.savez(tmp_path / "grey.npz", x_train=grey_ones, y_train=np.arange(60) % 2)
    said = command("method=colorization", "data=image_arrays", f"data.path={tmp_path}/grey.npz", "batch_size=16")
    assert said.status != 0 and "no colours" in said.err and "Traceback" not in said.err
