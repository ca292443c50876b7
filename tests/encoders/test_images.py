import sys

import pytest
import torch
import torchvision

from sslrun.contracts import DataSpec, UserError
from sslrun.encoders.cnn import Cnn
from sslrun.encoders.identity import Identity
from sslrun.encoders.resnet import ResNet
from sslrun.encoders.timm import Timm
from sslrun.encoders.vit import ViT
from sslrun.encoders.wide_resnet import WideResNet


def spec(channels=3, size=32, **more):
    size = size if isinstance(size, tuple) else (size, size)
    return DataSpec("pictures", "image", (channels, *size), **more)


def small_vit(s, **more):
    return ViT(s, **{"dim": 32, "depth": 2, "heads": 2, **more})


FAMILIES = {
    "cnn": lambda s: Cnn(s, width=8),
    "resnet": ResNet,
    "wide_resnet": lambda s: WideResNet(s, depth=10, width=1),
    "vit": small_vit,
    "identity": Identity,
}


def randomised(encoder):
    """Non-trivial batch norm statistics, so that evaluation mode tests them."""
    g = torch.Generator().manual_seed(0)
    for name, buffer in encoder.named_buffers():
        if "running" in name:
            spread = torch.rand(buffer.shape, generator=g)
            buffer.copy_(spread + 0.5 if name.endswith("var") else 0.2 * spread - 0.1)
    return encoder


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 32), (5, (20, 36))])
def test_forward_equals_pooled_tokens_and_last_stage(family, channels, size):
    s = spec(channels, size, mean=(0.4,) * channels, std=(0.2,) * channels)
    encoder = randomised(FAMILIES[family](s)).eval()
    x = torch.rand(3, *s.shape, generator=torch.Generator().manual_seed(1))
    tokens, mask = encoder.tokens(x)
    features, stages = encoder(x), encoder.stages(x)
    assert mask is None
    assert tokens.shape == (3, torch.tensor(encoder.grid).prod(), encoder.dim)
    torch.testing.assert_close(features, tokens.mean(1))
    torch.testing.assert_close(features, stages[-1])
    assert features.std(0).max() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_are_standardised(family):
    torch.manual_seed(0)
    plain = FAMILIES[family](spec(3, 8)).eval()
    scaled = FAMILIES[family](spec(3, 8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 2.0))).eval()
    buffers = {"mean": scaled.mean, "std": scaled.std}
    scaled.load_state_dict(plain.state_dict() | buffers)
    x = torch.rand(2, 3, 8, 8)
    by_hand = (x - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.25, 2.0]).view(3, 1, 1)
    torch.testing.assert_close(scaled(x), plain(by_hand))


