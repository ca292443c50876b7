import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine

from sslrun.contracts import DataSpec, Field, Split
from sslrun.encoders.identity import Identity
from sslrun.evaluate.graph import graph
from sslrun.methods.unsupervised.label_spreading import LabelSpreading

SPEC = DataSpec("digits", "image", (1, 8, 8), 10, tuple("0123456789"), mean=(0.0,), std=(1.0,))


def digits(budget=40):
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x / 16).float(), torch.tensor(y)
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    rows = torch.cat([(y[order[:800]] == c).nonzero().squeeze(1)[: budget // 10] for c in range(10)])
    train = Split(x[order[:800]], y[order[:800]], order[:800], budgets={budget: rows})
    return train, Split(x[order[800:1100]], y[order[800:1100]], order[800:1100])


def test_is_the_method_on_the_same_rows_and_labels():
    train, test = digits()
    found = graph(train, None, test, SPEC, tol=1e-10)
    objective = LabelSpreading(Identity(SPEC), SPEC)
    by_index = train.index.argsort()
    objective.index, objective.features = train.index[by_index], train.features[by_index]
    shown = torch.full_like(train.labels, -1)
    shown[train.budgets[40]] = train.labels[train.budgets[40]]
    objective.y = shown[by_index]
    objective.solved = torch.zeros(800, 10, dtype=torch.float64)
    objective.round()
    index, p = objective.transductive()
    truth = torch.full((1797,), -1)
    truth[train.index] = train.labels
    assert found["@40/transductive_accuracy"] == pytest.approx((p.argmax(1) == truth[index]).double().mean().item())
    objective.done.fill_(True)
    guess = objective.predict(Identity(SPEC), test.features.view(-1, 1, 8, 8)).argmax(1)
    assert found["@40/accuracy"] == pytest.approx((guess == test.labels).double().mean().item())
    assert found["@40/accuracy"] > 0.85 and found["accuracy"] > 0.9 and "transductive_accuracy" not in found
    how = found["protocol"]["@40"]
    assert how["labels"] == 40 and how["rows"] == 800 and how["selected_on"] == "nothing"
    assert found["@40/unreached"] == 0 and "unreached" not in how  # it differs by seed: reports average it


def test_depends_on_no_order_and_reads_no_hidden_label():
    train, test = digits()
    found = graph(train, None, test, SPEC)
    turn = torch.randperm(800, generator=torch.Generator().manual_seed(1))
    place = turn.argsort()
    turned = Split(train.features[turn], train.labels[turn], train.index[turn], budgets={40: place[train.budgets[40]]})
    assert graph(turned, None, test, SPEC) == found
    false = torch.full_like(train.labels, 3)
    false[train.budgets[40]] = train.labels[train.budgets[40]]
    hidden = graph(Split(train.features, false, train.index, budgets=train.budgets), None, test, SPEC)
    assert hidden["@40/accuracy"] == found["@40/accuracy"] and hidden["accuracy"] != found["accuracy"]
    few = Split(test.features[:5], test.labels[:5], test.index[:5])  # what else is tested moves no prediction
    each = [Split(few.features[i : i + 1], few.labels[i : i + 1], few.index[i : i + 1]) for i in range(5)]
    alone = [graph(train, None, one, SPEC) for one in each]
    together = graph(train, None, few, SPEC)["@40/accuracy"]
    assert together == pytest.approx(np.mean([one["@40/accuracy"] for one in alone]))


def test_columns_of_tables_are_standardised():
    x, y = load_wine(return_X_y=True)
    x, y = torch.tensor(x).float(), torch.tensor(y)
    x = torch.cat([x, torch.full((178, 1), 5.0)], 1)  # one is constant
    spec = DataSpec("wine", "table", (14,), 3, tuple("abc"), fields=tuple(Field(str(i)) for i in range(14)))
    rows = torch.arange(178)
    train = Split(
        x[rows % 3 > 0], y[rows % 3 > 0], rows[rows % 3 > 0], budgets={6: torch.tensor([0, 1, 40, 41, 100, 101])}
    )
    test = Split(x[rows % 3 == 0], y[rows % 3 == 0], rows[rows % 3 == 0])
    assert (
        graph(train, None, test, spec)["@6/accuracy"]
        > 0.8
        > graph(train, None, test, spec, standardise=False)["@6/accuracy"]
        == graph(dataclasses.replace(train, isometric=True), None, test, spec)["@6/accuracy"]
    )


def test_few_rows_and_no_labels_are_no_trouble():
    train, test = digits()
    few = Split(train.features[:4], train.labels[:4], train.index[:4])
    assert graph(few, None, test, SPEC)["protocol"][""]["k"] == 3
    nothing = Split(train.features, torch.full_like(train.labels, -1), train.index, budgets={})
    assert graph(nothing, None, test, SPEC) == {}


def test_joins_the_other_evaluators(command):
    said = command("method=none", "eval=[knn,graph]", "encoder=identity", "eval.budgets=[10,100]", "logger=none",
                   "reference=null", "device.threads=1")  # fmt: skip
    assert said.status == 0 and "graph@10" in said.out, said.err
    (path,) = Path("outputs").rglob("metrics.json")
    metrics = json.loads(path.read_text())
    raw = metrics["results"]["raw"]
    assert raw["graph@100/accuracy"] > 0.9 > raw["graph@10/accuracy"] > 0.5 and "graph@10" in metrics["protocol"]
