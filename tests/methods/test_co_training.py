import pytest
import torch
from rounds import few_digits, go_through, start, table

from sslrun.contracts import DataSpec
from sslrun.encoders.identity import Identity
from sslrun.methods.semi.co_training import CoTraining


def made(columns=2, classes=2, **settings):
    spec = table(columns, classes)
    return CoTraining(Identity(spec), spec, **settings)


def two_views(seed, rows=1000, each=10):
    """Columns that are independent given the class, the first half and the second half alike."""
    draw = torch.Generator().manual_seed(seed)
    truth = torch.arange(rows) % 2
    centre = torch.tensor([[-1.0], [1.0]])[truth]
    x = 0.75 * centre + torch.randn(rows, 2 * each, generator=draw) * 1.5
    return x, torch.where(torch.arange(rows) < 6, truth, -1), truth


def test_independent_views_teach_each_other():
    gains = []
    for seed in range(5):
        x, y, truth = two_views(seed)
        objective = made(20, pool=75, per_round=3)
        encoder = start(objective, x, y)
        go_through(objective, encoder, x, passes=1)
        before = (objective.predict(encoder, x).argmax(1) == truth).float().mean().item()
        go_through(objective, encoder, x, passes=200)
        assert objective.converged() and (objective.given < 0).sum() < 20  # what they never agree on
        gains.append((objective.predict(encoder, x).argmax(1) == truth).float().mean().item() - before)
    assert min(gains) > 0 and sum(gains) / 5 > 0.03, gains


def test_more_data_take_no_more_rounds():
    x, y, _ = two_views(0, rows=4000)
    objective = made(20)
    encoder = start(objective, x, y)
    assert (objective.per_round, objective.pool) == (17, 238)  # 3,994 rows / (2 views * 2 classes * 60 rounds); 7 * 34
    assert go_through(objective, encoder, x, passes=300, size=1000) < 120
    few = made(20, pool=20)
    start(few, x, y)
    assert (few.per_round, few.pool) == (10, 20)


def test_what_the_views_agree_on_and_what_not():
    """Rows: both say 0; the first says 0, the second 1; the first alone is sure; nobody is sure."""
    objective = made(per_round=1, pool=4)
    objective.rounds.fill_(1)
    first = torch.tensor([0.90, 0.95, 0.02, 0.55])  # of class 0
    second = torch.tensor([0.80, 0.01, 0.40, 0.45])
    p = torch.stack([torch.stack([v, 1 - v], 1) for v in (first, second)])
    rows, labels, confidence = objective.agreed(p)
    # quotas of one for each class and view: first takes row 1 as 0 and row 2 as 1, second row 0 as 0 and row 1 as 1
    assert rows.tolist() == [0, 2] and labels.tolist() == [0, 1]
    torch.testing.assert_close(confidence, torch.tensor([0.80, 0.98]))


def test_a_row_that_both_choose_counts_once():
    objective = made(per_round=1, pool=4)
    objective.rounds.fill_(1)
    v = torch.tensor([0.9, 0.1])
    p = torch.stack([v, 1 - v], 1).expand(2, -1, -1)
    rows, labels, _ = objective.agreed(p)
    assert rows.tolist() == [0, 1] and labels.tolist() == [0, 1]


def test_quotas_follow_the_prior():
    objective = made(per_round=2, pool=10, prior=[0.25, 0.75])
    objective.rounds.fill_(1)
    v = torch.tensor([0.99, 0.98, 0.97, 0.05, 0.04, 0.03, 0.02])
    rows, labels, _ = objective.agreed(torch.stack([v, 1 - v], 1).expand(2, -1, -1))
    assert rows.tolist() == [0, 4, 5, 6] and labels.tolist() == [0, 1, 1, 1]


def test_the_prediction_is_the_product_of_the_posteriors():
    x, y, _ = two_views(0)
    objective = made(20)
    encoder = start(objective, x, y)
    go_through(objective, encoder, x, passes=1)
    a, b = objective.posteriors(objective.scaled(x)).exp()
    torch.testing.assert_close(objective.predict(encoder, x).double(), a * b / (a * b).sum(1, keepdim=True))
    assert not objective.weight[0, :, 10:].any() and not objective.weight[1, :, :10].any()
    assert objective.weight[0].any() and objective.weight[1].any()


def test_views_of_pictures_are_their_upper_and_lower_rows():
    spec = DataSpec("pictures", "image", (2, 3, 4), 2, ("a", "b"), mean=(0.0,) * 2, std=(1.0,) * 2)
    halves = {}
    for views in ("halves", "alternate", "random"):
        objective = CoTraining(Identity(spec), spec, views=views)
        start(objective, torch.rand(8, 24), torch.arange(8) % 2)
        halves[views] = objective.first.view(2, 3, 4)
    assert halves["halves"][:, :2].all() and not halves["halves"][:, 2].any()
    assert halves["alternate"][..., ::2].all() and not halves["alternate"][..., 1::2].any()
    assert halves["random"].sum() == 12 and not torch.equal(halves["random"], halves["alternate"])


def test_only_the_pool_is_looked_at():
    x, y, _ = few_digits(4)
    objective = made(64, 10, pool=20)
    encoder = start(objective, x, y)
    go_through(objective, encoder, x, passes=1)
    free = objective.order[(y < 0)[objective.order]]
    assert set((objective.since == 1).nonzero().squeeze(1).tolist()) <= set(free[:20].tolist())
    go_through(objective, encoder, x, passes=500)
    assert objective.converged() and (objective.given[y >= 0] == y[y >= 0]).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"views": "thirds"}, "views=thirds is unknown; choose from halves"),
        ({"per_round": 0}, "per_round=0 must be 1 or more"),
        ({"per_round": 4, "pool": 7}, "pool=7 is below per_round=4 times 2 classes; use pool=8 or more"),
        ({"strength": -1}, "strength=-1 must be above 0"),
        ({"columns": 1}, "two views need at least 2 features"),
        ({"prior": [1.0]}, "must be 2 shares above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        made(**settings)
