import math

import pytest
import torch
from batches import Linear, batch, draw, picture
from torch import nn

from sslrun.methods.semi.fixmatch import FixMatch


class Logits(nn.Module):
    """The inputs are the logits, times a parameter that gradients reach."""

    dim = 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x.flatten(1)[:, :3] * self.scale


def objective(encoder, **settings):
    made = FixMatch(encoder, picture(size=2), **settings)
    made.head = nn.Identity()
    return made


def logits(*probabilities):
    """Pictures (B, 1, 2, 2) that `Logits` turns into these class probabilities."""
    rows = torch.tensor([[*row, 1.0] for row in probabilities]).log()
    return rows.view(-1, 1, 2, 2)


LABELLED = logits((0.5, 0.25, 0.25), (0.2, 0.2, 0.6))
WEAK = logits((0.97, 0.02, 0.01), (0.6, 0.3, 0.1), (0.02, 0.96, 0.02), (0.4, 0.3, 0.3))
STRONG = logits((0.5, 0.3, 0.2), (0.9, 0.05, 0.05), (0.7, 0.1, 0.2), (0.1, 0.1, 0.8))


def step(weak=WEAK, strong=STRONG, **settings):
    encoder = Logits()
    given = {"labelled": {"weak": LABELLED, "y": torch.tensor([0, 1])}, "unlabelled": {"weak": weak, "strong": strong}}
    return encoder, objective(encoder, **settings)(encoder, batch(**given))


def test_loss_by_hand_over_all_unlabelled_rows():
    _, out = step(unlabelled_weight=2.0)
    labelled = -(math.log(0.5) + math.log(0.2)) / 2
    # rows 0 and 2 are confident; their sum is divided by four rows, not by two
    unlabelled = -(math.log(0.5) + math.log(0.1)) / 4
    assert out["loss_labelled"].item() == pytest.approx(labelled, rel=1e-5)
    assert out["loss_unlabelled"].item() == pytest.approx(unlabelled, rel=1e-5)
    assert out["loss"].item() == pytest.approx(labelled + 2 * unlabelled, rel=1e-5)
    assert (out["mask_rate"], out["accuracy"]) == (0.5, 0.5)


def test_threshold_is_inclusive_and_in_fp32():
    _, out = step(weak=torch.zeros(4, 1, 2, 2), threshold=1 / 3 - 1e-6)
    assert out["mask_rate"] == 1


def test_no_gradient_through_the_pseudo_labels():
    weak, strong = WEAK.clone().requires_grad_(), STRONG.clone().requires_grad_()
    _, out = step(weak, strong)
    out["loss_unlabelled"].backward()
    assert weak.grad is None or not weak.grad.any()
    moved = strong.grad.flatten(1).any(1)
    assert moved.tolist() == [True, False, True, False]  # confident rows alone


def test_average_gets_no_gradient_and_follows_the_paper():
    encoder = Linear(16, 3)
    made = FixMatch(encoder, picture(), ema=0.9)
    assert not any(p.requires_grad for p in made.ema.parameters())
    before = made.ema.module[0].layer.weight.clone()
    encoder.layer.weight.data += 1
    for t in range(1, 30):
        made.after_step(encoder)
        kept = min(1 - 1 / (t + 1), 0.9)
        before = kept * before + (1 - kept) * encoder.layer.weight.detach()
    torch.testing.assert_close(made.ema.module[0].layer.weight, before)
    x = draw(5, 1, 4, 4)
    p, averaged = made.predict(encoder, x), made.ema_predict(encoder, x)
    torch.testing.assert_close(p.sum(1), torch.ones(5))
    assert averaged.shape == p.shape and not torch.equal(p, averaged)


def test_aligned_guesses_keep_to_the_shares_of_the_labels():
    encoder, rows = Logits(), torch.tensor([(0.6, 0.3, 0.1)] * 30 + [(0.4, 0.5, 0.1)] * 10 + [(0.4, 0.2, 0.4)] * 8)
    weak = rows.log()
    made = objective(encoder, align=0.9)
    made.prior = torch.tensor([0.5, 0.25, 0.25])
    for _ in range(100):
        aligned = torch.softmax(made.guess(weak), 1)
    ratio = made.prior / rows.mean(0)  # Berthelot et al. 2020, section 3.1
    torch.testing.assert_close(made.classes, rows.mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(aligned, rows * ratio / (rows * ratio).sum(1, keepdim=True), rtol=1e-3, atol=1e-4)
    before = made.classes.clone()
    made.eval()
    torch.testing.assert_close(torch.softmax(made.guess(weak), 1), aligned, rtol=1e-3, atol=1e-4)
    assert torch.equal(made.classes, before), "validation samples do not move the shares"
    assert torch.equal(objective(encoder).guess(weak), weak), "without it guesses are as the network has them"


def test_a_class_that_is_never_guessed_does_no_harm():
    made = objective(Logits(), align=0.5)
    certain = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]])
    for _ in range(200):
        aligned = made.guess(certain)
    assert aligned.isfinite().all() and aligned.argmax(1).tolist() == [0, 1]


def test_refuses_what_cannot_work():
    for align in (-0.1, 1.0):
        with pytest.raises(ValueError, match=f"align={align} must lie in"):
            FixMatch(Linear(16, 3), picture(), align=align)
    with pytest.raises(ValueError, match="threshold=0 must lie above 0"):
        FixMatch(Linear(16, 3), picture(), threshold=0)
    with pytest.raises(ValueError, match="at least 2 classes"):
        FixMatch(Linear(16, 3), picture(classes=0))
