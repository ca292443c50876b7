import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor

from sslrun.contracts import DataSpec, Split, UserError
from sslrun.evaluate.anomaly import anomaly, isolation_forest, local_outlier_factor

SPEC = DataSpec("rows", "table", (2,), 3, ("a", "b", "c"), normal=(1,))
LEAN = ("eval=[anomaly]", "logger=none", "device.threads=1", "reference=null")


def split(labels, **scores):
    scores = {name: torch.as_tensor(values).double() for name, values in scores.items()}
    return Split(None, torch.as_tensor(labels), torch.arange(len(labels)), scores=scores)


def test_numbers_are_scikit_learns_and_nothing_turns_the_score():
    draw = np.random.default_rng(0)
    labels = draw.integers(-1, 3, 300)
    score = np.round(draw.normal(size=300) + (labels != 1), 1)  # with ties
    found = anomaly(None, None, split(labels, own=score), SPEC, resamples=200)
    known, odd = labels >= 0, labels != 1
    assert found["auroc"] == pytest.approx(roc_auc_score(odd[known], score[known]))
    assert found["average_precision"] == pytest.approx(average_precision_score(odd[known], score[known]))
    assert found["auroc_low"] < found["auroc"] < found["auroc_high"]
    assert found["protocol"][""]["share"] == pytest.approx(odd[known].mean(), abs=1e-4)
    turned = anomaly(None, None, split(labels, own=-score), SPEC, resamples=200)
    assert turned["auroc"] == pytest.approx(1 - found["auroc"])
    several = anomaly(None, None, split(labels, norm=-score, distance=score), SPEC, resamples=200)
    assert several["auroc"] == found["auroc"] and several["protocol"][""]["score"] == "distance"


def test_nothing_to_tell_apart_and_bad_scores():
    assert anomaly(None, None, split([1, 1, -1], own=[1.0, 2, 3]), SPEC) == {}
    with pytest.raises(UserError, match="own of 1 of 3 test samples is NaN"):
        anomaly(None, None, split([1, 0, 2], own=[1.0, np.nan, 3]), SPEC)


def test_detectors_are_scikit_learns():
    x, y = load_digits(return_X_y=True)
    train, asked = torch.tensor(x[y == 3][:100]), torch.tensor(x[:200])
    forest = IsolationForest(random_state=4).fit(train.numpy())
    np.testing.assert_allclose(isolation_forest(train, asked, 4), -forest.score_samples(asked.numpy()))
    factor = LocalOutlierFactor(20, novelty=True).fit(train.numpy())
    np.testing.assert_allclose(local_outlier_factor(train, asked, 0), -factor.score_samples(asked.numpy()))
    assert local_outlier_factor(train[:5], asked, 0).isfinite().all()  # fewer rows than neighbours


def test_a_method_stands_beside_the_detectors(command):
    said = command("method=kmeans", "data.normal_class=8", "epochs=20", *LEAN)
    assert said.status == 0, said.err
    assert all(row in said.out for row in ("isolation_forest", "lof ", "raw ", "model ", "distance to the mean"))
    metrics = json.loads(next(Path("outputs").rglob("metrics.json")).read_text())
    results = metrics["results"]
    assert metrics["primary"] == "anomaly/auroc"
    assert results["model"]["anomaly/auroc"] > 0.85 and results["lof"]["anomaly/auroc"] > 0.85
    assert results["isolation_forest"].keys() >= {"anomaly/auroc", "anomaly/average_precision"}
    assert metrics["protocol"]["anomaly"]["selected_on"] == "nothing"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("method=kmeans",), "no class set apart; name one by data.normal_class=CLASS"),
        (("method=simclr", "data.normal_class=0"), "method=simclr gives samples no score"),
    ],
)
def test_what_cannot_be_asked_is_refused(overrides, words, command):
    said = command(*overrides, *LEAN)
    assert said.status and words in said.err and said.err.count("\n") <= 2, said.err
