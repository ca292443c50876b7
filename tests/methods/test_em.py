import numpy as np
import pytest
import torch
from rounds import few_digits, go_through, start, table
from sklearn.naive_bayes import GaussianNB, MultinomialNB

from sslrun.contracts import Batch, Stream
from sslrun.encoders.identity import Identity
from sslrun.methods.semi.em_gaussian import EmGaussian
from sslrun.methods.semi.em_naive_bayes import EmNaiveBayes

KINDS = (EmNaiveBayes, EmGaussian)


def made(kind, columns=64, classes=10, **settings):
    spec = table(columns, classes)
    return kind(Identity(spec), spec, **settings)


def test_without_unlabelled_rows_it_is_scikit_learns_multinomial():
    x, y, _ = few_digits(10)
    objective = made(EmNaiveBayes, grid=[0.0], counts=100)
    encoder = start(objective, x, y)
    go_through(objective, encoder, x)
    counts = objective.statistics(x.double())[:, 1:]
    assert counts.sum(1).mean() == pytest.approx(100) and counts.min() == 0
    reference = MultinomialNB().fit(counts[y >= 0], y[y >= 0])
    np.testing.assert_allclose(objective.predict(encoder, x), reference.predict_proba(counts), atol=1e-5)


def test_without_unlabelled_rows_it_is_scikit_learns_gaussian():
    x, y, _ = few_digits(10)
    x = x + 0.3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))  # every variance is above the floor
    objective = made(EmGaussian, grid=[0.0], shrinkage=1e-9)
    encoder = start(objective, x, y)
    go_through(objective, encoder, x)
    reference = GaussianNB(var_smoothing=0).fit(x[y >= 0].double(), y[y >= 0])
    np.testing.assert_allclose(objective.predict(encoder, x), reference.predict_proba(x.double()), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_objective_never_falls(kind):
    x, y, _ = few_digits(4)
    objective = made(kind, grid=[0.0, 0.1, 1.0])
    encoder = start(objective, x, y)
    seen = []
    for _ in range(200):
        go_through(objective, encoder, x, passes=1)
        seen.append(objective.objective.clone())
        if objective.converged():
            break
    seen = torch.stack(seen)  # (passes, folds + 1, lambdas)
    assert objective.converged() and len(seen) > 3
    assert ((seen[1:] - seen[:-1]) >= -1e-9 * seen[1:].abs()).all()
    assert ((seen[-1] - seen[0])[:, 1:] > 0).all() and torch.allclose(seen[-1, :, 0], seen[0, :, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_pass_is_the_sum_over_rows_by_hand(kind):
    """Two columns, two classes, one unlabelled row: responsibilities and sums written out."""
    x = torch.tensor([[0.0, 4.0], [4.0, 0.0], [1.0, 3.0]])
    objective = made(kind, 2, 2, grid=[0.5])
    encoder = start(objective, x, torch.tensor([0, 1, -1]))
    t, before = objective.statistics(x.double()), objective.theta[-1, 0].clone()
    go_through(objective, encoder, x, passes=1)
    share = (t[2] @ before.T).softmax(0)
    sums = torch.stack([t[0] + 0.5 * share[0] * t[2], t[1] + 0.5 * share[1] * t[2]])
    torch.testing.assert_close(objective.theta[-1, 0], objective.fit(sums)[0])
    joint = t @ before.T
    expected = joint[0, 0] + joint[1, 1] + 0.5 * joint[2].logsumexp(0) + objective.fit(objective.counted[-1, 0])[1]
    torch.testing.assert_close(objective.objective[-1, 0], expected)


def test_gaussian_parameters_are_a_maximum():
    """Gradient of log likelihood plus log prior, by the chain through mean, log variance and log shares, is zero."""
    x, y, _ = few_digits(6)
    objective = made(EmGaussian, shrinkage=3.0)
    start(objective, x, y)
    sums = objective.counted[-1, 0]

    def value(mean, log_variance):
        v = log_variance.exp()
        level = (objective.theta[-1, 0, :, 0] * 0) - 0.5 * (mean.square() / v + log_variance).sum(1)
        theta = torch.cat([level.unsqueeze(1), mean / v, -0.5 / v], 1)
        return (sums * theta).sum() - 1.5 * (log_variance + objective.variance / v).sum()

    theta = objective.fit(sums)[0]
    variance = -0.5 / theta[:, 65:]
    at = (theta[:, 1:65] * variance, variance.log())
    for gradient in torch.func.grad(value, (0, 1))(*at):
        assert gradient.abs().max() < 1e-8


@pytest.mark.parametrize("kind", KINDS)
def test_unlabelled_rows_help_where_classes_are_what_it_assumes(kind):
    draw = torch.Generator().manual_seed(0)
    truth = torch.arange(600) % 3
    centres = 3 + 0.8 * torch.randn(3, 20, generator=draw)
    x = (centres[truth] + 1.3 * torch.randn(600, 20, generator=draw)).clamp_min(0)
    y = torch.where(torch.arange(600) < 6, truth, -1)
    hits = {}
    for weight in (0.0, 1.0):
        objective = made(kind, 20, 3, grid=[weight])
        encoder = start(objective, x, y)
        go_through(objective, encoder, x)
        hits[weight] = (objective.predict(encoder, x).argmax(1) == truth).float().mean().item()
    assert hits[1.0] > 0.9 and hits[1.0] > hits[0.0] + 0.1, hits


def test_cross_validation_drops_unlabelled_rows_that_mislead():
    """Digits are no mixture of ten Gaussians: once labels suffice, unlabelled rows in full weight do harm."""
    x, y, truth = few_digits(15, rows=1200)
    right = {}
    for grid in ((0.0,), (1.0,), (0.0, 1.0)):
        objective = made(EmGaussian, grid=grid)
        encoder = start(objective, x, y)
        go_through(objective, encoder, x, size=600)
        right[grid] = (objective.predict(encoder, x).argmax(1) == truth).float().mean().item()
    assert right[0.0, 1.0] == right[(0.0,)] > right[(1.0,)] + 0.02, right


def test_every_lambda_is_judged_by_models_that_have_not_seen_the_label():
    x, y, _ = few_digits(4)
    objective = made(EmGaussian, grid=[0.0, 0.1, 1.0])
    start(objective, x, y)
    shown = y >= 0
    t, labels = objective.statistics(x[shown].double()), y[shown]
    assert objective.fold.bincount().tolist() == [10] * 4
    for f in range(5):  # four labels a class make four folds; the fifth model sees all, as the last one does
        kept = objective.fold != f
        for c in range(10):
            torch.testing.assert_close(objective.counted[f, 0, c], t[kept & (labels == c)].sum(0))
    good = objective.theta[:, 0].clone()
    for best in range(3):
        objective.theta[:] = -good.unsqueeze(1)
        objective.theta[:4, best] = good[:4]
        objective._choose()
        assert objective.chosen == best


def test_one_label_a_class_leaves_nothing_to_choose_by():
    x, y, _ = few_digits(1)
    objective = made(EmNaiveBayes)
    start(objective, x, y)
    assert objective.grid[objective.chosen] == 0.1


def test_labelled_rows_among_the_unlabelled_count_once():
    x, y, _ = few_digits(4)
    whole, apart = made(EmGaussian), made(EmGaussian)
    go_through(whole, start(whole, x, y), x, passes=2)
    encoder = start(apart, x, y)
    hidden = (y < 0).nonzero().squeeze(1)
    for _ in range(2):
        rows = Stream({"x": x[hidden], "index": hidden, "y": torch.full_like(hidden, -1)}, None)
        apart(encoder, Batch({"unlabelled": rows}))
        apart.after_epoch(encoder)
    torch.testing.assert_close(whole.theta, apart.theta)


def test_a_share_without_a_row_adds_nothing():
    """The last batch of a pass may leave a process none, or labelled rows alone."""
    x, y, _ = few_digits(4)
    objective = made(EmNaiveBayes)
    encoder = start(objective, x, y)
    for rows in (torch.arange(0), (y >= 0).nonzero().squeeze(1)):
        out = objective(encoder, Batch({"unlabelled": Stream({"x": x[rows], "index": rows}, None)}))
        assert out["loss"] == 0 and not objective.sums.any()


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (EmGaussian, {"grid": [2.0]}, "grid=.* must be weights from 0 to 1"),
        (EmGaussian, {"shrinkage": 0}, "shrinkage=0 must be above 0"),
        (EmNaiveBayes, {"counts": 0}, "counts=0 must be above 0"),
        (EmNaiveBayes, {"smoothing": 0}, "smoothing=0 must be above 0"),
        (EmNaiveBayes, {"classes": 0}, "at least 2 classes"),
    ],
)
def test_settings_that_cannot_work_are_refused(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        made(kind, **settings)
