import time

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate.linear import linear
from sslrun.nn.folds import stratified
from sslrun.nn.regression import Regression

SPEC = DataSpec("digits", "image", (1, 8, 8), 10)


def parts(load=load_digits, budgets=(10, 40), order=None):
    x, y = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = torch.tensor(x[order]).float(), torch.tensor(y[order])
    index = torch.tensor(order)
    train, val, test = (Split(x[s], y[s], index[s]) for s in (slice(0, 300), slice(300, 400), slice(400, 569)))
    train.budgets = {n: first_rows(train.labels, n) for n in budgets}
    return train, val, test


def first_rows(labels, n):
    each = n // len(labels.unique())
    return torch.cat([(labels == c).nonzero().squeeze(1)[:each] for c in labels.unique()])


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 10.0])
def test_coefficients_are_those_of_scikit_learn(load, strength):
    x, y = load(return_X_y=True)
    x = x.astype(np.float32).astype(np.float64)  # the values that the probe sees
    scaler = StandardScaler().fit(x)
    reference = LogisticRegression(C=strength, tol=1e-10, max_iter=50000).fit(scaler.transform(x), y)
    probe = Regression(torch.tensor(x).float(), torch.tensor(y)).solve(strength, 1e-8)
    coefficients = probe.weight.numpy() * scaler.scale_
    if len(reference.coef_) == 1:  # one row for two classes
        assert not coefficients[0].any()
        coefficients = coefficients[1:]
    assert np.abs(coefficients - reference.coef_).max() < 1e-3
    expected = reference.decision_function(scaler.transform(x))
    found = probe.logits(torch.tensor(x).float(), len(probe.classes)).numpy()
    found = found[:, 1] if expected.ndim == 1 else found - found.mean(1, keepdims=True)
    expected = expected if expected.ndim == 1 else expected - expected.mean(1, keepdims=True)
    assert np.abs(found - expected).max() < 0.02


def test_more_dimensions_than_rows():
    torch.manual_seed(0)
    x, y = torch.randn(30, 100), torch.randint(3, (30,))
    scaler = StandardScaler().fit(x.double())
    reference = LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(scaler.transform(x.double()), y)
    probe = Regression(x, y).solve(1.0, 1e-8)
    assert np.abs(probe.weight.numpy() * scaler.scale_ - reference.coef_).max() < 1e-4


