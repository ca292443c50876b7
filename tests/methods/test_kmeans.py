import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans as Reference
from sklearn.datasets import load_wine
from sklearn.preprocessing import StandardScaler
from worlds import device, overrides, train

from sslrun.contracts import Batch, DataSpec, Stream, UserError
from sslrun.encoders.identity import Identity
from sslrun.methods.unsupervised.kmeans import KMeans
from sslrun.nn.lloyd import plus_plus, squared_distances


def lloyd(x, objective, encoder, passes, size=64):
    for _ in range(passes):
        for part in x.split(size):
            objective(encoder, Batch({"all": Stream({"x": part, "index": torch.arange(len(part))}, None)}))
        objective.after_epoch(encoder)


def blobs():
    x = torch.from_numpy(StandardScaler().fit_transform(load_wine().data)).float()
    spec = DataSpec("wine", "table", (13,), 3, mean=(0.0,) * 13, std=(1.0,) * 13)
    return x, spec, Identity(spec)


def test_passes_are_scikit_learns_from_the_same_starts():
    x, spec, encoder = blobs()
    objective = KMeans(encoder, spec, k=5, restarts=4)
    starts = torch.stack([x[i::40][:5] for i in range(4)]).double()
    objective.centres.copy_(starts)
    lloyd(x, objective, encoder, 40)
    assert objective.converged()
    for r in range(4):
        reference = Reference(5, init=starts[r].numpy(), n_init=1, tol=0, algorithm="lloyd").fit(x.double().numpy())
        np.testing.assert_allclose(objective.centres[r], reference.cluster_centers_, atol=1e-8)
        assert objective.inertia[r].item() == pytest.approx(reference.inertia_, rel=1e-9)
        assert (squared_distances(x.double(), objective.centres)[:, r].argmin(1).numpy() == reference.labels_).all()


def test_inertia_is_no_worse_than_scikit_learns(worlds):
    """Ten greedy starts each, on digits, through the trainer."""
    done = train([*overrides("kmeans", worlds["image"]["digits"]), "batch_size=512"], device(), epochs=100)
    objective, part = done.learner.objectives["kmeans"], done.learner.data.train
    assert objective.converged() and done.trainer.current_epoch < 100
    x = done.learner.encoder(part.inputs(torch.arange(len(part)))).double().numpy()
    reference = Reference(10, n_init=10, random_state=0, tol=0).fit(x)
    assert objective.inertia.min().item() <= reference.inertia_ * 1.005  # both end in local optima
    guess = objective.predict(done.learner.encoder, part.inputs(torch.arange(len(part)))).argmax(1)
    centres = (objective.centres[objective.inertia.argmin()] + objective.origin).numpy()
    assert ((x - centres[guess]) ** 2).sum() == pytest.approx(objective.inertia.min().item(), rel=1e-6)


def test_starts_are_samples_far_apart():
    x = torch.cat([torch.randn(50, 2, generator=torch.Generator().manual_seed(i)) * 0.1 + 10 * i for i in range(4)])
    for seed in range(5):
        starts = plus_plus(x.double(), 4, 1, torch.Generator().manual_seed(seed))[0]
        assert sorted((starts.mean(1) / 10).round().int().tolist()) == [0, 1, 2, 3]
        assert all((x.double() == start).all(1).any() for start in starts)


def test_empty_cluster_moves_to_the_farthest_sample():
    spec = DataSpec("line", "table", (1,), 0, mean=(0.0,), std=(1.0,))
    encoder = Identity(spec)
    objective = KMeans(encoder, spec, k=2, restarts=1)
    objective.centres.copy_(torch.tensor([[[0.0], [100.0]]]))
    lloyd(torch.tensor([[0.0], [1.0], [2.0], [9.0]]), objective, encoder, 1, size=2)
    assert objective.centres.flatten().tolist() == [3.0, 9.0]


def test_impossible_numbers_of_clusters_are_refused(worlds):
    with pytest.raises(UserError, match="method.kmeans.k=500 is above the 127 distinct samples"):
        arguments = [*overrides("kmeans", worlds["table"]["mixed"]), "method.kmeans.k=500"]
        train(arguments, device())
    _, spec, encoder = blobs()
    with pytest.raises(UserError, match="k=1 must be at least 2"):
        KMeans(encoder, spec, k=1)
