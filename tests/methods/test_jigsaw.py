import pytest
import torch
from batches import Linear, draw, picture
from scipy.stats import chisquare
from shortcuts import guessed, textures

from sslrun.contracts import DataSpec, UserError
from sslrun.methods.pretext.image.jigsaw import Jigsaw, far_permutations
from sslrun.nn.tiles import cut, split
from sslrun.rng import Rng


def objective(size=32, tile=8, channels=1, **settings):
    spec = DataSpec("pictures", "image", (channels, size, size), mean=(0.25,) * channels, std=(0.5,) * channels)
    return Jigsaw(Linear(channels * tile * tile, 5), spec, **settings)


def facing(tiles):
    """How unlike the facing edges of every pair of tiles (B, T, C, h, w) are, across and down, (B, 2 T T)."""
    right, left = tiles[..., -1].unsqueeze(2), tiles[..., 0].unsqueeze(1)
    bottom, top = tiles[..., -1, :].unsqueeze(2), tiles[..., 0, :].unsqueeze(1)
    return torch.cat([(a - b).square().mean((3, 4)).flatten(1) for a, b in ((right, left), (bottom, top))], 1)


def test_the_inverse_permutation_lays_the_picture_again():
    made, x = objective(channels=2, grey=0.0), draw(6, 2, 32, 32)
    inputs, target = made.make(x, Rng("any", total=6))
    assert inputs.shape == (6, 2, 24, 24)
    laid = torch.empty(6, 9, 2, 8, 8)
    for b, (tiles, k) in enumerate(zip(split(inputs, 3, 3), target, strict=True)):
        laid[b, made.orders[k]] = tiles
    for i in range(9):
        row, column = divmod(i, 3)
        for b in range(6):
            crops = []  # wherever one pixel of jitter may have moved it
            for top in {min(max(12 * row + move, 0), 24) for move in (-1, 0, 1)}:
                for left in {min(max(12 * column + move, 0), 24) for move in (-1, 0, 1)}:
                    crop = x[b, :, top : top + 8, left : left + 8]
                    mean, std = crop.mean((1, 2), keepdim=True), crop.std((1, 2), correction=0, keepdim=True)
                    crops.append((crop - mean) / (std + 0.01) * 0.5 + 0.25)
            assert min((laid[b, i] - crop).abs().max() for crop in crops) < 1e-5


def test_permutations_are_far_apart_and_always_the_same():
    chosen = far_permutations(9, 100)
    assert torch.equal(chosen.sort(1).values, torch.arange(9).expand(100, 9))
    distance = (chosen.unsqueeze(0) != chosen.unsqueeze(1)).sum(2) + 9 * torch.eye(100, dtype=torch.long)
    assert distance.min() >= 6  # of two at random every tenth pair or so is nearer
    assert torch.equal(chosen, far_permutations(9, 100))
    every = far_permutations(4, 100)
    assert len(every) == len(every.unique(dim=0)) == 24


def test_every_permutation_is_equally_likely():
    _, target = objective(8, 3).make(draw(4800, 1, 8, 8), Rng("any", total=4800))
    assert chisquare(torch.bincount(target, minlength=24).numpy()).pvalue > 1e-3


def test_each_tile_is_normalised_alone_so_that_a_ramp_says_nothing():
    made = objective()
    slope = draw(5, 1, 2, 1)
    ramp = slope[:, :, :1] * torch.arange(32) + slope[:, :, 1:] * torch.arange(32).unsqueeze(1)  # (5, 1, 32, 32)
    tiles = split(made.make(ramp, Rng("any", total=5))[0], 3, 3)
    torch.testing.assert_close(tiles, tiles[:, :1].expand_as(tiles), atol=1e-4, rtol=0)
    torch.testing.assert_close(tiles.mean((3, 4)), torch.full((5, 9, 1), 0.25))


def test_edges_and_brightness_do_not_give_the_order_away():
    n = 3000
    made, x = objective(grid=2, tile=12), textures(n)
    inputs, target = made.make(x, Rng("any", total=n))
    tiles = split(inputs, 2, 2)
    edges = torch.cat([tiles[..., 0], tiles[..., -1], tiles[..., 0, :], tiles[..., -1, :]], -1).flatten(1)
    assert guessed(torch.cat([edges, facing(tiles)], 1), target) < 0.08  # 1 in 24 by chance
    rows = torch.arange(n).unsqueeze(1)
    as_they_were = cut(x, Rng("any", total=n), made.rows, made.columns)[rows, made.orders[target]]
    assert guessed(as_they_were.mean((2, 3, 4)), target) > 0.3, "brightness tells without normalisation"
    together = made.tiles.normalise(split(x, 2, 2)[rows, made.orders[target]])
    assert guessed(facing(together), target) > 0.3, "edges tell without a gap"


def test_a_share_of_coloured_pictures_is_grey():
    inputs, _ = objective(channels=3, grey=0.66).make(draw(400, 3, 32, 32), Rng("any", total=400))
    grey = (inputs[:, 0] - inputs[:, 1]).abs().amax((1, 2)) < 1e-5
    assert 0.55 < grey.float().mean() < 0.77


def test_an_encoder_of_one_size_gets_enlarged_tiles():
    made, encoder = Jigsaw(Linear(1024, 5), picture(size=32)), Linear(1024, 5)
    inputs, target = made.make(draw(4, 1, 32, 32), Rng("any", total=4))
    assert made.tiles.size == (32, 32) and made.answer(encoder, inputs).shape == (4, 100)
    assert objective().tiles.size is None


@pytest.mark.parametrize(
    ("size", "settings", "words"),
    [
        (4, {}, "grid=2 needs pictures of 5 x 5 pixels or more, and those of data=pictures have 4 x 4"),
        (7, {"grid": 3}, "grid=3 needs pictures of 8 x 8 pixels"),
        (8, {"grid": 4}, "grid=4 is no number of tiles a side; 2, 3 and null work"),
        (8, {"permutations": 1}, "permutations=1 leaves nothing to tell apart"),
    ],
)
def test_what_cannot_work_is_refused(size, settings, words):
    with pytest.raises(UserError, match=words):
        objective(size, **settings)
