import csv
import json
import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler
from worlds import device, overrides, train

from sslrun.contracts import Batch, DataSpec, Stream, UserError
from sslrun.encoders.identity import Identity
from sslrun.methods.unsupervised.gmm import Gmm
from sslrun.nn.mixture import KINDS, Mixture, bic, coefficients, em, expect, parameters, started

THEIRS = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}


def wine():
    return torch.from_numpy(StandardScaler().fit_transform(load_wine().data))


def table(columns, classes=0):
    return DataSpec("rows", "table", (columns,), classes, mean=(0.0,) * columns, std=(1.0,) * columns)


def through(x, objective, encoder, passes, size=50):
    for _ in range(passes):
        for part in x.split(size):
            objective(encoder, Batch({"all": Stream({"x": part, "index": torch.arange(len(part))}, None)}))
        objective.after_epoch(encoder)


def theirs(mixture, kind, floor, passes, x):
    """scikit-learn's mixture after so many passes from the same start."""
    c = mixture.covariance[0]
    precisions = {"full": torch.linalg.inv, "tied": lambda c: torch.linalg.inv(c[0]), "diagonal": torch.reciprocal,
                  "spherical": lambda c: 1 / c[:, 0]}[kind](c)  # fmt: skip
    model = GaussianMixture(
        mixture.shares.shape[1], covariance_type=THEIRS[kind], weights_init=mixture.shares[0].numpy(),
        means_init=mixture.means[0].numpy(), precisions_init=precisions.numpy(), tol=0, max_iter=passes,
        reg_covar=floor,
    )  # fmt: skip
    return model.fit(x.numpy())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_passes_are_scikit_learns_from_the_same_start(kind):
    x, encoder = wine(), Identity(table(13)).double()
    objective = Gmm(encoder, table(13), k=3, covariance=kind, tol=-1.0)
    start = started(x, 3, kind, "kmeans", objective.floor, 1, torch.Generator().manual_seed(0))
    objective.set(start)
    values = []
    for _ in range(15):
        through(x, objective, encoder, 1)
        values.append(float(objective.value))
    assert (np.diff(values) > 0).all(), "the likelihood never falls"
    reference = theirs(start, kind, objective.floor, 15, x)
    batch = Batch({"all": Stream({"x": x, "index": torch.arange(len(x))}, None)})
    np.testing.assert_allclose(-objective.score(encoder, batch), reference.score_samples(x.numpy()), atol=1e-6)
    np.testing.assert_allclose(objective.predict(encoder, x), reference.predict_proba(x.numpy()), atol=1e-6)
    np.testing.assert_allclose(objective.means[0], reference.means_, atol=1e-8)
    assert parameters(kind, 3, 13) == reference._n_parameters()
    value = float(-objective.score(encoder, batch).mean())
    assert bic(value, kind, 3, 13, len(x)) == pytest.approx(reference.bic(x.numpy()), rel=1e-9)


def test_parameters_are_counted_by_hand():
    """Four components in three dimensions: 3 shares, 12 coordinates of means, and the covariances."""
    assert [parameters(kind, 4, 3) for kind in KINDS] == [3 + 12 + 24, 3 + 12 + 6, 3 + 12 + 12, 3 + 12 + 4]


def test_density_of_one_gaussian_by_hand():
    """N(0, 4 I) in three dimensions at (2, 2, 2)."""
    for kind, covariance in (("full", 4 * torch.eye(3).view(1, 1, 3, 3)), ("diagonal", torch.full((1, 1, 3), 4.0)),
                             ("spherical", torch.full((1, 1, 1), 4.0))):  # fmt: skip
        mixture = Mixture(torch.ones(1, 1), torch.zeros(1, 1, 3), covariance)
        _, total = expect(torch.full((1, 3), 2.0), coefficients(mixture, kind), kind)
        assert float(total) == pytest.approx(-1.5 * math.log(2 * math.pi * 4) - 1.5, abs=1e-5)


def test_several_starts_are_followed_at_once_and_the_best_predicts():
    x, encoder = wine(), Identity(table(13)).double()
    draw = torch.Generator().manual_seed(0)
    starts = started(x, 4, "diagonal", "random", 1e-6, 3, draw)
    alone = [em(x, Mixture(*(part[i : i + 1] for part in starts)), "diagonal", 1e-6)[1] for i in range(3)]
    objective = Gmm(encoder, table(13), k=4, covariance="diagonal", restarts=3)
    objective.set(starts)
    through(x, objective, encoder, 100)
    assert objective.converged()
    np.testing.assert_allclose(objective.value, torch.cat(alone), rtol=1e-9)
    batch = Batch({"all": Stream({"x": x, "index": torch.arange(len(x))}, None)})
    assert -objective.score(encoder, batch).mean() == pytest.approx(float(objective.value.max()), rel=1e-9)
    assert objective.facts()["log_likelihood"] == float(objective.value.max())