@pytest.mark.parametrize("family", ["cnn", "resnet", "wide_resnet", "vit"])
def test_every_parameter_gets_a_gradient_and_the_state_survives_a_round_trip(family):
    s = spec(3, 16)
    encoder = FAMILIES[family](s)
    x = torch.rand(4, *s.shape)
    (encoder(x) * torch.randn(4, encoder.dim)).sum().backward()
    dead = [n for n, p in encoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert not dead
    copy = FAMILIES[family](s)
    copy.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(copy.eval()(x), encoder.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("size", "grid", "dim"),
    [(4, (2, 2), 128), (8, (4, 4), 128), (28, (4, 4), 256), (32, (4, 4), 256), (64, (4, 4), 256), (96, (3, 3), 256)],
)
def test_cnn_depth_follows_the_size(size, grid, dim):
    encoder = Cnn(spec(1, size)).eval()
    assert (encoder.grid, encoder.dim) == (grid, dim)
    assert encoder.last(torch.rand(1, 1, size, size)).shape == (1, dim, *grid)


def test_cnn_refuses_what_it_cannot_read():
    with pytest.raises(UserError, match="4 pixels"):
        Cnn(spec(1, 3))
    with pytest.raises(UserError, match="encoder=mlp"):
        Cnn(DataSpec("wine", "table", (13,)))
    with pytest.raises(UserError, match="vit_tiny"):
        Cnn(spec()).tokens(torch.rand(1, 3, 32, 32), keep=torch.zeros(1, 1, dtype=torch.int64))


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnet_equals_torchvision(depth):
    theirs = randomised(getattr(torchvision.models, f"resnet{depth}")()).eval()
    theirs.fc = torch.nn.Identity()
    ours = ResNet(spec(3, 224), depth).eval()
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    names = [n for n in ours.state_dict() if n not in ("mean", "std")]
    values = list(theirs.state_dict().values())
    ours.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    x = torch.rand(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    assert ours.grid == (7, 7)


def test_small_pictures_keep_resolution_in_resnet():
    encoder = ResNet(spec(3, 32)).eval()
    assert encoder.grid == (4, 4)
    assert encoder.layers[0][0][0].stride == (1, 1)
    assert [s.shape[1] for s in encoder.stages(torch.rand(1, 3, 32, 32))] == [64, 128, 256, 512]
    with pytest.raises(UserError, match="18, 34 and 50"):
        ResNet(spec(), depth=20)


def test_wrn_28_2_has_the_published_size():
    encoder = WideResNet(spec(3, 32))
    head = 128 * 10 + 10
    assert sum(p.numel() for p in encoder.parameters()) + head == 1_467_610
    norms = [m for m in encoder.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 25 and {m.momentum for m in norms} == {0.001}
    with pytest.raises(UserError, match="6 n"):
        WideResNet(spec(), depth=18)


def test_vit_keep_encodes_these_patches_alone():
    encoder = small_vit(spec(3, 16, mean=(0.5,) * 3, std=(0.2,) * 3), patch=4).eval()
    x = torch.rand(2, 3, 16, 16)
    everything = torch.stack([torch.randperm(16), torch.randperm(16)])
    order = everything.unsqueeze(-1).expand(-1, -1, encoder.dim)
    torch.testing.assert_close(encoder.tokens(x, everything)[0], encoder.tokens(x)[0].gather(1, order))
    keep = everything[:, :5]
    some = encoder.tokens(x, keep)[0]
    assert some.shape == (2, 5, encoder.dim)
    hidden = torch.ones(2, 16, dtype=torch.bool).scatter(1, keep, False)  # (B, N)
    cover = hidden.view(2, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(encoder.tokens(x.masked_fill(cover, 9.0), keep)[0], some, rtol=0, atol=0)
    assert not torch.allclose(encoder.tokens(x.masked_fill(~cover, 9.0), keep)[0], some)


def test_vit_patches_are_the_squares_of_the_picture_row_by_row():
    encoder = small_vit(spec(2, (6, 8)), patch=2)
    x = torch.rand(1, 2, 6, 8)
    patches, grid = encoder.patches(x)
    assert grid == encoder.grid == (3, 4)
    torch.testing.assert_close(patches[0, 1 * 4 + 2], x[0, :, 2:4, 4:6].flatten())


def test_vit_takes_crops_and_sizes_that_no_patch_divides():
    encoder = small_vit(spec(3, 32)).eval()
    assert encoder.grid == (8, 8) and encoder(torch.rand(2, 3, 16, 16)).shape == (2, 32)
    odd = small_vit(spec(1, 30)).eval()
    assert odd.tokens(torch.rand(1, 1, 30, 30))[0].shape == (1, 64, 32)
    with pytest.raises(UserError, match="heads=5"):
        small_vit(spec(), heads=5)


@pytest.mark.parametrize(("size", "patch"), [(8, 2), (32, 4), (64, 8), (96, 8), (224, 16)])
def test_vit_patch_follows_the_size(size, patch):
    assert small_vit(spec(1, size), depth=1).patch == patch


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_timm_tokens_pool_to_the_features(name):
    pytest.importorskip("timm")
    encoder = Timm(spec(1, 64), name).eval()
    x = torch.rand(2, 1, 64, 64)
    tokens, _ = encoder.tokens(x)
    assert tokens.shape == (2, encoder.grid[0] * encoder.grid[1], encoder.dim)
    torch.testing.assert_close(encoder(x), tokens.mean(1))
    torch.testing.assert_close(encoder.stages(x)[-1], encoder(x))
    assert all(s.dim() == 2 for s in encoder.stages(x))


def test_timm_resnet_equals_torchvision():
    pytest.importorskip("timm")
    theirs = randomised(torchvision.models.resnet18()).eval()
    theirs.fc = torch.nn.Identity()
    ours = Timm(spec(3, 64), "resnet18").eval()
    ours.model.load_state_dict(theirs.state_dict())
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_timm_errors_say_what_would_work(monkeypatch):
    timm = pytest.importorskip("timm")
    with pytest.raises(UserError, match="resnet18"):
        Timm(spec(), "resnet19")

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match="huggingface.co/timm"):
        Timm(spec(), "resnet18", pretrained=True)


def test_timm_missing_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"sslrun\[timm\]"):
        Timm(spec(), "resnet18")
