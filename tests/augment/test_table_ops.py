import pytest
import torch
from scipy.stats import binomtest, ks_2samp

from sslrun.augment.recipe import Recipe
from sslrun.augment.table import Corrupt, GaussianNoise
from sslrun.contracts import UserError
from sslrun.rng import Rng


def rows(n=2000, seed=0):
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed)) * torch.tensor([1.0, 10, 100, 0])
    x[:, 1] = x[:, 0] * 10  # tied, so that joint and marginal draws differ
    x[::7, 2] = float("nan")
    return x


def test_corrupt_draws_each_cell_from_its_columns_marginal():
    train, x = rows(), torch.full((3000, 4), 1e6)
    op = Corrupt(0.6)
    op.prepare(train)
    out = op(x, Rng(0, total=3000))
    hit = out != 1e6
    for column in range(4):
        assert binomtest(int(hit[:, column].sum()), 3000, 0.6).pvalue > 1e-3
        drawn, pool = out[hit[:, column], column], train[:, column]
        assert set(drawn[~drawn.isnan()].tolist()) <= set(pool.tolist())
        assert ks_2samp(drawn[~drawn.isnan()], pool[~pool.isnan()]).pvalue > 1e-3
    missing = int(out[hit[:, 2], 2].isnan().sum())
    assert binomtest(missing, int(hit[:, 2].sum()), train[:, 2].isnan().double().mean().item()).pvalue > 1e-3
    both = hit[:, 0] & hit[:, 1]
    tie = torch.corrcoef(out[both][:, :2].T)[0, 1]
    assert tie.abs() < 0.1  # a donor row of its own for each cell
    assert not torch.equal(hit[:, 0], hit[:, 1])


def test_corrupt_keeps_at_most_ten_thousand_donors_in_its_state():
    op = Corrupt()
    op.prepare(torch.arange(25_000.0).view(-1, 1))
    assert op.state_dict()["donors"].shape == (10_000, 1)
    assert op.donors.min() == 0 and op.donors.max() == 24_999 and len(op.donors.unique()) == 10_000


def test_noise_is_scaled_by_column_and_keeps_missing_cells():
    train = rows()
    recipe = Recipe([GaussianNoise(0.5)])
    recipe.prepare(train)
    noise = recipe(train, Rng(0, total=2000)) - train
    assert torch.equal(noise.isnan(), train.isnan())
    known = train[~train[:, 2].isnan()]
    expected = 0.5 * known.std(0)
    torch.testing.assert_close(noise[~train[:, 2].isnan()].std(0)[:3], expected[:3], rtol=0.1, atol=0)
    assert (noise[:, 3] == 0).all()


def test_unprepared_operations_say_so():
    with pytest.raises(UserError, match="prepare"):
        Corrupt()(rows(8), Rng(0, total=8))
    with pytest.raises(UserError, match="tables"):
        Corrupt()(torch.rand(8, 3, 4, 4), Rng(0, total=8))