def test_data_far_from_the_origin_have_the_same_mixture():
    found = []
    for offset in (0.0, 10_000.0):
        x = wine() + offset
        encoder = Identity(table(13)).double()
        objective = Gmm(encoder, table(13), k=3)
        objective.origin = x.mean(0)
        objective.set(started(x - x.mean(0), 3, "full", "kmeans", 1e-6, 1, torch.Generator().manual_seed(0)))
        through(x, objective, encoder, 20)
        found.append(objective.predict(encoder, x).argmax(1))
    assert (found[0] == found[1]).all()


def test_bic_finds_how_many_there_were_and_their_shape(worlds):
    draw = torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]]).double()
    turned = torch.tensor([[2.0, 1.5], [0.0, 0.7]]).double()  # covariances that are equal and not axis by axis
    x = torch.randn(600, 2, generator=draw).double() @ turned + middles.repeat(200, 1)
    objective = Gmm(Identity(table(2)), table(2), k="auto", covariance="auto", k_range=[2, 4])
    chosen = [row for row in objective._compare(x - x.mean(0), 0) if row["chosen"]]
    assert [(row["k"], row["covariance"]) for row in chosen] == [(3, "tied")]


def test_a_singular_mixture_is_not_chosen():
    """Few rows in many dimensions: the likelihood of small clusters has no bound, and BIC falls with it."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 10, generator=draw).double() + 6 * (torch.arange(60) % 2).view(-1, 1)
    objective = Gmm(Identity(table(10)), table(10), "auto", "auto", k_range=[2, 16])
    rows = objective._compare(x - x.mean(0), 0)
    least = min(rows, key=lambda row: row["bic"])
    chosen = next(row for row in rows if row["chosen"])
    assert least["singular"] and not chosen["singular"] and chosen["k"] == 2


def test_mixture_is_chosen_reported_and_predicts(command, own_place):
    said = command("method=gmm", "data=iris", "method.gmm.k=auto", "method.gmm.covariance=auto", "eval=[cluster]",
                   "method.gmm.k_range=[2,4]", "logger=none", "device.threads=1", "hydra.run.dir=run")  # fmt: skip
    assert said.status == 0, said.err
    metrics = json.loads((own_place / "run/metrics.json").read_text())
    fit = metrics["fit"]["gmm"]
    assert 2 <= fit["k"] <= 4 and fit["covariance"] in KINDS and fit["converged"]
    n = 108  # training rows
    assert fit["bic"] == pytest.approx(-2 * n * fit["log_likelihood"] + fit["parameters"] * math.log(n), rel=1e-4)
    assert len((own_place / "run/audit_gmm.csv").read_text().splitlines()) == 1 + 3 * 4
    assert (own_place / "run/figures/chart_gmm.png").exists() and "cluster/nmi" in metrics["results"]["model"]
    assert command("predict", "run", "out=p.csv").status == 0
    with open("p.csv", newline="") as f:
        shares = [float(row["confidence"]) for row in csv.DictReader(f)]
    assert len(shares) > 20 and all(1 / fit["k"] - 1e-3 <= share <= 1 for share in shares)


def test_singular_components_are_admitted(command, own_place):
    """Raw digits have pixels that are always black."""
    said = command("method=gmm", "epochs=5", "eval=[cluster]", "logger=none", "device.threads=1", "hydra.run.dir=run")
    assert said.status == 0 and "features are constant (0, " in said.out, said.err
    remarks = json.loads((own_place / "run/metrics.json").read_text())["remarks"]
    assert any("10 of 10 covariances are singular" in text and "mean nothing" in text for text in remarks)
    assert any("parameters were fitted to 1,295 samples" in text for text in remarks)
    assert "10 of 10 covariances are singular" in " ".join(said.out.split())


def test_components_of_digits_are_classes():
    """On 20 principal components, as scikit-learn's full mixture, which agrees with .84 of the classes at best."""
    bundle = load_digits()
    x = torch.from_numpy(PCA(20, random_state=0).fit_transform(bundle.data / 16))
    found = []
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        _, ours = em(x, started(x, 10, "full", "kmeans", 1e-6, 1, draw), "full", 1e-6)
        found.append(float(ours))
    reference = GaussianMixture(10, n_init=3, random_state=0).fit(x.numpy())
    assert max(found) > reference.score(x.numpy()) - 0.2


def test_impossible_settings_are_refused(worlds):
    encoder, spec = Identity(table(13)), table(13)
    for settings, words in (
        ({}, "method.gmm.k=0 must be a number"), ({"k": 3, "covariance": "round"}, "covariance=round is unknown"),
        ({"k": 3, "start": "zeros"}, "start=zeros"), ({"k": 3, "regularisation": 0.0}, "regularisation=0.0 above 0"),
        ({"k": "auto", "k_range": [4, 2]}, "method.gmm.k_range=.* has no number of clusters"),
    ):  # fmt: skip
        with pytest.raises((UserError, ValueError), match=words):
            Gmm(encoder, spec, **settings)
    with pytest.raises(UserError, match="method.gmm.k=500 is above the 127 distinct samples"):
        train([*overrides("gmm", worlds["table"]["mixed"]), "method.gmm.k=500"], device())
