import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binomtest, ks_2samp, kstest
from torchvision.transforms import RandomResizedCrop as Reference
from torchvision.transforms import v2

from sslrun.augment import geometry as G
from sslrun.contracts import UserError
from sslrun.rng import Rng

BILINEAR = v2.InterpolationMode.BILINEAR


def images(batch=8, channels=3, height=20, width=28, seed=0):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [None, 12, 32])
def test_crop_matches_torchvision_inside_the_box(channels, size):
    x, op = images(channels=channels), G.RandomResizedCrop(size=size)
    params, boxes = op.draw(Rng(1, total=8), x.shape), op.boxes(Rng(1, total=8), 20, 28)
    ours, out = op.apply(x, **params), (size, size) if size else (20, 28)
    for i in range(8):
        top, left, h, w = (int(side[i]) for side in boxes)
        theirs = v2.functional.resized_crop(x[i], top, left, h, w, list(out), BILINEAR, antialias=False)
        # the outermost half pixel of the box is interpolated with its neighbours in the image, not repeated
        inside = []
        for n, m in ((h, out[0]), (w, out[1])):
            at = (torch.arange(m) + 0.5) * n / m - 0.5
            inside.append((at >= 0) & (at <= n - 1))
        rows, columns = inside
        torch.testing.assert_close(ours[i][:, rows][:, :, columns], theirs[:, rows][:, :, columns], atol=1e-5, rtol=0)


def test_crop_of_the_whole_image_changes_nothing_and_never_leaves_it():
    x = images()
    whole = G.RandomResizedCrop(scale=(1, 1), ratio=(28 / 20, 28 / 20))
    torch.testing.assert_close(whole(x, Rng(0, total=8)), x, atol=1e-5, rtol=0)
    ones = G.RandomResizedCrop()(torch.ones(64, 1, 16, 16), Rng(0, total=64))
    torch.testing.assert_close(ones, torch.ones_like(ones))


@pytest.mark.parametrize(
    ("height", "width", "scale"), [(96, 96, (0.08, 1.0)), (40, 90, (0.2, 1.0)), (32, 32, (0.9, 1.0))]
)
def test_crop_boxes_are_distributed_like_torchvisions(height, width, scale):
    count, ratio, image = 2000, (3 / 4, 4 / 3), torch.empty(3, height, width)
    ours = torch.stack(G.RandomResizedCrop(scale, ratio).boxes(Rng(3, total=count), height, width), 1).double().numpy()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array([Reference.get_params(image, list(scale), list(ratio)) for _ in range(count)])
    for measure in (lambda b: b[:, 2] * b[:, 3], lambda b: b[:, 3] / b[:, 2], lambda b: b[:, 0], lambda b: b[:, 1]):
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3
    assert (ours[:, 0] + ours[:, 2] <= height).all() and (ours[:, 1] + ours[:, 3] <= width).all() and (ours >= 0).all()


def test_crop_falls_back_to_the_centre():
    boxes = G.RandomResizedCrop(scale=(1, 1)).boxes(Rng(0, total=4), 10, 40)  # no box of this area is narrow enough
    theirs = Reference.get_params(torch.empty(3, 10, 40), [1, 1], [3 / 4, 4 / 3])
    assert torch.stack(boxes, 1).tolist() == [list(map(float, theirs))] * 4


@pytest.mark.parametrize(("op", "axis"), [(G.HorizontalFlip(), 3), (G.VerticalFlip(), 2)])
def test_flip(op, axis):
    x = images(400, 1, 5, 6)
    out = op(x, Rng(0, total=400))
    flipped = torch.tensor([not torch.allclose(a, b, atol=1e-5) for a, b in zip(out, x, strict=True)])
    torch.testing.assert_close(out, torch.where(flipped.view(-1, 1, 1, 1), x.flip(axis), x), atol=1e-5, rtol=0)
    assert binomtest(int(flipped.sum()), 400, 0.5).pvalue > 1e-3


