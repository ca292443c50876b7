import csv
import json

import numpy as np
import pytest
import torch
from batches import batch
from sklearn.decomposition import PCA
from worlds import device, overrides, train

import sslrun
from sslrun.contracts import DataSpec, UserError
from sslrun.encoders.identity import Identity
from sslrun.encoders.projection import Projection
from sslrun.methods.unsupervised.pca import Pca


@pytest.mark.parametrize(("modality", "world"), [("image", "digits"), ("table", "breast_cancer")])
def test_components_are_scikit_learns_up_to_their_sign(modality, world, worlds):
    done = train([*overrides("pca", worlds[modality][world]), "encoder.dim=8", "batch_size=100"], device(), epochs=3)
    assert done.trainer.current_epoch == 1, "one pass is enough"
    encoder, part = done.learner.encoder, done.learner.data.train
    every = torch.arange(len(part))
    x = Identity(done.learner.data.spec)(part.inputs(every)).double().numpy()
    reference = PCA(8, svd_solver="full").fit(x)
    sign = np.sign((encoder.components.numpy() * reference.components_).sum(1, keepdims=True))
    np.testing.assert_allclose(encoder.components, sign * reference.components_, atol=2e-5)
    np.testing.assert_allclose(encoder.centre, reference.mean_, atol=1e-6)
    objective = done.learner.objectives["pca"]
    share = reference.explained_variance_ratio_.cumsum()
    np.testing.assert_allclose([row["explained"] for row in objective.audit()[:8]], share, atol=1e-9)
    back = objective.complete(encoder, part.inputs(every))
    expected = reference.inverse_transform(reference.transform(x))
    np.testing.assert_allclose(Identity(done.learner.data.spec)(back), expected, atol=1e-4)
    error = objective.errors(encoder, part.inputs(every)).mean()
    assert float(error) == pytest.approx(((expected - x) ** 2).mean(), rel=1e-4)


def test_origin_of_a_sample_need_not_be_the_mean_of_all():
    x = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([4.0, 3, 2, 1]) + 5
    spec = DataSpec("rows", "table", (4,), mean=(0.0,) * 4, std=(1.0,) * 4)
    encoder = Projection(spec, dim=2)
    objective = Pca(encoder, spec)  # its origin is 0
    for part in x.split(64):
        objective(encoder, batch(all={"x": part}))
    objective.after_epoch(encoder)
    reference = PCA(2).fit(x.double().numpy())
    np.testing.assert_allclose(encoder.components.abs().detach(), np.abs(reference.components_), atol=1e-6)
    np.testing.assert_allclose(encoder.centre, reference.mean_, atol=1e-6)


def test_all_components_give_everything_back():
    spec = DataSpec("picture", "image", (2, 3, 3), mean=(0.2, 0.5), std=(0.3, 2.0))
    encoder, x = Projection(spec, dim=18), torch.rand(5, 2, 3, 3)
    torch.testing.assert_close(encoder.back(encoder(x)), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoder.components @ encoder.components.T, torch.eye(18), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match="encoder.dim=19 is above the 18 numbers of a sample"):
        Projection(spec, dim=19)


def test_components_are_an_encoder_like_any_other(command, own_place):
    said = command("method=pca", "encoder.dim=16", "logger=none", "device.threads=1", "eval=[knn,linear]",
                   "eval.budgets=[40]", "hydra.run.dir=run")  # fmt: skip
    assert said.status == 0, said.err
    results = json.loads((own_place / "run/metrics.json").read_text())["results"]
    assert results["trained"]["knn/accuracy"] > results["random"]["knn/accuracy"] + 0.02
    assert 0.7 < results["model"]["task/skill"] < 1
    with open("run/audit_pca.csv", newline="") as f:
        explained = float(list(csv.DictReader(f))[15]["explained"])
    assert results["model"]["task/skill"] == pytest.approx(explained, abs=0.03), "skill is what is explained, on test"
    encoder = sslrun.load(own_place / "run")
    assert encoder(torch.rand(3, 1, 8, 8)).shape == (3, 16)
    assert (own_place / "run/figures/chart_pca.png").exists() and (own_place / "run/figures/task_pca.png").exists()
    said = command("method=kmeans", "weights=run", "epochs=3", "eval=[cluster]", "logger=none", "device.threads=1",
                   "hydra.run.dir=groups")  # fmt: skip
    assert said.status == 0 and "Projection" in said.out, said.err


def test_other_encoders_are_refused(command):
    said = command("method=pca", "encoder=cnn")
    assert said.status and "method=pca sets encoder=projection, and this encoder is Cnn" in said.err
    spec = DataSpec("large", "image", (3, 64, 64), mean=(0.0,) * 3, std=(1.0,) * 3)
    with pytest.raises(UserError, match="all 12,288 numbers of a sample"):
        Pca(Projection(spec), spec)
