import math

import pytest
import torch
from batches import Cells, Rows, batch, draw, picture

from sslrun.methods.pretext.image.inpainting import Inpainting, rectangles
from sslrun.rng import Rng


def objective(**settings):
    return Inpainting(Cells(), picture(), **settings)


def is_rectangle(hole):
    rows, columns = hole.any(1), hole.any(0)
    inside = rows.unsqueeze(1) & columns.unsqueeze(0)
    runs = all((line.int().diff().abs().sum() + line[0] + line[-1]) == 2 for line in (rows, columns))
    return torch.equal(hole, inside) and runs


def test_a_block_is_one_rectangle_of_the_share_anywhere_in_the_picture():
    holes = rectangles(Rng("b", total=400), 1, 0.25, 12, 16)
    assert all(is_rectangle(hole) for hole in holes)
    area = holes.sum((1, 2))
    assert abs(area.float().mean() / (12 * 16) - 0.25) < 0.01 and area.min() > 38 and area.max() < 58
    assert holes.any(0).all() and len(holes.flatten(1).unique(dim=0)) > 150
    height = holes.any(2).sum(1)
    assert height.min() <= 5 and height.max() >= 9  # up to twice as long as wide, either way


def test_several_blocks_divide_the_share():
    holes = rectangles(Rng("b", total=400), 4, 0.25 / 4, 16, 16)
    area = holes.float().mean((1, 2))
    assert area.max() <= 0.3 and 0.18 < area.mean() < 0.25  # they may overlap
    assert sum(is_rectangle(hole) for hole in holes) < 40


def test_random_masks_hide_a_share_of_the_pixels_one_by_one():
    x = draw(300, 1, 8, 8)
    holes = objective(mask="random", share=0.3).make(x, Rng("r", total=300))[0].isnan()
    assert abs(holes.float().mean() - 0.3) < 0.01
    assert abs((holes[..., :-1] & holes[..., 1:]).float().mean() - 0.09) < 0.01  # neighbours independently


@pytest.mark.parametrize("mask", ("block", "random"))
def test_what_is_hidden_is_asked_for_and_nothing_else_in_all_channels(mask):
    x = draw(50, 3, 4, 4)
    inputs, target = objective(mask=mask).make(x, Rng("r", total=50))
    hidden = inputs.isnan()
    assert torch.equal(hidden, ~target.isnan()) and torch.equal(hidden[:, :1].expand_as(hidden), hidden)
    assert torch.equal(torch.where(hidden, target, inputs), x)


def test_loss_counts_hidden_pixels_alone_and_visible_ones_get_no_gradient():
    made = objective()
    target = torch.full((1, 1, 4, 4), math.nan)
    target[0, 0, 1, 1:3] = torch.tensor([1.0, 2.0])
    answer = torch.zeros(1, 1, 4, 4, requires_grad=True)
    loss = made.losses(answer, target)
    assert loss.tolist() == [2.5]
    loss.sum().backward()
    assert answer.grad.nonzero().tolist() == [[0, 0, 1, 1], [0, 0, 1, 2]]


def test_the_encoder_cannot_see_what_is_hidden():
    made, x = objective(), draw(5, 1, 4, 4)
    inputs, _ = made.make(x, Rng("r", total=5))
    filled = inputs.nan_to_num(0.0)  # the mean of this data
    assert torch.equal(made.answer(Cells(), inputs), made.answer(Cells(), filled))


def test_without_learning_the_answer_is_the_mean_picture():
    made, x = objective(), draw(6, 1, 4, 4)
    made.prepare(Rows(x), None)
    seen = batch(all={"view": x})
    _, target = made.make(x, seen["all"].rng("make", "Inpainting"))
    each = [(x[i] - x.mean(0))[~target[i].isnan()].square().mean() for i in range(6)]
    assert made.trivial(seen)["loss"].item() == pytest.approx(torch.stack(each).mean().item(), rel=1e-5)
    assert torch.equal(made.state_dict()["picture"], x.mean(0))


def test_only_missing_pixels_are_completed():
    made, x = objective(), draw(5, 1, 4, 4)
    inputs, _ = made.make(x, Rng("r", total=5))
    full = made.complete(Cells(), inputs)
    hidden = inputs.isnan()
    assert torch.equal(full[~hidden], x[~hidden]) and torch.equal(full[hidden], made.answer(Cells(), inputs)[hidden])
    assert torch.equal(made.complete(Cells(), x), x)


def test_figure_shows_the_hole_the_picture_and_the_filled_one():
    made, x = objective(), draw(5, 1, 4, 4)
    shown = made.figure(Cells(), batch(all={"view": x}))
    assert list(shown) == ["input", "target", "output"] and torch.equal(shown["target"], x)
    assert shown["input"].isnan().any() and not shown["output"].isnan().any()


@pytest.mark.parametrize(
    ("settings", "words"), [({"mask": "blok"}, "block, random"), ({"share": 1.0}, "share=1.0"), ({"blocks": 0}, "1 or")]
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        objective(**settings)