@pytest.mark.parametrize(
    ("padding", "mode"), [("reflection", "reflect"), ("border", "replicate"), ("zeros", "constant")]
)
def test_translate_is_padding_and_cropping(padding, mode):
    x, op = images(64, 3, 16, 24), G.Translate(0.125, padding=padding)
    matrix = op.draw(Rng(0, total=64), x.shape)["matrix"]
    across, down = matrix[:, 0, 2] * 24 / 2, matrix[:, 1, 2] * 16 / 2
    assert set(across.round().int().tolist()) == set(range(-3, 4))
    assert set(down.round().int().tolist()) == set(range(-2, 3))
    padded, out = F.pad(x, (3, 3, 2, 2), mode=mode), op.apply(x, matrix)
    for i in range(64):
        top, left = 2 + round(down[i].item()), 3 + round(across[i].item())
        torch.testing.assert_close(out[i], padded[i, :, top : top + 16, left : left + 24], atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_affine_matches_torchvision(channels):
    x = images(channels=channels)
    angle, zoom = torch.linspace(-50, 80, 8), torch.linspace(0.7, 1.4, 8)
    shear, across, down = torch.linspace(-20, 30, 8), torch.arange(-4, 4), torch.arange(8) - 2
    tangent = shear.deg2rad().tan()
    matrix = G.affine_matrix(angle, across / 28, down / 20, zoom, tangent, 20, 28)
    ours = G.warp(x, matrix, (20, 28), "zeros", separable=False)
    for i in range(8):
        shift = [int(across[i]), int(down[i])]
        theirs = v2.functional.affine(x[i], angle[i].item(), shift, zoom[i].item(), [shear[i].item(), 0.0], BILINEAR)
        torch.testing.assert_close(ours[i], theirs, atol=1e-4, rtol=0)


def test_affine_parameters_are_uniform_in_their_ranges():
    op = G.Affine(degrees=30, translate=0.2, scale=(0.8, 1.2), shear=0.0)
    matrix = op.draw(Rng(0, total=3000), torch.Size([3000, 1, 8, 8]))["matrix"]
    forward = matrix.inverse()
    zoom = forward[:, :2, 0].norm(dim=1)
    angle = torch.atan2(forward[:, 1, 0], forward[:, 0, 0]).rad2deg()
    for value, low, high in ((zoom, 0.8, 1.2), (angle, -30, 30), (forward[:, 0, 2] / 2, -0.2, 0.2)):
        assert kstest(value.numpy(), "uniform", (low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_both_ways_of_resampling_agree(padding):
    x = images(16)
    matrix = G.Translate(0.4, padding=padding).draw(Rng(0, total=16), x.shape)["matrix"]
    matrix = matrix @ G.RandomResizedCrop().draw(Rng(1, total=16), x.shape)["matrix"]
    for size in ((20, 28), (9, 33)):
        ours = [G.warp(x, matrix, size, padding, separable) for separable in (True, False)]
        torch.testing.assert_close(*ours, atol=1e-4, rtol=0)


def test_one_pixel_images_survive():
    x = torch.rand(4, 3, 1, 1)
    for op in (G.RandomResizedCrop(), G.HorizontalFlip(), G.Translate(pixels=1)):
        torch.testing.assert_close(op(x, Rng(0, total=4)), x)


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: G.RandomResizedCrop(scale=(0, 1)), "scale"),
        (lambda: G.RandomResizedCrop(ratio=(2, 1)), "ratio"),
        (lambda: G.HorizontalFlip(p=1.5), "p=1.5"),
        (lambda: G.Affine(scale=(1.2, 0.8)), "scale"),
        (lambda: G.Translate(padding="mirror"), "reflection"),
        (lambda: G.HorizontalFlip()(torch.rand(4, 7), Rng(0, total=4)), "images"),
    ],
)
def test_mistakes_are_named(build, word):
    with pytest.raises(UserError, match=word):
        build()
