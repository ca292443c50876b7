import pytest
import torch
from batches import Linear, draw, picture
from scipy.stats import chisquare
from shortcuts import guessed, textures

from sslrun.contracts import UserError
from sslrun.methods.pretext.image.relative_patch import RelativePatch
from sslrun.nn.tiles import cut, split
from sslrun.rng import Rng


def objective(size=32, tile=8, **settings):
    return RelativePatch(Linear(tile * tile, 5), picture(size=size), **settings)


def test_the_second_tile_lies_where_the_target_says():
    made, x = objective(8, 2), draw(40, 1, 8, 8)  # two pixels a tile at 0, 3 and 6, which cannot move
    inputs, target = made.make(x, Rng("any", total=40))
    assert inputs.shape == (40, 1, 2, 4) and set(target.tolist()) == set(range(8))
    places = [(0, 0), (0, 3), (0, 6), (3, 0), (3, 6), (6, 0), (6, 3), (6, 6)]
    for b in range(40):
        for tile, (top, left) in zip(split(inputs, 1, 2)[b, :, 0], [(3, 3), places[target[b]]], strict=True):
            crop = x[b, 0, top : top + 2, left : left + 2]
            torch.testing.assert_close(tile, (crop - crop.mean()) / (crop.std(correction=0) + 0.02))


def test_every_place_is_equally_likely():
    _, target = objective(8, 2).make(draw(4000, 1, 8, 8), Rng("any", total=4000))
    assert chisquare(torch.bincount(target, minlength=8).numpy()).pvalue > 1e-3


def test_a_ramp_says_nothing():
    slope = draw(20, 1, 2, 1)
    ramp = slope[:, :, :1] * torch.arange(32) + slope[:, :, 1:] * torch.arange(32).unsqueeze(1)
    tiles = split(objective().make(ramp, Rng("any", total=20))[0], 1, 2)
    torch.testing.assert_close(tiles[:, 0], tiles[:, 1], atol=1e-4, rtol=0)


def test_edges_and_brightness_do_not_give_the_place_away():
    n = 3000
    made, x = objective(), textures(n)
    inputs, target = made.make(x, Rng("any", total=n))
    centre, other = split(inputs, 1, 2).unbind(1)
    ends = {"across": (0, -1), "down": (-1, 0)}
    facing = [
        (centre.select(axis, a) - other.select(axis, b)).square().mean((1, 2))
        for axis in (2, 3)
        for a, b in ends.values()
    ]
    edges = [tile.select(axis, end).flatten(1) for tile in (centre, other) for axis in (2, 3) for end in (0, -1)]
    assert guessed(torch.cat([torch.stack(facing, 1), *edges], 1), target) < 0.18  # 1 in 8 by chance
    tiles = cut(x, Rng("any", total=n), made.rows, made.columns)
    brightness = tiles.mean((2, 3, 4))
    lighter = brightness[torch.arange(n), target + (target >= 4)] - brightness[:, 4]
    assert guessed(lighter.unsqueeze(1), target) > 0.3, "brightness tells without normalisation"


def test_small_pictures_are_refused():
    with pytest.raises(UserError, match="needs pictures of 8 x 8 pixels or more, .* data=pictures have 7 x 7"):
        objective(7)
