import math

import pytest
import torch
from batches import batch
from torch import nn

from sslrun.contracts import DataSpec, Field
from sslrun.methods.pretext.tabular.denoising_autoencoder import DenoisingAutoencoder
from sslrun.rng import Rng

NAN = float("nan")
SPEC = DataSpec(
    "rows",
    "table",
    (3,),
    mean=(10.0, 0.0, 1.0),
    std=(2.0, 1.0, 4.0),
    fields=(Field("a"), Field("b", "categorical", 4), Field("c")),
)
ROWS = torch.tensor([[12.0, 1.0, 5.0], [10.0, 3.0, NAN], [NAN, 0.0, 1.0], [8.0, 3.0, 9.0]])


class Plain(nn.Module):
    dim = 3

    def forward(self, x):
        return x.nan_to_num(0.0)


class Part:
    def __init__(self, x):
        self.x = x

    def inputs(self, positions):
        return self.x[positions]


class Rows:
    """What `prepare` reads of the data."""

    def __init__(self, x):
        self.train = Part(x)

    def sample(self, at_most):
        return torch.arange(min(at_most, len(self.train.x)))


def objective(rate=0.3, rows=ROWS):
    made = DenoisingAutoencoder(Plain(), SPEC, rate=rate, hidden=8)
    made.prepare(Rows(rows), Plain())
    return made


def test_loss_by_hand_with_missing_cells_and_a_category():
    # answers: a and c in standard deviations, then logits of the four codes of b
    answer = torch.tensor([[0.5, 0.0, 0.0, 0.0, 0.0, 0.0], [1.0, 7.0, 0.0, 0.0, 0.0, math.log(3)]])
    losses = objective().losses(answer, ROWS[:2])
    first = ((0.5 - 1.0) ** 2 + (0.0 - 1.0) ** 2 + math.log(4)) / 3
    second = ((1.0 - 0.0) ** 2 - math.log(3 / 6)) / 2  # c is missing and not asked for
    torch.testing.assert_close(losses, torch.tensor([first, second]))
    nothing_known = objective().losses(answer[:1], torch.tensor([[NAN, 0.0, NAN]]))
    assert nothing_known.tolist() == [0.0]


def test_noise_swaps_single_cells_within_their_column():
    rows = torch.arange(3000.0).view(1000, 3)
    noisy, target = objective(0.3, rows % 4).make(rows, Rng("noise", total=1000))
    assert torch.equal(target, rows)
    swapped = noisy != rows
    assert abs(swapped.float().mean().item() - 0.3) < 0.03
    both = (swapped[:, 0] & swapped[:, 2]).float().mean().item()
    assert abs(both - 0.09) < 0.03  # cells are swapped independently
    donors = (rows % 4)[:, 2].unique()
    assert torch.isin(noisy[:, 2][swapped[:, 2]], donors).all()


def test_trivial_answer_is_the_mean_and_the_frequencies_of_known_codes():
    made = objective()
    assert made.frequencies.tolist() == [0, 1, 0, 2]  # the missing code is not counted
    out = made.trivial(batch(all={"x": ROWS}))
    a, b, c = [1.0, 0.0, None, 1.0], [-math.log(1 / 3), -math.log(2 / 3), None, -math.log(2 / 3)], [1.0, None, 0.0, 4.0]
    rows = [[v for v in row if v is not None] for row in zip(a, b, c, strict=True)]
    expected = sum(sum(row) / len(row) for row in rows) / 4
    assert out["loss"].item() == pytest.approx(expected, rel=1e-4)
    saved = made.state_dict()
    assert torch.equal(saved["frequencies"], made.frequencies) and saved["donors"].shape == (4, 3)


def test_a_completed_row_has_the_tables_units_and_a_known_code():
    made = objective().eval()
    full = made.complete(Plain(), ROWS)
    answer = made.answer(Plain(), ROWS)
    torch.testing.assert_close(full[:, 0], answer[:, 0] * 2 + 10)
    torch.testing.assert_close(full[:, 2], answer[:, 1] * 4 + 1)
    assert full[:, 1].tolist() == (answer[:, 3:6].argmax(1) + 1).tolist() and (full[:, 1] >= 1).all()


@pytest.mark.parametrize("rate", (0, 1))
def test_rates_that_teach_nothing_are_refused(rate):
    with pytest.raises(ValueError, match=f"rate={rate} must lie between 0 and 1"):
        objective(rate)
