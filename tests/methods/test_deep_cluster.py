import numpy as np
import pytest
import torch
from test_every_method import assert_identical, assert_same, interrupted
from worlds import built, device, overrides, summary, train

from sslrun.contracts import Batch, DataSpec, Encoder, Stream, UserError
from sslrun.methods.unsupervised.deep_cluster import DeepCluster, whitening
from sslrun.nn.rows import encoded


class Given(Encoder):
    """Its features are its inputs."""

    def __init__(self, spec):
        super().__init__(spec)
        self.dim = spec.shape[0]
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, x):
        return x.flatten(1) * self.scale


def arguments(worlds, *more):
    return [*overrides("deep_cluster", worlds["image"]["digits"]), "encoder.width=4", "method.deep_cluster.k=12", *more]


def test_whitened_features_vary_alike_in_every_direction_that_varies():
    x = torch.randn(500, 4, dtype=torch.float64) @ torch.randn(4, 6, dtype=torch.float64) + 5
    origin, directions = whitening(x, 6)
    z = (x - origin) @ directions
    covariance = z.T @ z / len(z)
    torch.testing.assert_close(covariance.diagonal().sort().values, torch.tensor([0.0, 0, 1, 1, 1, 1]).double())
    assert (covariance - covariance.diagonal().diag()).abs().max() < 1e-9
    assert whitening(x, 2)[1].shape == (6, 2)


def test_classes_weigh_the_same_whatever_their_size(worlds):
    _, parts = built(arguments(worlds))
    objective = parts.objectives["deep_cluster"]
    objective.prepare(parts.data, parts.encoder)
    labels = objective.label[parts.data.train.index]
    counts = torch.bincount(labels, minlength=12)
    assert labels.min() >= 0 and (counts > 0).all() and len(set(counts.tolist())) > 1
    np.testing.assert_allclose(counts * objective.weight, len(labels) / 12, rtol=1e-5)
    assert (objective.label >= 0).sum() == len(labels), "no sample of another part has a class"


def test_loss_by_hand():
    spec = DataSpec("picture", "image", (2, 1, 1), 2)
    encoder, objective = Given(spec), DeepCluster(Given(spec), spec, k=2)
    with torch.no_grad():
        objective.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
        objective.head.bias.zero_()
    objective.label, objective.weight = torch.tensor([0, 1]), torch.tensor([2.0, 0.5])
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).view(2, 2, 1, 1)
    out = objective(encoder, Batch({"all": Stream({"x": x, "view": x, "index": torch.tensor([0, 1])}, None)}))
    p = torch.tensor([1.0, 0.0]).softmax(0)
    expected = (-2.0 * p[0].log() - 0.5 * p[1].log()) / 2
    assert out["loss"].item() == pytest.approx(float(expected), rel=1e-5) and float(out["pseudo_accuracy"]) == 0.5


def test_clusters_are_of_the_network_as_it_is_and_the_head_is_new(worlds):
    """With a clustering after every epoch, and none between."""
    done = train(arguments(worlds, "method.deep_cluster.every=2", "batch_size=256"), device(), epochs=2)
    objective, encoder, part = done.learner.objectives["deep_cluster"], done.learner.encoder, done.learner.data.train
    every = torch.arange(len(part))
    assert (objective.predict(encoder.eval(), part.inputs(every)).argmax(1) == objective.label[part.index]).all()
    again = train(arguments(worlds, "method.deep_cluster.every=3", "batch_size=256"), device(), epochs=2)
    other = again.learner.objectives["deep_cluster"]
    assert not torch.equal(other.label, objective.label) and not torch.equal(other.head.weight, objective.head.weight)
    assert objective.head.bias.abs().max() <= encoder.dim**-0.5
    assert torch.isfinite(encoded(encoder, part, every)).all()


def test_every_clustering_is_the_same_on_two_processes_and_after_a_stop(worlds, pair, tmp_path):
    settings = arguments(worlds, "method.deep_cluster.every=1", "batch_size=200", "optimizer=sgd", "lr=0.05")
    assert_same(summary(settings, 1, epochs=2), pair(summary, settings, 2, epochs=2))
    whole = train(settings, device(), epochs=3, folder=tmp_path / "whole")
    again = interrupted(settings, device(), tmp_path / "again", 10, "stop", epochs=3)
    assert_identical((again.state(), again.predictions()), (whole.state(), whole.predictions()))


def test_more_clusters_than_samples_are_refused(worlds):
    with pytest.raises(UserError, match="method.deep_cluster.k=5000 is above the 12.. distinct samples"):
        train(arguments(worlds, "method.deep_cluster.k=5000"), device())
    with pytest.raises(UserError, match="every=0"):
        built(arguments(worlds, "method.deep_cluster.every=0"))
