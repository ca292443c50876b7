import numpy as np
import pytest
import torch
from batches import Linear, batch, draw, picture
from scipy.stats import beta
from torch import nn
from torch.nn.functional import one_hot

from sslrun.methods.semi.mixmatch import MixMatch, sharpen


def given(labelled=4, unlabelled=6):
    first, second = draw(unlabelled, 1, 4, 4, seed=1), draw(unlabelled, 1, 4, 4, seed=2)
    return batch(
        labelled={"view": draw(labelled, 1, 4, 4), "y": torch.arange(labelled) % 3},
        unlabelled={"first": first, "second": second},
    )


@pytest.mark.parametrize("alpha", (0.25, 0.75, 1.0, 4.0))
def test_shares_are_the_larger_part_of_a_beta_draw(alpha):
    made = MixMatch(Linear(16, 3), picture(), alpha=alpha)
    u = np.linspace(0.001, 0.999, 500)
    # max(l, 1 - l) <= x exactly where 1 - x <= l <= x, which has probability 2 F(x) - 1
    expected = beta.ppf((1 + u) / 2, alpha, alpha)
    got = made.share(torch.from_numpy(u).float()).numpy()
    np.testing.assert_allclose(got, expected, atol=2e-3)
    assert got.min() >= 0.5 and got.max() <= 1
    edges = made.share(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(edges, torch.tensor([0.5, 1.0]))


def test_no_alpha_mixes_nothing():
    made, rows = MixMatch(Linear(16, 3), picture(), alpha=0.0), torch.eye(4)
    ((x, y),) = made.mix(given(), [("labelled", rows, rows)])
    assert torch.equal(x, rows) and torch.equal(y, rows)


def test_labelled_and_unlabelled_rows_are_mixed_with_each_other():
    made = MixMatch(Linear(16, 3), picture())
    rows = torch.eye(16)
    parts = [("labelled", rows[:4], rows[:4]), ("unlabelled", rows[4:10], rows[4:10])]
    parts += [("unlabelled", rows[10:], rows[10:])]
    mixed = torch.cat([x for x, _ in made.mix(given(), parts)])
    torch.testing.assert_close(mixed.sum(1), torch.ones(16))
    assert (mixed[:4, 4:] > 0).any() and (mixed[4:, :4] > 0).any()
    shares = mixed.diagonal()[mixed.diagonal() < 1]  # 1: a row that met itself
    assert len(shares.unique()) == len(shares) > 8


def test_losses_are_those_of_mixed_rows_and_sharpened_guesses():
    encoder, streams = Linear(16, 5), given()
    made = MixMatch(encoder, picture(), temperature=0.5, unlabelled_weight=4.0, ramp=0.0)

    def p(x):
        return torch.softmax(made.head(encoder(x)), 1)

    first, second = (streams["unlabelled"][view] for view in ("first", "second"))
    mean = (p(first) + p(second)) / 2
    q = (mean**2 / (mean**2).sum(1, keepdim=True)).detach()
    torch.testing.assert_close(q, sharpen(mean, 0.5).detach())
    known = one_hot(streams["labelled"]["y"], 3).float()
    parts = [("labelled", streams["labelled"]["view"], known), ("unlabelled", first, q), ("unlabelled", second, q)]
    (x, y), *rest = made.mix(streams, parts)
    u, guesses = (torch.cat(part) for part in zip(*rest, strict=True))
    out = made(encoder, streams)
    labelled, unlabelled = -(y * p(x).log()).sum() / 4, ((p(u) - guesses) ** 2).sum() / (12 * 3)
    torch.testing.assert_close(out["loss_labelled"], labelled)
    torch.testing.assert_close(out["loss_unlabelled"], unlabelled)
    torch.testing.assert_close(out["loss"], labelled + 4 * unlabelled)


class Normalised(Linear):
    def __init__(self):
        super().__init__(16, 5)
        self.norm = nn.BatchNorm1d(5, momentum=1.0)  # keeps the statistics of the last batch alone

    def forward(self, x):
        return self.norm(super().forward(x))


def test_running_statistics_are_those_of_the_mixed_rows():
    encoder, streams = Normalised(), given()
    made = MixMatch(encoder, picture(), alpha=0.75)
    mixed = []
    original = made.mix
    made.mix = lambda *args: mixed.extend(original(*args)) or mixed
    made(encoder, streams)
    seen = encoder.layer(torch.cat([x for x, _ in mixed]).flatten(1))
    torch.testing.assert_close(encoder.norm.running_mean, seen.mean(0).detach())
    assert encoder.norm.num_batches_tracked == 1
