import pytest
import torch
from torch import nn

from sslrun.contracts import DataSpec, Encoder, Split, UserError
from sslrun.evaluate.features import extract, health, ordered, raw

SPEC = DataSpec("toy", "image", (1, 4, 4), 2)


class Small(Encoder):
    dim = 6

    def __init__(self):
        super().__init__(SPEC)
        self.norm = nn.BatchNorm1d(16)
        self.drop = nn.Dropout(0.5)
        self.frozen = nn.BatchNorm1d(16).eval()
        self.last = nn.Linear(16, 6)

    def tokens(self, x, keep=None):
        h = self.last(self.drop(self.frozen(self.norm(x.flatten(1)))))
        mask = torch.tensor([True, True, False]).expand(len(x), 3)
        return torch.stack([h, 2 * h, h * torch.nan], 1).nan_to_num(), mask

    def stages(self, x):
        return [x.flatten(1)[:, :5], self(x)]


@pytest.fixture
def setup():
    torch.manual_seed(0)
    x = torch.randn(23, 1, 4, 4)
    encoder = Small()
    encoder.norm.running_mean.uniform_()
    return encoder, x, lambda rows: x[rows]


def test_extract_leaves_the_encoder_as_it_was(setup):
    encoder, x, x_of = setup
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    modes = [module.training for module in encoder.modules()]
    extract(encoder, x_of, 23, batch=7, stages=True, tokens=True, device="cpu")
    assert modes == [module.training for module in encoder.modules()] and not encoder.frozen.training
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None for parameter in encoder.parameters())


def test_extract_restores_modes_after_an_error(setup):
    encoder, _, _ = setup

    def broken(rows):
        raise OSError("gone")

    with pytest.raises(OSError):
        extract(encoder, broken, 23, device="cpu")
    assert encoder.training and encoder.norm.training and not encoder.frozen.training


def test_extract_is_evaluation_mode_and_independent_of_the_batch(setup):
    encoder, x, x_of = setup
    found = extract(encoder, x_of, 23, batch=5, stages=True, tokens=True, device="cpu")
    encoder.eval()
    with torch.no_grad():
        expected = encoder(x)
    torch.testing.assert_close(found["features"], expected)
    assert not found["features"].requires_grad
    assert [stage.shape for stage in found["stages"]] == [(23, 5), (23, 6)]
    torch.testing.assert_close(found["stages"][1], expected)
    assert found["tokens"].shape == (23, 3, 6)
    assert found["tokens"][:, 2].isnan().all() and found["tokens"][:, :2].isfinite().all()


def test_extract_under_autocast_returns_float32(setup):
    encoder, _, x_of = setup
    plain = extract(encoder, x_of, 23, device="cpu")["features"]
    half = extract(encoder, x_of, 23, device="cpu", autocast_dtype=torch.bfloat16)["features"]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, atol=0.05, rtol=0.05)
    assert not torch.equal(half, plain)


def test_raw_fills_missing_values_by_channel_or_column():
    x = torch.randn(10, 2, 3, 3)
    x[4, 1, 0, 2] = torch.nan
    filled = raw(lambda rows: x[rows], 10, fill=torch.tensor([5.0, 7.0]), batch=3)
    expected = x.clone()
    expected[4, 1, 0, 2] = 7.0
    assert torch.equal(filled, expected.flatten(1))
    table = torch.tensor([[1, torch.nan], [torch.nan, 4]])
    assert torch.equal(
        raw(lambda rows: table[rows], 2, fill=torch.tensor([8.0, 9.0])), torch.tensor([[1.0, 9], [8, 4]])
    )
    for nothing in (None, torch.tensor(())):
        assert raw(lambda rows: table[rows], 2, fill=nothing).isnan().sum() == 2


def test_raw_of_whole_numbers_is_float32():
    ids = torch.arange(6).view(2, 3)
    assert torch.equal(raw(lambda rows: ids[rows], 2, fill=torch.tensor(())), ids.float())


def test_health_of_a_rank_one_matrix():
    torch.manual_seed(0)
    found = health(torch.randn(200, 1) @ torch.randn(1, 32))
    assert found["effective_rank"] == pytest.approx(1, abs=1e-2)
    assert found["dead_units"] == 0


def test_health_of_an_isotropic_gaussian():
    torch.manual_seed(0)
    found = health(torch.randn(20000, 16) * 3)
    assert found["effective_rank"] == pytest.approx(16, abs=0.05)
    assert found["feature_std"] == pytest.approx(1, abs=0.02)
    assert found["dead_units"] == 0


def test_health_of_collapse_and_of_dead_units():
    constant = torch.full((50, 8), 0.1)
    assert health(constant) == {"effective_rank": 0, "feature_std": pytest.approx(0, abs=1e-9), "dead_units": 1}
    half = torch.randn(50, 8)
    half[:, ::2] = 0.1
    assert health(half)["dead_units"] == 0.5
    assert health(half)["effective_rank"] == pytest.approx(health(half[:, 1::2])["effective_rank"])


def test_effective_rank_is_the_entropy_of_singular_values():
    torch.manual_seed(0)
    for shape in ((100, 9), (9, 100)):
        features = torch.randn(*shape) * torch.logspace(0, -2, shape[1])
        s = torch.linalg.svdvals(features.double() - features.double().mean(0))
        share = (s / s.sum()).clamp_min(1e-300)
        expected = (-(share * share.log()).sum()).exp().item()
        assert health(features)["effective_rank"] == pytest.approx(expected, rel=1e-5)


def test_ordered_sorts_by_index_and_drops_the_unlabelled():
    split = Split(torch.arange(4.0).unsqueeze(1), torch.tensor([2, -1, 0, 1]), torch.tensor([9, 1, 5, 7]))
    found = ordered(split)
    assert found.index.tolist() == [5, 7, 9] and found.labels.tolist() == [0, 1, 2]
    assert found.features.squeeze(1).tolist() == [2, 3, 0]
    assert ordered(split, labelled=False).index.tolist() == [1, 5, 7, 9]
    assert ordered(split, torch.tensor([0, 1])).index.tolist() == [9]


def test_features_that_are_not_finite_are_refused():
    split = Split(torch.tensor([[torch.nan], [1.0]]), torch.tensor([0, 1]), torch.arange(2))
    with pytest.raises(UserError, match="NaN"):
        ordered(split)
