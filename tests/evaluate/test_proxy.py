"""Scores learned without labels against labels: the area, its interval, and who decides which way a score points."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import sslrun
from sslrun.contracts import DataSpec, Split
from sslrun.data.module import Data
from sslrun.data.table import breast_cancer
from sslrun.errors import UserError
from sslrun.evaluate import proxy as module
from sslrun.evaluate.proxy import auroc, interval, naive, positives, proxy

TWO = DataSpec("rows", "table", (2,), 2, ("no", "yes"))
MANY = DataSpec("rows", "table", (2,), 3, ("a", "b", "c"))
LEAN = ["eval=[proxy]", "logger=none", "device.threads=1", "precision=fp32"]


@pytest.fixture(autouse=True)
def without_tsne(monkeypatch):
    """It takes longer than the rest of a tiny run, and has its own tests."""
    monkeypatch.setattr("sslrun.pictures.features", lambda *arguments: None)


def split(labels, **scores):
    scores = {name: torch.as_tensor(values).double() for name, values in scores.items()}
    return Split(None, torch.as_tensor(labels), torch.arange(len(labels)), scores=scores)


def noisy(labels, slope, seed):
    return slope * np.asarray(labels) + np.random.default_rng(seed).normal(size=len(labels))


# The area and its interval


@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_area_is_scikit_learns_with_and_without_ties(levels):
    draw = np.random.default_rng(levels)
    kind = draw.integers(-1, 2, 400)
    scores = draw.integers(0, levels, 400) + levels * 0.2 * kind.clip(0)
    known = kind >= 0
    expected = roc_auc_score(kind[known], scores[known])
    assert auroc(torch.tensor(scores), torch.tensor(kind)) == pytest.approx(expected, abs=1e-12)


def test_interval_is_that_of_resamples_within_each_class():
    labels = np.repeat([0, 1], [90, 30])
    scores = np.round(noisy(labels, 1.0, 0), 1)  # with ties
    draw, areas = np.random.default_rng(0), []
    ours, kind = torch.tensor(scores), torch.tensor(labels)
    for _ in range(1000):
        rows = np.concatenate([draw.choice(np.flatnonzero(labels == k), (labels == k).sum()) for k in (0, 1)])
        areas.append(auroc(ours[rows], kind[rows]))
    np.testing.assert_allclose(interval(ours, kind, 2000, seed=0), np.quantile(areas, [0.025, 0.975]), atol=0.015)


def test_interval_covers_the_true_area_about_as_often_as_it_says():
    """Two unit Gaussians one apart: the area is Phi(1 / sqrt 2)."""
    truth, hits = 0.5 * (1 + math.erf(0.5)), 0
    for seed in range(200):
        labels = np.repeat([0, 1], [60, 40])
        low, high = interval(torch.tensor(noisy(labels, 1.0, seed)), torch.tensor(labels), 300, seed)
        hits += low <= truth <= high
    assert 0.88 <= hits / 200 <= 0.99  # .95, less what a percentile interval of 100 rows loses, and three errors


def test_interval_depends_on_the_seed_alone(monkeypatch):
    labels = torch.tensor([0, 1] * 40)
    scores = torch.tensor(noisy(labels, 1.0, 1))
    shuffle = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    assert interval(scores, labels, 200, 0) == interval(scores[shuffle], labels[shuffle], 200, 0)
    assert interval(scores, labels, 200, 0) != interval(scores, labels, 200, 1)
    monkeypatch.setattr(module, "CELLS", 800)  # ten resamples at a time
    assert interval(scores, labels, 2000, 0) == pytest.approx(interval(scores, labels, 2000, 5), abs=0.02)


# What is decided on validation


def test_sign_is_fixed_on_validation_alone():
    labels = torch.tensor([0, 1] * 60)
    val, test = (split(labels, own=noisy(labels, -2, seed)) for seed in (0, 1))
    found = proxy(None, val, test, TWO)
    how = found["protocol"][""]
    assert how["sign"] == -1 and how["selected_on"] == "val" and how["val_auroc"] > 0.8
    assert found["auroc"] == pytest.approx(roc_auc_score(labels, -test.scores["own"]))
    assert found["auroc_low"] < found["auroc"] < found["auroc_high"]
    flipped = proxy(None, val, split(1 - labels, own=test.scores["own"]), TWO)
    assert flipped["protocol"] == found["protocol"], "the test part chose"
    assert flipped["auroc"] == pytest.approx(1 - found["auroc"])
    assert proxy(None, split(1 - labels, own=val.scores["own"]), test, TWO)["protocol"][""]["sign"] == 1


def test_best_of_several_is_chosen_on_validation():
    labels = torch.tensor([0, 1] * 60)
    good, bad = noisy(labels, -3, 0), noisy(labels, -0.5, 1)
    val, test = split(labels, first=bad, second=good), split(labels, first=good, second=bad)
    found = proxy(None, val, test, TWO)
    assert found["protocol"][""]["score"] == "second" and found["protocol"][""]["sign"] == -1
    assert found["auroc"] == found["second_auroc"] == pytest.approx(roc_auc_score(labels, -bad))
    assert found["first_auroc"] == pytest.approx(roc_auc_score(labels, -good)) and found["first_auroc"] > found["auroc"]
    assert set(found["protocol"][""]["scores"]) == {"first", "second"}


def test_which_rows_are_positive():
    labels = torch.tensor([0, 1, 2, -1])
    assert positives(labels.clamp(max=1), TWO).tolist() == [0, 1, 1, -1]
    assert positives(labels, MANY, "c").tolist() == positives(labels, MANY, 2).tolist() == [0, 0, 1, -1]
    assert positives(labels, MANY, ["a", 1]).tolist() == [1, 1, 0, -1]
    one_class = DataSpec("rows", "table", (2,), 3, ("a", "b", "c"), normal=(1,))
    assert positives(labels, one_class).tolist() == [1, 0, 1, -1]
    numbers = DataSpec("rows", "table", (2,), 3, ("3", "2", "1"))
    assert positives(labels, numbers, 1).tolist() == [0, 0, 1, -1], "a name goes before a number"


def test_nothing_is_said_where_a_kind_is_missing():
    labels = torch.tensor([0, 1] * 5)
    some, none = split(labels, own=torch.arange(10)), split(torch.zeros(10).long(), own=torch.arange(10))
    assert proxy(None, some, none, TWO) == {} and proxy(None, none, some, TWO) == {}


def test_scores_that_are_not_numbers_are_refused():
    labels = torch.tensor([0, 1] * 5)
    some, broken = split(labels, own=torch.arange(10)), split(labels, own=torch.full((10,), torch.nan))
    with pytest.raises(UserError, match="score own holds NaN"):
        proxy(None, some, broken, TWO)


# Naive scores


def test_first_component_beats_a_reconstruction_error_for_malignancy():
    """Roughly .95 against .64 on 30 % of the rows: without naive scores, an area of .7 would look like a success."""
    data = Data(breast_cancer(), seed=0, split_seed=0, test_fraction=0.3)
    train, test = (part.inputs(torch.arange(len(part))) for part in (data.train, data.open_test()))
    kind = positives(data.open_test().labels, data.spec, "malignant")
    found = {name: max(a, 1 - a) for name, s in naive(train, test, data.spec).items() for a in [auroc(s, kind)]}
    mean, std = torch.tensor(data.spec.mean), torch.tensor(data.spec.std)
    z = [((x - mean) / std).numpy() for x in (train, test)]
    five = PCA(5).fit(z[0])
    error = np.square(z[1] - five.inverse_transform(five.transform(z[1]))).sum(1)
    assert found["pc1"] > 0.92 and auroc(torch.tensor(error), kind) < 0.72
    by_hand = PCA(1).fit_transform(np.concatenate(z))[len(train) :, 0]
    assert found["pc1"] == pytest.approx(roc_auc_score(kind, by_hand * np.sign(by_hand @ kind.numpy())), abs=0.01)
    assert found["norm"] > found["distance"], "norm is no distance to the mean"


def test_naive_scores_do_not_depend_on_units():
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 1
    units = torch.tensor([1.0, 1000.0, 0.01])
    spec = [DataSpec("t", "table", (3,), 2, std=tuple(v.std(0, correction=0).tolist())) for v in (x, x * units)]
    for name, values in naive(x, x[:20], spec[0]).items():
        torch.testing.assert_close(naive(x * units, x[:20] * units, spec[1])[name], values, rtol=1e-4, atol=1e-4)
    z = x / x.std(0, correction=0)
    found = naive(x, x[:20], spec[0])
    torch.testing.assert_close(found["norm"], z[:20].norm(dim=1).double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found["distance"], (z[:20] - z.mean(0)).norm(dim=1).double(), rtol=1e-5, atol=1e-5)


def test_pictures_are_divided_by_channel():
    x = torch.rand(30, 2 * 4, generator=torch.Generator().manual_seed(0))  # two channels of 2 x 2
    spec = DataSpec("p", "image", (2, 2, 2), 2, std=(0.5, 4.0))
    scale = torch.tensor([0.5] * 4 + [4.0] * 4)
    torch.testing.assert_close(naive(x, x, spec)["norm"], (x / scale).norm(dim=1).double(), rtol=1e-6, atol=1e-6)


# Runs


def test_a_table_run_stands_beside_naive_scores(command, own_place):
    said = command("method=denoising_autoencoder", "data=breast_cancer", "steps=20", *LEAN, "hydra.run.dir=run")
    assert said.status == 0, said.err
    metrics = json.loads((own_place / "run/metrics.json").read_text())
    ends = {"proxy/auroc", "proxy/auroc_low", "proxy/auroc_high"}
    results = metrics["results"]
    assert ends <= results["model"].keys() and results["random"].keys() == ends
    assert results["raw"].keys() == ends | {f"proxy/{name}_auroc" for name in ("norm", "distance", "pc1")}
    assert metrics["primary"] == "proxy/auroc" and "supervised" not in results and "trained" not in results
    assert metrics["validation"]["metric"] == "validation/loss"
    how = metrics["protocol"]["proxy"]
    assert how["positive"] == "benign" and how["selected_on"] == "val" and "1,000 resamples" in how["interval"]
    assert how["subjects"]["raw"]["score"] == "pc1" and results["raw"]["proxy/auroc"] > 0.9
    assert metrics["harm"] is True and "below the best row without pretraining" in said.out
    assert "pc1, the best naive score on validation" in said.out and "the method's own score" in said.out
    value, low, high = (results["raw"][f"proxy/auroc{end}"] for end in ("", "_low", "_high"))
    assert f"{value:.3f} [{low:.2f}, {high:.2f}]" in said.out and "norm_auroc" not in said.out
    report = command("report", "run", "--out", "report")
    assert report.status == 0, report.err
    text = (own_place / "report/report.md").read_text()
    assert f"{results['model']['proxy/auroc']:.3f}" in text and f"{value:.3f}" in text


def test_an_image_run_singles_out_a_class_and_several_methods_are_judged_apart(tmp_path):
    lean = ["data=digits", "steps=2", "batch_size=32", "encoder.width=4", *LEAN]
    found = sslrun.run(["method=[rotation,denoising]", "eval.proxy.positive=3", *lean], folder=tmp_path / "run")
    subjects = {f"{s}:{m}" for s in ("model", "random") for m in ("rotation", "denoising")}
    assert subjects <= found["results"].keys()
    assert all("proxy/auroc" in found["results"][s] for s in subjects | {"raw"})
    assert found["protocol"]["proxy"]["positive"] == "3"


def test_kmeans_scores_by_the_distance_to_its_centres(tmp_path):
    found = sslrun.run(["method=kmeans", "data=breast_cancer", "epochs=3", *LEAN], folder=tmp_path / "run")
    assert found["primary"] == "proxy/auroc" and {"proxy/auroc", "cluster/nmi"} <= found["results"]["model"].keys()


def test_labels_do_not_reach_training(tmp_path):
    """Whatever the labels say, the weights and every look are the same."""
    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8) * 15).astype(np.uint8)
    made = []
    for name, labels in (("a", y), ("b", np.random.default_rng(0).permutation(y))):
        parts = {"train": slice(0, 200), "val": slice(200, 300), "test": slice(300, 400)}
        path = tmp_path / name / "digits.npz"
        path.parent.mkdir()
        np.savez(path, **{f"{k}_{p}": v[rows] for p, rows in parts.items() for k, v in (("x", x), ("y", labels))})
        lean = ["data=image_arrays", f"data.path={path}", "augmentation=digits", "steps=6", "batch_size=64", *LEAN]
        settings = ["method=rotation", "encoder.width=4", "eval.proxy.positive=0", *lean]
        found = sslrun.run(settings, folder=tmp_path / name / "run")
        curves = (tmp_path / name / "run/metrics.csv").read_text().splitlines()
        weights = (tmp_path / name / "run/encoder/model.safetensors").read_bytes()
        made.append((weights, [line for line in curves if "speed/" not in line], found["results"]["raw"]))
    assert made[0][:2] == made[1][:2] and made[0][2] != made[1][2]
    assert any("validation/loss" in line for line in made[0][1]) and not any("knn" in line for line in made[0][1])


REFUSED = {
    ("method=simclr",): "method=simclr gives samples no score; these do on image data: .*kmeans.*rotation",
    ("method=fixmatch", "labels=40"): "method=fixmatch reads the labels that its score would be held against",
    ("method=[supervised,rotation]",): "method=supervised reads the labels",
    ("method=none",): "there is no method to score samples",
    ("method=rotation",): "digits has 10 classes; name the one .* by eval.proxy.positive=CLASS",
    ("method=rotation", "eval.proxy.positive=cat"): "eval.proxy.positive=cat is not a class of data=digits",
    ("method=rotation", "eval.proxy.positive=3", "data.val_fraction=0"): "raise data.val_fraction",
    ("method=rotation", "eval.proxy.positive=3", "data.normal_class=0"): "data.normal_class exclude each other",
    ("method=rotation", "eval.proxy.positive=3", "eval.proxy.resamples=0"): "eval.proxy.resamples=0 does not work",
}


@pytest.mark.parametrize("overrides", REFUSED, ids=" ".join)
def test_what_cannot_work_is_refused_in_one_sentence(overrides, tmp_path):
    with pytest.raises(UserError, match=REFUSED[overrides]) as error:
        sslrun.run(["data=digits", *LEAN, *overrides], folder=tmp_path / "run")
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_data_without_labels_are_refused(tmp_path):
    path = tmp_path / "heap.csv"
    path.write_text("a,b\n" + "\n".join(f"{i},{i * i % 7}" for i in range(60)))
    settings = ["method=denoising_autoencoder", "data=csv", f"data.path={path}", "batch_size=16", *LEAN]
    with pytest.raises(UserError, match="holds scores against labels, and data=heap has none"):
        sslrun.run(settings, folder=tmp_path / "run")


def test_weights_that_have_learned_from_labels_are_refused(trained, tmp_path):
    settings = ["method=kmeans", f"weights={trained('supervised')}", "eval.proxy.positive=3", *LEAN]
    with pytest.raises(UserError, match="the encoder of weights=.* has learned from 40 of them"):
        sslrun.run(settings, folder=tmp_path / "run")


def test_labels_of_breast_cancer_are_named_as_scikit_learn_does():
    assert Data(breast_cancer(), seed=0, split_seed=0).spec.classes == tuple(load_breast_cancer().target_names)