def test_a_path_of_strengths_ends_where_a_fresh_start_does():
    train, _, _ = parts()
    path = Regression(train.features, train.labels)
    for strength in (1e-4, 1e-2, 1.0):
        warm = path.solve(strength, 1e-8)
    fresh = Regression(train.features, train.labels).solve(1.0, 1e-8)
    torch.testing.assert_close(warm.weight, fresh.weight, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("load, classes", [(load_digits, 10), (load_breast_cancer, 2)])
def test_accuracy_and_choice_are_those_of_scikit_learn(load, classes):
    train, val, test = parts(load)
    found = linear(train, val, test, DataSpec("x", "table", (1,), classes))
    chosen = found["protocol"][""]["C"]
    assert found["protocol"][""]["selected_on"] == "val" and found["protocol"][""]["rows"] == 300
    scaler = StandardScaler().fit(train.features)
    best = {}
    for strength in 10.0 ** np.arange(-4, 4):
        reference = LogisticRegression(C=strength, max_iter=10000).fit(scaler.transform(train.features), train.labels)
        best[strength] = reference.score(scaler.transform(val.features), val.labels)
        if strength == pytest.approx(chosen):
            expected, reached = reference.score(scaler.transform(test.features), test.labels), best[strength]
    assert found["accuracy"] == pytest.approx(expected, abs=0.007)
    assert reached >= max(best.values()) - 0.011
    assert {"@10/accuracy", "@40/accuracy", "@40/balanced_accuracy", "@40/macro_f1"} <= found.keys()
    assert found["@10/accuracy"] < found["accuracy"]


def test_budgets_never_read_validation_and_nothing_is_chosen_on_test():
    train, val, test = parts()
    found = linear(train, val, test, SPEC)
    noise = torch.Generator().manual_seed(0)
    wrong = Split(val.features, val.labels[torch.randperm(100, generator=noise)], val.index)
    other = linear(train, wrong, test, SPEC)
    budgets = [key for key in found if key.startswith("@")]
    assert len(budgets) == 6 and all(found[key] == other[key] for key in budgets)
    assert all(found["protocol"][key] == other["protocol"][key] for key in ("@10", "@40"))
    assert found["protocol"][""] != other["protocol"][""]  # the corruption did reach what may read validation
    blind = Split(test.features, test.labels[torch.randperm(len(test.labels), generator=noise)], test.index)
    assert linear(train, val, blind, SPEC)["protocol"] == found["protocol"]


def test_labels_outside_a_budget_do_not_reach_it():
    train, val, test = parts()
    found = linear(train, val, test, SPEC)
    outside = torch.ones(300, dtype=torch.bool)
    outside[train.budgets[40]] = False
    labels = train.labels.clone()
    labels[outside] = (labels[outside] + 3) % 10
    features = train.features.clone()
    features[outside] += 5
    other = linear(Split(features, labels, train.index, train.budgets), val, test, SPEC)
    assert other["@40/accuracy"] == found["@40/accuracy"] and other["protocol"]["@40"] == found["protocol"]["@40"]
    assert other["accuracy"] != found["accuracy"]


def test_one_label_per_class_leaves_nothing_to_choose_by():
    train, val, test = parts()
    protocol = linear(train, val, test, SPEC)["protocol"]
    assert protocol["@10"]["C"] == 1 and "single label" in protocol["@10"]["selected_on"]
    assert protocol["@40"]["selected_on"].startswith("cross-validation")


def test_without_validation_all_labels_choose_by_cross_validation():
    train, val, test = parts()
    unlabelled = Split(val.features, torch.full_like(val.labels, -1), val.index)
    found, other = linear(train, None, test, SPEC), linear(train, unlabelled, test, SPEC)
    assert found == other and found["protocol"][""]["selected_on"].startswith("cross-validation")


def test_the_order_of_rows_changes_nothing():
    train, val, test = parts()
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    back = order.argsort()
    budgets = {n: back[rows] for n, rows in train.budgets.items()}
    shuffled = Split(train.features[order], train.labels[order], train.index[order], budgets)
    assert linear(shuffled, val, test, SPEC) == linear(train, val, test, SPEC)


def test_missing_classes_and_a_single_class():
    train, val, test = parts(budgets=())
    train.labels[train.labels == 3] = -1
    train.budgets = {20: (train.labels <= 4).nonzero().squeeze(1)[:20], 5: (train.labels == 7).nonzero().squeeze(1)[:5]}
    found = linear(train, val, test, SPEC)
    assert 0.8 < found["accuracy"] <= (test.labels != 3).float().mean()
    assert found["@20/accuracy"] < 0.5
    assert found["@5/accuracy"] == pytest.approx((test.labels == 7).float().mean().item())
    test.labels[test.labels == 5] = -1
    assert np.isfinite(linear(train, val, test, SPEC)["macro_f1"])


def test_constant_columns_and_collapsed_features_are_harmless():
    train, val, test = parts()
    for split in (train, val, test):
        split.features = torch.cat([split.features, torch.full((len(split.labels), 1), 0.1)], 1)
    test.features[:, -1] = 1e6
    assert linear(train, val, test, SPEC)["accuracy"] > 0.9
    for split in (train, val, test):
        split.features = torch.full_like(split.features, 0.1)
    assert 0 < linear(train, val, test, SPEC)["accuracy"] < 0.2


def test_without_labels_there_is_nothing_to_score():
    train, val, test = parts()
    assert linear(train, val, test, DataSpec("x", "table", (1,), 0)) == {}
    train.labels[:] = -1
    assert linear(train, val, test, SPEC) == {}


def test_folds_are_even_and_stratified():
    labels = torch.arange(10).repeat_interleave(7)
    fold = stratified(labels, torch.arange(70), 5)
    assert fold.bincount().tolist() == [14] * 5
    assert all(fold[labels == c].bincount(minlength=5).min() >= 1 for c in range(10))


def test_large_data_in_float32_agrees_with_float64(monkeypatch):
    from sslrun.nn import regression as module

    train, _, test = parts()
    regression = Regression(train.features, train.labels)
    exact = regression.solve(0.1, 1e-7)
    monkeypatch.setattr(module, "SMALL", 0)
    rough = Regression(train.features, train.labels).solve(0.1, 1e-7)
    assert rough.weight.dtype == torch.float32
    assert ((rough.weight - exact.weight) * regression.std).abs().max() < 1e-3  # coefficients of standardised features
    same = rough.logits(test.features, 10).argmax(1) == exact.logits(test.features, 10).argmax(1)
    assert same.all()


def test_the_whole_grid_is_quick():
    torch.manual_seed(0)
    labels = torch.randint(10, (2000,))
    x = torch.randn(10, 128)[labels] * 0.3 + torch.randn(2000, 128) @ torch.randn(128, 128) * 0.1
    train, val, test = (
        Split(x[s], labels[s], torch.arange(2000)[s]) for s in (slice(1300), slice(1300, 1600), slice(1600, 2000))
    )
    start = time.process_time()
    linear(train, val, test, SPEC)
    assert time.process_time() - start < 5  # a second on an idle core
