import numpy as np
import pytest
import torch
from PIL import Image
from scipy.stats import chisquare
from torchvision.transforms.v2 import functional as V

from sslrun.augment import randaugment as R
from sslrun.contracts import UserError
from sslrun.rng import Rng


def bytes_of(batch=4, channels=3, low=0, high=256):
    return torch.randint(low, high, (batch, channels, 24, 24), generator=torch.Generator().manual_seed(0)).byte()


def one(name, x, strength):
    """One operation of the pool on every image, at given strengths."""
    return R.RandAugment(1).apply(x, torch.full((len(x), 1), R.POOL.index(name)), strength.view(-1, 1))


def test_the_pool_is_fixmatchs():
    assert sorted(R.POOL) == sorted(
        [
            "identity",
            "autocontrast",
            "equalize",
            "rotate",
            "solarize",
            "color",
            "contrast",
            "brightness",
            "sharpness",
            "shear_x",
            "shear_y",
            "translate_x",
            "translate_y",
            "posterize",
        ]
    )


STRENGTH = torch.tensor([0.0, 0.3, 0.6, 0.99])
FACTOR = (0.05 + 0.9 * STRENGTH).tolist()


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("identity", lambda a, i: a),
        ("autocontrast", lambda a, i: V.autocontrast(a)),
        ("color", lambda a, i: V.adjust_saturation(a, FACTOR[i])),
        ("contrast", lambda a, i: V.adjust_contrast(a, FACTOR[i])),
        ("brightness", lambda a, i: V.adjust_brightness(a, FACTOR[i])),
        ("sharpness", lambda a, i: V.adjust_sharpness(a, FACTOR[i])),
        ("solarize", lambda a, i: V.solarize(a, STRENGTH[i].item())),
        ("rotate", lambda a, i: V.rotate(a, -30 * (2 * STRENGTH[i].item() - 1), V.InterpolationMode.BILINEAR)),
    ],
)
def test_operations_match_torchvision(name, reference):
    x = bytes_of(low=50, high=200).float() / 255
    theirs = torch.stack([reference(a, i) for i, a in enumerate(x)])
    torch.testing.assert_close(one(name, x, STRENGTH), theirs, atol=3e-4, rtol=0)


@pytest.mark.parametrize("low", [0, 240])
def test_equalize_matches_torchvision_on_bytes(low):
    x = (bytes_of(low=0).float().square() / 255).byte().clamp_min(low)
    theirs = V.equalize(x).float() / 255
    torch.testing.assert_close(one("equalize", x.float() / 255, STRENGTH), theirs, atol=1e-6, rtol=0)


def test_posterize_matches_torchvision_on_bytes():
    x, strength = bytes_of(5), (torch.arange(5) + 0.5) / 5
    theirs = torch.stack([V.posterize(a, 4 + i) for i, a in enumerate(x)]).float() / 255
    torch.testing.assert_close(one("posterize", x.float() / 255, strength), theirs, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["shear_x", "shear_y", "translate_x", "translate_y"])
def test_moves_match_pil(name):
    x = torch.rand(4, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    for ours, a, s in zip(one(name, x, STRENGTH), x, STRENGTH.tolist(), strict=True):
        v = 0.3 * (2 * s - 1)
        matrix = {
            "shear_x": (1, v, 0, 0, 1, 0),
            "shear_y": (1, 0, 0, v, 1, 0),
            "translate_x": (1, 0, v * 24, 0, 1, 0),
            "translate_y": (1, 0, 0, 0, 1, v * 24),
        }[name]
        picture = Image.fromarray(a[0].numpy())
        theirs = torch.from_numpy(np.array(picture.transform((24, 24), Image.AFFINE, matrix, Image.BILINEAR)))
        sure = torch.from_numpy(np.array(Image.new("F", (24, 24), 1.0).transform((24, 24), Image.AFFINE, matrix)))
        # PIL repeats the border within half a pixel of it, where zeros are mixed in here
        inner = -torch.nn.functional.max_pool2d(-sure.view(1, 1, 24, 24), 3, 1, 1)[0, 0] > 0
        inner[0] = inner[-1] = inner[:, 0] = inner[:, -1] = False
        assert inner.sum() > 100
        torch.testing.assert_close(ours[0][inner], theirs[inner], atol=1e-4, rtol=0)


def test_operations_are_drawn_evenly_and_per_sample():
    params = R.RandAugment(2).draw(Rng(0, total=4000), torch.Size([4000, 3, 8, 8]))
    assert chisquare(torch.bincount(params["choice"].flatten(), minlength=14).numpy()).pvalue > 1e-3
    both = torch.bincount(params["choice"][:, 0] * 14 + params["choice"][:, 1], minlength=196)
    assert chisquare(both.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_grouped_by_operation_equals_one_by_one(channels):
    x = bytes_of(40, channels).float() / 255
    op = R.RandAugment(2)
    params = op.draw(Rng(0, total=40), x.shape)
    together = op.apply(x, **params)
    apart = torch.cat([op.apply(x[i : i + 1], **{k: v[i : i + 1] for k, v in params.items()}) for i in range(40)])
    torch.testing.assert_close(together, apart, atol=1e-6, rtol=0)
    assert together.min() >= 0 and together.max() <= 1


def test_mistakes_are_named():
    with pytest.raises(UserError, match="n=0"):
        R.RandAugment(0)
