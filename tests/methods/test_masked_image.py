import pytest
import torch
from batches import Cells, Rows, batch, draw, picture
from torch import nn

from sslrun.contracts import DataSpec, UserError
from sslrun.encoders.vit import ViT
from sslrun.methods.pretext.image.masked_image import MaskedImage
from sslrun.rng import Rng

SPEC = DataSpec("pictures", "image", (2, 8, 8), mean=(0.5, 0.3), std=(0.25, 2.0))


def encoder(spec=SPEC, patch=2):
    torch.manual_seed(0)
    return ViT(spec, dim=32, depth=1, heads=2, patch=patch)


def objective(spec=SPEC, patch=2, **settings):
    return MaskedImage(encoder(spec, patch), spec, decoder_dim=32, decoder_depth=1, **settings)


class Watched(nn.Module):
    """An encoder of patches of 2 pixels that notes what it was asked for."""

    dim, grid, patch = 8, (4, 4), 2

    def tokens(self, x, keep=None):
        self.keep = keep
        return draw(len(x), 16, 8)[torch.arange(len(x)).unsqueeze(1), keep], None


@pytest.mark.parametrize(("ratio", "kept"), [(0.75, 4), (0.5, 8), (0.6, 6), (0.99, 1), (0.01, 15)])
def test_a_share_of_the_patches_is_kept_of_each_picture_differently(ratio, kept):
    (_, keep), target = objective(mask_ratio=ratio).make(draw(200, 2, 8, 8), Rng("m", total=200))
    assert keep.shape == (200, kept) and all(len(row.unique()) == kept for row in keep)
    asked = ~target.isnan().any(2)  # (B, N)
    assert torch.equal(target.isnan().all(2), ~asked)
    assert (asked.sum(1) == 16 - kept).all() and not asked.gather(1, keep).any()
    assert len(asked.unique(dim=0)) > 10 and asked.any(0).all()
    assert abs(asked.float().mean(0) - (1 - kept / 16)).max() < 0.15  # anywhere alike


def test_the_mask_depends_on_the_place_in_the_global_batch_alone():
    made, x = objective(), draw(6, 2, 8, 8)
    whole = made.make(x, Rng("m", total=6))[0].keep
    half = made.make(x[3:], Rng("m", total=6, rows=slice(3, 6)))[0].keep
    assert torch.equal(whole[3:], half)


def test_the_encoder_gets_the_kept_patches_alone():
    made, x = objective(), draw(5, 2, 8, 8)
    inputs, target = made.make(x, Rng("m", total=5))
    seen = Watched()
    MaskedImage(seen, SPEC, decoder_dim=32).answer(seen, inputs)
    assert torch.equal(seen.keep, inputs.keep)
    hidden = made.pictures(torch.where(made.shown(inputs.keep), made.patches(x), 9.0))  # masked patches overwritten
    network = encoder()
    torch.testing.assert_close(made.answer(network, inputs._replace(picture=hidden)), made.answer(network, inputs))
    assert not torch.allclose(made.answer(network, inputs._replace(picture=x + 1)), made.answer(network, inputs))


def test_answers_stand_at_the_place_of_their_patch_whatever_the_order_of_the_kept_ones():
    made, network, x = objective().eval(), encoder().eval(), draw(4, 2, 8, 8)
    inputs, _ = made.make(x, Rng("m", total=4))
    turned = inputs._replace(keep=inputs.keep.flip(1))
    torch.testing.assert_close(made.answer(network, turned), made.answer(network, inputs))


def test_masked_patches_are_told_apart_by_their_place_alone():
    made, seen, x = MaskedImage(Watched(), SPEC, decoder_dim=32), Watched(), draw(4, 2, 8, 8)
    inputs, _ = made.make(x, Rng("m", total=4))
    masked = ~made.shown(inputs.keep).squeeze(2)
    answer = made.answer(seen, inputs)[0][masked[0]]  # (N - M, P)
    assert torch.cdist(answer, answer).add(torch.eye(len(answer))).min() > 1e-3
    made.positions.zero_()
    answer = made.answer(seen, inputs)[0][masked[0]]
    torch.testing.assert_close(answer, answer[:1].expand_as(answer))


def test_targets_are_normalised_over_the_pixels_and_channels_of_a_patch():
    made, x = objective(), draw(3, 2, 8, 8)
    target = made.make(x, Rng("m", total=3))[1]
    asked = target[~target.isnan().any(2)]
    torch.testing.assert_close(asked.mean(1), torch.zeros(len(asked)), atol=1e-5, rtol=0)
    torch.testing.assert_close(asked.square().mean(1), torch.ones(len(asked)), atol=1e-3, rtol=0)
    patch = (x[0, :, 2:4, 4:6] - torch.tensor(SPEC.mean).view(2, 1, 1)) / torch.tensor(SPEC.std).view(2, 1, 1)
    every = objective(mask_ratio=0.01)  # the patch of row 1, column 2 of a picture in which it is masked
    seed = next(i for i in range(400) if 6 not in every.make(x, Rng(i, total=3))[0].keep[0])
    by_hand = (patch - patch.mean()) / (patch.var(correction=0) + 1e-6).sqrt()
    torch.testing.assert_close(every.make(x, Rng(seed, total=3))[1][0, 6], by_hand.flatten())


