import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rounds import few_digits, go_through, start, table
from sklearn.datasets import load_digits
from sklearn.semi_supervised import LabelSpreading as Reference
from worlds import device, overrides, summary, train

from sslrun.contracts import UserError
from sslrun.encoders.identity import Identity
from sslrun.methods.unsupervised.label_propagation import LabelPropagation
from sslrun.methods.unsupervised.label_spreading import LabelSpreading

BOTH = pytest.mark.parametrize("kind", (LabelPropagation, LabelSpreading))
NAMES = pytest.mark.parametrize("name", ("label_propagation", "label_spreading"))


def solved(kind, x, y, classes=10, **settings):
    """The method after its one epoch on rows x (N, D) of labels y (N,), -1: hidden; and the encoder."""
    spec = table(x.shape[1], classes)
    objective = kind(Identity(spec), spec, **settings)
    encoder = start(objective, x, y)
    assert go_through(objective, encoder, x, passes=5) == 1
    return objective, encoder


def frozen_split(seed):
    """1,297 digits, one label of each class: rows, labels, and the truth."""
    bundle, draw = load_digits(), np.random.default_rng(1000 + seed)
    rows = draw.permutation(1797)[:1297]
    x, truth = torch.from_numpy(bundle.data[rows] / 16).float(), torch.from_numpy(bundle.target[rows]).long()
    shown = np.concatenate([draw.permutation(np.flatnonzero(truth == c))[:1] for c in range(10)])
    y = torch.full_like(truth, -1)
    y[shown] = truth[shown]
    return x, y, truth


def accuracy(objective, truth):
    index, p = objective.transductive()
    return (p.argmax(1) == truth[index]).double().mean().item()


def test_ten_labels_reach_the_bar_and_pass_scikit_learns_by_eight_points():
    ours, theirs = [], []
    for seed in range(5):
        x, y, truth = frozen_split(seed)
        ours.append(accuracy(solved(LabelSpreading, x, y)[0], truth))
        other = Reference(kernel="knn", n_neighbors=7, alpha=0.2, max_iter=10_000, tol=1e-8).fit(x, y)
        theirs.append((other.transduction_ == truth.numpy())[y < 0].mean())
    assert np.mean(ours) >= 0.86 and np.mean(np.subtract(ours, theirs)) >= 0.08, (ours, theirs)


@BOTH
def test_labels_of_rows_and_of_others(kind):
    x, y, truth = few_digits(3, 900)
    objective, encoder = solved(kind, x[:700], y[:700])
    assert accuracy(objective, truth) > 0.9
    index, p = objective.transductive()
    assert (y[index] < 0).all() and len(index) == int((y[:700] < 0).sum())
    torch.testing.assert_close(p.sum(1), torch.ones(len(p), dtype=torch.float64))
    others = objective.predict(encoder, x[700:])
    assert others.dtype == torch.float32 and (others.argmax(1) == truth[700:]).float().mean() > 0.75  # by other writers
    same = objective.predict(encoder, x[:1].repeat(2, 1))
    nearby = torch.cdist(x[:1], x[:700])[0].square().double().sort()
    weight = (-nearby.values[:7] / objective.scale).softmax(0)
    torch.testing.assert_close(same[0].double(), weight @ objective.solved[nearby.indices[:7]], rtol=1e-4, atol=1e-5)
    told = objective.facts()
    assert told["iterations"] > 10 and float(told["residual"]) <= 1e-10 and not objective.remarks()


def test_clamped_labels_stay_and_spread_ones_may_yield():
    x, y, truth = few_digits(3)
    wrong = int((y >= 0).nonzero()[0])
    y[wrong] = (truth[wrong] + 1) % 10
    stays, _ = solved(LabelPropagation, x, y)
    assert (stays.solved[y >= 0].argmax(1) == y[y >= 0]).all() and stays.solved[wrong].max() == 1
    yields, _ = solved(LabelSpreading, x, y, alpha=0.9999)
    assert yields.solved[wrong].argmax() == truth[wrong]


