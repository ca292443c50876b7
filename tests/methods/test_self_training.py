import csv
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rounds import few_digits, go_through, start, table
from sklearn.linear_model import LogisticRegression
from sklearn.semi_supervised import SelfTrainingClassifier

from sslrun.encoders.identity import Identity
from sslrun.methods.semi.self_training import SelfTraining


def made(columns=2, classes=2, **settings):
    spec = table(columns, classes)
    return SelfTraining(Identity(spec), spec, **settings)


def test_threshold_rule_is_scikit_learns():
    x, y, _ = few_digits(5)
    ours = made(64, 10, rule="threshold", threshold=0.75)
    encoder = start(ours, x, y)
    go_through(ours, encoder, x)
    z = ours.scaled(x).numpy()
    reference = SelfTrainingClassifier(LogisticRegression(C=1, tol=1e-8, max_iter=5000), max_iter=None).fit(z, y)
    assert int(ours.revoked.sum()) == 0 and reference.termination_condition_ == "no_change"
    assert (reference.labeled_iter_ > 0).sum() > 100
    labelled = reference.labeled_iter_ >= 0
    assert (ours.given.numpy() == np.where(labelled, reference.transduction_, -1)).all()
    assert (ours.since.numpy()[labelled] == reference.labeled_iter_[labelled]).all()
    np.testing.assert_allclose(
        ours.predict(encoder, x), reference.predict_proba(z), atol=5e-3
    )  # rounds are solved to 1e-5


@pytest.mark.parametrize(
    ("rule", "expected"), [("quota", [3, 4, 5, 0]), ("top_k", [5, 4, 3, 2]), ("threshold", [5, 4, 3, 2, 1, 0])]
)
def test_rules_choose_what_they_say(rule, expected):
    objective = made(rule=rule, per_round=2, threshold=0.55, prior=[0.25, 0.75])
    objective.rounds.fill_(1)
    confidence = torch.tensor([0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.5])
    guess = torch.tensor([0, 1, 1, 1, 1, 1, 0])
    free = torch.ones(7, dtype=torch.bool)
    assert set(objective.choose(confidence, guess, free).tolist()) == set(expected)


def test_quotas_add_up_to_the_prior():
    objective, taken = made(prior=[0.97, 0.03]), []
    for r in range(1, 101):
        objective.rounds.fill_(r)
        taken.append(objective.quotas(2, torch.tensor([0, 1])))
    assert torch.tensor(taken).sum(0).tolist() == [194, 6] and max(map(sum, taken)) <= 3
    objective.rounds.fill_(1)
    assert objective.quotas(2, torch.tensor([0])) == [2, 0] and objective.quotas(2, torch.tensor([1])) == [2, 1]
    even = made(classes=10)
    even.rounds.fill_(7)
    assert even.quotas(50, torch.arange(10)) == [5] * 10


def test_quotas_are_skewed_where_the_data_are_though_labels_are_balanced():
    """19 of 20 rows are of one class; so are the rows of each round, from four labels of either class."""
    draw = np.random.default_rng(0)
    truth = torch.from_numpy((np.arange(400) % 20 == 0).astype(int))
    x = torch.from_numpy(draw.normal(size=(400, 2))).float() + 4 * truth.unsqueeze(1)
    y = torch.full((400,), -1)
    for c in (0, 1):
        y[(truth == c).nonzero().squeeze(1)[:4]] = c
    objective = made(per_round=10)
    encoder = start(objective, x, y)
    go_through(objective, encoder, x, passes=1)
    assert objective.prior.tolist() == pytest.approx([0.95, 0.05], abs=0.08)
    taken = [int(((objective.since == 1) & (objective.given == c)).sum()) for c in (0, 1)]
    assert taken == objective.quotas(20, truth) and taken[0] >= 17
    go_through(objective, encoder, x)
    assert (objective.given == truth).float().mean() > 0.99


def test_a_label_that_the_next_fit_denies_is_revoked():
    x, y, _ = few_digits(5)
    objective = made(64, 10)
    encoder = start(objective, x, y)
    go_through(objective, encoder, x, passes=1)
    free = int((objective.given < 0).nonzero()[0])
    wrong = (int(objective.predict(encoder, x[free : free + 1]).argmax()) + 1) % 10
    objective.strength = 1e-3  # too stiff to learn a wrong label by heart
    objective.accept(torch.tensor([free]), torch.tensor([wrong]), torch.tensor([0.9], dtype=torch.float64))
    objective.after_epoch(encoder)
    assert objective.revoked[free] == 1 and objective.given[free] != wrong
    assert (objective.given[y >= 0] == y[y >= 0]).all() and (objective.revoked[y >= 0] == 0).all()


def test_labelled_rows_are_never_accepted_again():
    x, y, _ = few_digits(5)
    objective = made(64, 10, per_round=50)
    encoder = start(objective, x, y)
    rounds = go_through(objective, encoder, x)
    assert rounds < 100 and objective.converged()
    assert (objective.since[y >= 0] == 0).all() and (objective.given[y >= 0] == y[y >= 0]).all()
    assert len(objective.audit()) == int((y < 0).sum())


def test_two_words_print_a_table_and_leave_an_audit(command):
    said = command("method=self_training", "labels=40", "method.self_training.per_round=40", "device.threads=1",
                   "eval.budgets=[]", "logger=none")  # fmt: skip
    assert said.status == 0 and "\nraw " in said.out and "\nmodel " in said.out
    (path,) = Path("outputs").rglob("audit_self_training.csv")
    with open(path, newline="") as f:
        rows = list(csv.DictReader(f))
    assert rows[0].keys() == {"index", "label", "round", "confidence", "revoked"}
    given = [row for row in rows if row["label"]]
    assert len(rows) == 1295 - 40 and len(given) > 1000
    assert all(int(row["round"]) >= 1 and 0.1 <= float(row["confidence"]) <= 1 for row in given)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("rule=best", "rule=best is unknown; choose from quota, threshold, top_k"),
        ("per_round=0", "per_round=0 must be 1 or more"),
        ("threshold=1", "threshold=1.* must lie in"),
        ("strength=0", "strength=0.* must be above 0"),
        ("prior=[0.5,0.5]", "prior=.0.5, 0.5. must be 10 shares above 0, one for each class of data=digits"),
    ],
)
def test_settings_that_cannot_work_are_refused(command, setting, words):
    said = command("method=self_training", "labels=40", f"method.self_training.{setting}")
    assert said.status and re.search(words, said.err) and said.err.count("\n") <= 2, said.err