def test_constant_patches_become_zeros():
    target = objective().make(torch.full((2, 2, 8, 8), 0.3), Rng("m", total=2))[1]
    flat = DataSpec("p", "image", (1, 8, 8), mean=(0.1,), std=(0.3,))
    plain = objective(flat).make(torch.full((2, 1, 8, 8), 0.7), Rng("m", total=2))[1]
    assert target.nan_to_num(0).abs().max() > 0.9  # channels that differ are contrast
    assert plain.nan_to_num(0).abs().max() < 1e-3


def test_the_loss_is_the_mean_over_masked_patches_and_visible_ones_get_no_gradient():
    made = objective()
    target = torch.full((2, 16, 8), torch.nan)
    target[0, 3], target[0, 5], target[1, 7] = 1.0, 3.0, 2.0
    answer = torch.zeros(2, 16, 8, requires_grad=True)
    loss = made.losses(answer, target)
    assert loss.tolist() == [(1 + 9) / 2, 4.0]
    loss.sum().backward()
    assert answer.grad.any(2).nonzero().tolist() == [[0, 3], [0, 5], [1, 7]]


def test_pixels_beyond_the_rim_are_not_asked_for():
    spec = DataSpec("p", "image", (1, 5, 7), mean=(0.0,), std=(1.0,))
    made, x = objective(spec, patch=4, mask_ratio=0.5), draw(300, 1, 5, 7)
    target = made.make(x, Rng("m", total=300))[1]
    last = target[:, 3][~target[:, 3].isnan().all(1)]  # 1 x 3 pixels of a patch of 4 x 4
    assert len(last) > 100 and (~last.isnan()).sum(1).eq(3).all()
    torch.testing.assert_close(last.nanmean(1), torch.zeros(len(last)), atol=1e-5, rtol=0)


def test_without_learning_a_normalised_patch_costs_one_and_a_raw_one_its_distance_from_the_mean_picture():
    spec = DataSpec("p", "image", (1, 8, 8), mean=(0.0,), std=(2.0,))
    x = draw(6, 1, 8, 8)
    seen = batch(all={"view": x})
    made = objective(spec)
    made.prepare(Rows(x), None)
    assert made.trivial(seen)["loss"].item() == pytest.approx(1.0, abs=1e-3)
    raw = objective(spec, norm_pix=False)
    raw.prepare(Rows(x), None)
    shown = raw.shown(raw.make(x, seen["all"].rng("make", "MaskedImage"))[0].keep)
    error = raw.patches(x - x.mean(0)).square().mean(2)[~shown.squeeze(2)]
    assert raw.trivial(seen)["loss"].item() == pytest.approx(error.mean().item(), rel=1e-5)


@pytest.mark.parametrize("norm_pix", (True, False))
def test_figure_fills_the_masked_patches_and_copies_the_visible_ones(norm_pix):
    made, x = objective(norm_pix=norm_pix), draw(5, 2, 8, 8)
    seen = batch(all={"view": x})
    inputs, target = made.make(x, seen["all"].rng("make", "MaskedImage"))
    made.answer = lambda encoder, inputs: target  # a network that knows
    shown = made.figure(encoder(), seen)
    assert list(shown) == ["input", "output", "target"] and torch.equal(shown["target"], x)
    hole = shown["input"].isnan()
    assert hole.float().mean() == 0.75
    torch.testing.assert_close(shown["input"][~hole], x[~hole])
    torch.testing.assert_close(shown["output"], x, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_masked_is_refused():
    with pytest.raises(UserError, match="encoder=cells cannot.*vit_micro and encoder=vit_tiny"):
        MaskedImage(type("Cells", (Cells,), {"patch": 0})(), picture())
    with pytest.raises(UserError, match="encoder.patch=8 makes one patch.*encoder.patch=2 works"):
        objective(patch=8)
    with pytest.raises(UserError, match="4 x 4 pixels.*8 x 8"):
        objective().make(draw(1, 2, 4, 4), Rng("m", total=1))
    for settings, words in (({"mask_ratio": 1.0}, "mask_ratio=1.0"), ({"decoder_dim": 40}, "multiple of 32")):
        with pytest.raises(ValueError, match=words):
            MaskedImage(encoder(), SPEC, **settings)


def test_a_convolutional_encoder_is_refused_in_one_sentence(command):
    said = command("method=masked_image", "data=digits", "encoder=cnn", "steps=1")
    assert said.status != 0 and "encoder=vit_micro" in said.err and "Traceback" not in said.err