@BOTH
def test_class_masses_follow_the_prior(kind):
    """Two groups that touch, of 300 rows and of 100, with one label each."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(400, 2, generator=draw) + 2.2 * (torch.arange(400) < 100).unsqueeze(1)
    y = torch.full((400,), -1)
    y[0], y[399] = 1, 0
    for prior, shares in (("labelled", [0.5, 0.5]), ([3, 1], [0.75, 0.25])):
        objective, _ = solved(kind, x, y, 2, prior=prior)
        plain = solved(kind, x, y, 2, prior=None)[0].solved
        balanced = plain * torch.tensor(shares) / plain[y < 0].sum(0)
        torch.testing.assert_close(objective.solved, balanced / balanced.sum(1, keepdim=True))


@BOTH
def test_what_no_label_reaches_is_unknown_and_said(kind):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(90, 2, generator=draw) + 1000 * (torch.arange(90) // 30).unsqueeze(1)
    y = torch.full((90,), -1)
    y[0], y[30] = 0, 1
    objective, encoder = solved(kind, x, y, 3, k=4)
    assert not objective.solved[60:].any() and (objective.solved[:60].argmax(1) == torch.arange(60) // 30).all()
    assert not objective.predict(encoder, x[60:]).any()
    assert objective.predict(encoder, x[:60]).argmax(1).tolist() == [0] * 30 + [1] * 30
    notes = " ".join(objective.remarks())
    assert "no label reaches 30 of 90 training samples (the graph falls into 3 parts)" in notes
    assert "no label of class 2 was shown" in notes
    assert [row["label"] for row in objective.audit()][-30:] == [""] * 30


def test_constant_columns_and_equal_rows_do_no_harm():
    x, y, truth = few_digits(3)
    plain = solved(LabelSpreading, x, y)[0]
    wider = torch.cat([x, torch.full((len(x), 3), 7.0)], 1)
    torch.testing.assert_close(solved(LabelSpreading, wider, y)[0].solved, plain.solved)
    twice, twice_y = torch.cat([x, x]), torch.cat([y, torch.full_like(y, -1)])
    assert accuracy(solved(LabelSpreading, twice, twice_y)[0], truth.repeat(2)) > 0.9


def test_features_that_cannot_be_compared_are_refused(command):
    x, y, _ = few_digits(3)
    x[5, 3], x[9, 0] = torch.inf, torch.nan
    spec = table(64, 10)
    objective = LabelSpreading(Identity(spec), spec)
    start(objective, x, y)
    objective.features = x
    with pytest.raises(UserError, match="features of 2 of 400 training samples hold NaN or infinity.*index 5"):
        objective.round()
    with pytest.raises(UserError, match="k=400 neighbours need more than 400 training samples.*use k=399 or less"):
        solved(LabelSpreading, x, y, k=400)
    with pytest.raises(UserError, match="the labels shown are of class 'class 3' alone"):
        solved(LabelSpreading, x, torch.where(y == 3, 3, -1))


@NAMES
def test_two_words_print_a_table_and_predict(name, command):
    said = command(f"method={name}", "labels=40", "device.threads=1", "eval=[]", "logger=none")
    assert said.status == 0 and "classify transductive" in said.out and "note:" not in said.out
    (run,) = Path("outputs").glob("*/*/*")
    metrics = json.loads((run / "metrics.json").read_text())
    found, told = metrics["results"]["model"], metrics["fit"][name]
    assert found["classify/accuracy"] > 0.9 and found["classify/transductive_accuracy"] > 0.9
    assert told["rows"] == 1295 and told["iterations"] > 0 and told["unreached"] == 0
    with open(run / f"audit_{name}.csv", newline="") as f:
        assert len(list(csv.DictReader(f))) == 1295 - 40
    assert command("predict", run).status == 0
    with open(run / "predictions_all.csv", newline="") as f, open(run / "predictions.csv", newline="") as g:
        again = {row["index"]: row["label"] for row in csv.DictReader(f)}
        assert all(again[row["index"]] == row["label"] for row in csv.DictReader(g))


@NAMES
def test_processes_share_the_search_and_agree(name, worlds, pair):
    arguments = overrides(name, worlds["image"]["digits"])
    one, two = summary(arguments, 1), pair(summary, arguments, 2)
    key = f"objectives.{name}.solved"
    for rank in two:
        np.testing.assert_allclose(rank["state"][key], one["state"][key], rtol=1e-9, atol=1e-9)
    assert (one["state"][key].sum(1) > 0.999).all()


def test_a_run_cut_short_says_that_nothing_was_solved(worlds):
    done = train(overrides("label_spreading", worlds["image"]["digits"]), device(), steps=2)
    objective = done.learner.objectives["label_spreading"]
    assert "nothing was solved" in " ".join(objective.remarks()) and not objective.solved.any()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("k=0", "k=0 must be 1 or more, for example 7"),
        ("alpha=1", "alpha=1.* must lie between 0 and 1"),
        ("tol=0", "tol=0.* must be above 0"),
        ("prior=even", "prior=even is unknown; use labelled, null, or a list"),
        ("prior=[0.5,0.5]", "prior=.0.5, 0.5. must be 10 shares above 0, one for each class of data=digits"),
        ("k=1300", "k=1300 neighbours need more than 1300 training samples, and there are 1295; use k=1294"),
    ],
)
def test_settings_that_cannot_work_are_refused(command, setting, words):
    said = command("method=label_spreading", "labels=40", f"method.label_spreading.{setting}", "logger=none")
    assert said.status and re.search(words, said.err) and said.err.count("\n") <= 2, said.err
