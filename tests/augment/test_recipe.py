from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from sslrun.augment import colour as C
from sslrun.augment import geometry as G
from sslrun.augment import pixels as P
from sslrun.augment.randaugment import RandAugment
from sslrun.augment.recipe import Recipe
from sslrun.contracts import UserError
from sslrun.rng import Rng

CONF = Path(__file__).parents[2] / "conf" / "augmentation"
SHAPES = {
    "digits": (1, 8, 8),
    "digits28": (1, 28, 28),
    "image": (3, 64, 64),
    "image224": (3, 224, 224),
    "table": (6,),
}
NAMES = ["contrastive", "weak", "strong", "crop_only", "plain"]


def simclr():
    return [G.RandomResizedCrop(), G.HorizontalFlip(), C.ColorJitter(0.4, 0.4, 0.4, 0.1, 0.8), C.Grayscale()]


def everything():
    return [
        *simclr(),
        P.GaussianBlur((10, 20), smallest=1),
        G.VerticalFlip(),
        G.Translate(),
        G.Affine(20, 0.1, (0.8, 1.2), 0.1),
        RandAugment(),
        P.Solarize(),
        P.Cutout(),
        P.GaussianNoise(),
        C.Grayscale(),
    ]


def images(batch, channels=3, side=16):
    return torch.rand(batch, channels, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", SHAPES)
def test_every_file_has_the_same_recipes_and_they_run(name):
    conf = OmegaConf.load(CONF / f"{name}.yaml")
    names = [n for n in NAMES if len(SHAPES[name]) == 3 or n != "crop_only"]  # a row has nothing to crop
    assert list(conf) == names
    batch = 2 if name == "image224" else 12
    x = torch.rand(batch, *SHAPES[name], generator=torch.Generator().manual_seed(0))
    for key in names:
        recipe = Recipe(list(instantiate(conf[key])))
        recipe.prepare(x)
        out = recipe(x, Rng(0, total=batch))
        assert out.shape == x.shape and out.dtype == x.dtype
        assert out.min() >= 0 and out.max() <= 1
        assert torch.equal(out, x) == (len(conf[key]) == 0)


def test_every_augmentation_file_is_tested():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(SHAPES)


@pytest.mark.parametrize(("side", "blurred"), [(32, False), (128, True)])
def test_pictures_of_any_size_share_a_file(side, blurred):
    ops = list(instantiate(OmegaConf.load(CONF / "image.yaml").contrastive))
    sharp = Recipe([op for op in ops if not isinstance(op, P.GaussianBlur)])
    x, rng = images(8, side=side), Rng(0, total=8)
    assert torch.equal(Recipe(ops)(x, rng), sharp(x, rng)) != blurred


@pytest.mark.parametrize("ops", [simclr, everything])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_identical_images_come_out_different_and_in_range(ops, channels):
    x = images(1, channels).expand(24, -1, -1, -1)
    out = Recipe(ops())(x, Rng(0, total=24))
    assert out.min() >= 0 and out.max() <= 1 and out.isfinite().all()
    assert (torch.cdist(out.flatten(1), out.flatten(1)) + torch.eye(24)).min() > 1e-3


@pytest.mark.parametrize("op", everything(), ids=lambda op: type(op).__name__)
def test_each_operation_draws_per_sample(op):
    x = images(1).expand(64, -1, -1, -1)
    out = op(x, Rng(5, total=64)).flatten(1)
    assert len(out.unique(dim=0)) > 1  # torchvision's v2 would give one
    assert torch.equal(out, op(x, Rng(5, total=64)).flatten(1))
    assert not torch.equal(out, op(x, Rng(6, total=64)).flatten(1))


@pytest.mark.parametrize("ops", [simclr, everything])
def test_sharding_does_not_change_a_sample(ops):
    x, recipe = images(30), Recipe(ops())
    whole = recipe(x, Rng(0, total=30))
    halves = [recipe(x[rows], Rng(0, total=30, rows=rows)) for rows in (slice(0, 13), slice(13, 30))]
    torch.testing.assert_close(torch.cat(halves), whole, atol=1e-6, rtol=0)


def test_several_views_are_those_made_one_at_a_time():
    x, recipe = images(30), Recipe(everything())
    rngs = [Rng(0, view, total=70, rows=slice(20, 50)) for view in range(3)]
    for made, rng in zip(recipe.views(x, rngs), rngs, strict=True):
        torch.testing.assert_close(made, recipe(x, rng), atol=1e-6, rtol=0)


def test_pieces_do_not_change_a_sample(monkeypatch):
    x, recipe = images(30), Recipe(everything())
    whole = recipe(x, Rng(0, total=30))
    monkeypatch.setattr("sslrun.augment.recipe.PIECE", 7 * x[0].numel())
    torch.testing.assert_close(recipe(x, Rng(0, total=30)), whole, atol=1e-6, rtol=0)


def test_operations_do_not_disturb_each_other():
    x = images(16)
    flips = Recipe([G.HorizontalFlip()])(x, Rng(0, total=16))
    behind = Recipe([P.Solarize(p=0), C.ColorJitter(0.4, p=0), G.HorizontalFlip()])(x, Rng(0, total=16))
    torch.testing.assert_close(flips, behind, atol=1e-5, rtol=0)
    twice = Recipe([G.HorizontalFlip(), G.HorizontalFlip()])(x, Rng(0, total=16))  # with draws of their own
    assert not torch.allclose(twice, x, atol=1e-4)


def one_by_one(ops, x, rng):
    for op, name in zip(ops, Recipe(ops).names, strict=True):
        x = op.apply(x, **op.draw(rng.child(*name), x.shape))
    return x


@pytest.mark.parametrize(
    "ops",
    [
        [G.HorizontalFlip(), G.VerticalFlip(), G.Translate(), G.HorizontalFlip()],
        [G.Affine(30, 0.2, (1.2, 1.6), padding="zeros"), P.Solarize(), G.HorizontalFlip(), G.VerticalFlip()],
        [G.Translate(padding="reflection"), G.Translate(padding="border"), G.HorizontalFlip()],
        [C.ColorJitter(0.1, 0.1, 0.1), C.Grayscale(0.5), C.ColorJitter(0.1, 0.1, 0.1, 0.1), C.Grayscale(0.5)],
    ],
)
def test_fused_equals_one_by_one(ops):
    x = images(16) * 0.2 + 0.4
    rng = Rng(0, total=16)
    torch.testing.assert_close(Recipe(ops)(x, rng), one_by_one(ops, x, rng), atol=1e-4, rtol=0)


def test_neighbours_cost_one_pass(monkeypatch):
    calls = []
    for name in ("warp", "recolour"):
        true = getattr(__import__("sslrun.augment.recipe", fromlist=[name]), name)
        monkeypatch.setattr(
            f"sslrun.augment.recipe.{name}", lambda *a, n=name, f=true, **k: calls.append(n) or f(*a, **k)
        )
    Recipe([*simclr()[:2], G.Affine(10), C.ColorJitter(0.4, 0.4, 0.4), C.Grayscale()])(images(4), Rng(0, total=4))
    assert calls == ["warp", "recolour"]


def test_size_of_the_output():
    x = images(6)
    assert Recipe(simclr(), size=9)(x, Rng(0, total=6)).shape == (6, 3, 9, 9)
    assert Recipe([G.RandomResizedCrop(size=7), C.Grayscale()])(x, Rng(0, total=6)).shape == (6, 3, 7, 7)
    assert Recipe([P.Cutout(), G.HorizontalFlip(), P.Cutout()], size=20)(x, Rng(0, total=6)).shape == (6, 3, 20, 20)
    resized = Recipe([], size=32)(x, Rng(0, total=6))
    reference = torch.nn.functional.interpolate(x, (32, 32), mode="bilinear", align_corners=False)
    torch.testing.assert_close(resized, reference, atol=1e-5, rtol=0)


def test_input_is_not_written_and_float64_stays():
    x = images(8).double()
    before = x.clone()
    assert Recipe(everything())(x, Rng(0, total=8)).dtype == torch.float64
    assert torch.equal(x, before)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="no sample"):
        Recipe(simclr())(images(0), Rng(0, total=0))
    with pytest.raises(UserError, match="size=-3"):
        Recipe([], size=-3)
    with pytest.raises(UserError, match="images"):
        Recipe(simclr())(torch.rand(4, 6), Rng(0, total=4))
