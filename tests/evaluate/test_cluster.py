import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.metrics import (
    adjusted_rand_score,
    confusion_matrix,
    normalized_mutual_info_score,
    silhouette_score,
)
from sklearn.preprocessing import StandardScaler

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate.cluster import cluster, cluster_scores, match

SPEC = DataSpec("digits", "image", (1, 8, 8), 10)


@pytest.fixture(scope="module")
def parts():
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x).float(), torch.tensor(y)
    return Split(x[:700], y[:700], torch.arange(700)), Split(x[700:1000], y[700:1000], torch.arange(700, 1000))


@pytest.mark.parametrize("standardise", [True, False])
def test_equals_scikit_learn(parts, standardise):
    train, test = parts
    found = cluster(train, None, test, SPEC, standardise=standardise, seed=3)
    a, b = train.features.double().numpy(), test.features.double().numpy()
    if standardise:
        varies = a.std(0) > 0
        a, b = a[:, varies], b[:, varies]
        scaler = StandardScaler().fit(a)
        a, b = scaler.transform(a), scaler.transform(b)
    means = KMeans(10, n_init=10, random_state=3).fit(a)
    assigned = means.predict(b)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(test.labels, assigned), abs=0.02)
    assert found["ari"] == pytest.approx(adjusted_rand_score(test.labels, assigned), abs=0.02)
    assert found["inertia"] == pytest.approx(-means.score(b) / len(b), rel=1e-3)
    assert found["silhouette"] == pytest.approx(silhouette_score(b, assigned), abs=0.01)
    table = confusion_matrix(train.labels, means.labels_)
    classes, clusters = linear_sum_assignment(-table)
    names = np.empty(10, int)
    names[clusters] = classes
    assert found["accuracy"] == pytest.approx((names[assigned] == test.labels.numpy()).mean(), abs=0.02)
    assert found["protocol"][""]["k"] == 10


def test_features_whose_scales_mean_something_are_not_standardised(parts):
    train, test = parts
    asked = {s: cluster(train, None, test, SPEC, standardise=s)["nmi"] for s in (True, False)}
    assert cluster(train, None, test, SPEC)["nmi"] == asked[True] != asked[False]
    assert cluster(dataclasses.replace(train, isometric=True), None, test, SPEC)["nmi"] == asked[False]


def test_clusters_are_named_by_training_labels_only(parts):
    train, test = parts
    found = cluster(train, None, test, SPEC)
    turned = Split(test.features, (test.labels + 1) % 10, test.index)
    other = cluster(train, None, turned, SPEC)
    assert other["accuracy"] < 0.3 < found["accuracy"]  # matched on test, the names would have turned as well
    assert other["nmi"] == pytest.approx(found["nmi"])
    few = Split(train.features, torch.where(train.index < 100, train.labels, -1), train.index)
    assert cluster(few, None, test, SPEC)["nmi"] == found["nmi"]  # labels take no part in the fit


def test_the_order_of_rows_changes_nothing(parts):
    train, test = parts
    order = torch.randperm(700, generator=torch.Generator().manual_seed(0))
    shuffled = Split(train.features[order], train.labels[order], train.index[order])
    assert cluster(shuffled, None, test, SPEC) == cluster(train, None, test, SPEC)


def test_data_without_classes_still_has_a_geometry(parts):
    train, test = (Split(p.features, torch.full_like(p.labels, -1), p.index) for p in parts)
    found = cluster(train, None, test, DataSpec("digits", "image", (1, 8, 8), 0), k=4)
    assert found.keys() == {"inertia", "silhouette", "protocol"} and found["protocol"][""]["k"] == 4


def test_collapsed_features_and_few_rows():
    same = Split(torch.ones(30, 4), torch.arange(30) % 10, torch.arange(30))
    found = cluster(same, None, same, SPEC)
    assert found["inertia"] == 0 and found["nmi"] == pytest.approx(0, abs=1e-9) and "silhouette" not in found
    few = Split(torch.randn(3, 4), torch.arange(3), torch.arange(3))
    assert cluster(few, None, same, SPEC)["protocol"][""]["k"] == 3


def test_match_leaves_spare_clusters_without_a_name():
    assigned = torch.tensor([0, 0, 1, 1, 2, 3, -1])
    labels = torch.tensor([1, 1, 0, 0, 0, -1, 1])
    names = match(assigned, labels, 4, 2)
    assert names.tolist() == [1, 0, -1, -1]
    assert match(assigned, torch.full((7,), -1), 4, 2) is None
    found = cluster_scores(assigned, labels, 2, names)
    assert found["accuracy"] == pytest.approx(4 / 6)  # the spare cluster and the unknown row are wrong
    known = labels >= 0
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(labels[known], assigned[known]))
    assert cluster_scores(assigned, labels, 2).keys() == {"nmi", "ari"}


def test_mixture_is_scikit_learns_with_one_covariance(parts):
    from sklearn.mixture import GaussianMixture

    train, test = parts
    found = cluster(train, None, test, SPEC, model="gmm")
    scaler = StandardScaler().fit(train.features.double().numpy())
    a, b = (scaler.transform(part.features.double().numpy()) for part in parts)
    theirs = GaussianMixture(10, covariance_type="tied", reg_covar=1e-3, n_init=5, random_state=0).fit(a)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(test.labels, theirs.predict(b)), abs=0.06)
    assert found["accuracy"] > 0.5 and "inertia" not in found and 0 < found["silhouette"] < 1
    assert cluster(train, None, test, SPEC, model="gmm") == found
    how = found["protocol"][""]
    assert how["k"] == 10 and how["principal_components"] == 64 and how["selected_on"] == "training likelihood"


@pytest.mark.parametrize("model", ["kmeans", "gmm"])
def test_a_collapsed_encoder_has_one_cluster(parts, model):
    flat = [Split(torch.full((len(p.labels), 80), 0.3), p.labels, p.index) for p in parts]
    found = cluster(flat[0], None, flat[1], SPEC, model=model)
    assert found["nmi"] == 0 and found["accuracy"] < 0.2 and "silhouette" not in found


def test_one_cluster_for_all_is_the_commonest_class_of_training():
    found = cluster.trivial(
        torch.tensor([2, 2, 0, -1]), torch.tensor([2, 0, 1, 2, -1]), DataSpec("d", "table", (1,), 3)
    )
    assert found["nmi"] == found["ari"] == 0 and found["accuracy"] == 0.5
    assert cluster.trivial(torch.tensor([-1]), torch.tensor([-1]), DataSpec("d", "table", (1,))) == {}


def test_an_experiment_ends_in_both_models_on_every_subject(command):
    lean = ("device.threads=1", "logger=none", "eval.mixture.k=2")
    said = command("experiment=clustering", "data=wine", "method=none", "seed=0", *lean)
    assert said.status == 0, said.err
    lines = {line.split("  ")[0]: line.split()[-7:] for line in said.out.splitlines() if len(line.split()) >= 8}
    assert {"random (reference)", "raw (reference)", "trivial (reference)"} <= lines.keys()
    nmi, _, accuracy, silhouette, mixture, _, matched = lines["raw (reference)"]
    assert float(nmi) > 0.7 and float(accuracy) > 80 and float(silhouette) > 0 and float(mixture) > 0.7
    assert lines["trivial (reference)"][0] == "0.000" and lines["trivial (reference)"][2] == "38.9"
    said = command("data=wine", "method=none", "eval=[cluster]", "eval.cluster.model=dbscan")
    assert said.status and "model=dbscan of eval=[cluster] is unknown; choose from kmeans, gmm." in said.err
