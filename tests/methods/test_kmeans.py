import csv
import json

import numpy as np
import pytest
import torch
from rounds import shown
from sklearn.cluster import KMeans as Reference
from sklearn.datasets import load_digits, load_wine
from sklearn.metrics import silhouette_score
from sklearn.preprocessing import StandardScaler
from worlds import device, overrides, train

from sslrun.contracts import Batch, DataSpec, Stream, UserError
from sslrun.encoders.identity import Identity
from sslrun.methods.unsupervised.kmeans import KMeans
from sslrun.nn.how_many import elbow, how_many, silhouette
from sslrun.nn.lloyd import lloyd, plus_plus, squared_distances


def lloyd_passes(x, objective, encoder, passes, size=64):
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
    lloyd_passes(x, objective, encoder, 40)
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
    lloyd_passes(torch.tensor([[0.0], [1.0], [2.0], [9.0]]), objective, encoder, 1, size=2)
    assert objective.centres.flatten().tolist() == [3.0, 9.0]


def digits():
    x = torch.from_numpy(load_digits().data / 16)
    return x - x.mean(0)


def test_whole_runs_are_scikit_learns_from_the_same_starts():
    """In memory, with several restarts at once, of which each stops by itself."""
    x, k = digits(), 10
    starts = plus_plus(x, k, 3, torch.Generator().manual_seed(0))
    centres, nearest, inertia = lloyd(x, starts)
    references = [Reference(k, init=s.numpy(), n_init=1, tol=0, algorithm="lloyd").fit(x.numpy()) for s in starts]
    np.testing.assert_allclose(inertia, [r.inertia_ for r in references], rtol=1e-9)
    best = references[int(inertia.argmin())]
    np.testing.assert_allclose(centres, best.cluster_centers_, atol=1e-9)
    assert (nearest.numpy() == best.labels_).all()


def test_fifty_restarts_find_the_clusters_of_digits_from_any_seed():
    """scikit-learn 1.9.1 with 50 starts ends between 4551.25 and 4551.46 over ten seeds."""
    x = digits()
    found = [float(lloyd(x, plus_plus(x, 10, 50, torch.Generator().manual_seed(s)))[2].min()) for s in range(10)]
    assert min(found) > 4551.2 and max(found) < 4551.55, found


def test_data_far_from_the_origin_have_the_same_clusters():
    bundle = digits()[:300].round(decimals=4)
    spec = DataSpec("far", "table", (64,), 10, mean=(0.0,) * 64, std=(1.0,) * 64)
    found = []
    for offset in (0.0, 10_000.0):
        objective, encoder = KMeans(Identity(spec), spec, restarts=2), Identity(spec).double()
        x = bundle + offset
        objective.origin = x.mean(0)
        objective.centres = plus_plus(x - x.mean(0), 10, 2, torch.Generator().manual_seed(0))
        lloyd_passes(x, objective, encoder, 10)
        found.append(objective.predict(encoder, x).argmax(1))
    assert (found[0] == found[1]).all() and len(found[0].unique()) == 10


def test_minibatch_centres_are_the_means_of_what_they_were_given():
    """Sculley's steps of 1/v from a first batch on are running means: after one batch of a cluster, its mean."""
    spec = DataSpec("line", "table", (1,), 0, mean=(0.0,), std=(1.0,))
    encoder = Identity(spec)
    objective = KMeans(encoder, spec, k=2, restarts=1, minibatch=True)
    objective.centres.copy_(torch.tensor([[[0.0], [10.0]]]))
    batches = torch.tensor([[1.0], [3.0], [8.0], [5.5], [9.0], [4.0]]).split(3)
    for part, expected in zip(batches, ([2.0, 8.0], [8 / 3, (8 + 5.5 + 9) / 3]), strict=True):
        objective(encoder, Batch({"all": Stream({"x": part, "index": torch.arange(len(part))}, None)}))
        assert objective.centres.flatten().tolist() == pytest.approx(expected)


def test_minibatches_come_near_whole_passes(worlds):
    arguments = [*overrides("kmeans", worlds["image"]["digits"]), "batch_size=128", "method.kmeans.minibatch=true"]
    done = train(arguments, device(), epochs=60)
    objective, part = done.learner.objectives["kmeans"], done.learner.data.train
    assert objective.converged() and done.trainer.current_epoch < 60
    x = done.learner.encoder(part.inputs(torch.arange(len(part)))).double()
    cost = objective.to_centres(done.learner.encoder, part.inputs(torch.arange(len(part)))).amin(1).sum()
    assert float(cost) < 1.02 * Reference(10, n_init=10, random_state=0).fit(x.numpy()).inertia_


def test_soft_shares_by_hand_and_their_limit():
    x, spec, encoder = blobs()
    hard, objective = (KMeans(encoder, spec, k=3, restarts=1, temperature=t) for t in (None, 0.5))
    start = x[[0, 70, 150]].double().unsqueeze(0)
    objective.centres.copy_(start)
    distance = (x.double().unsqueeze(1) - start[0]).square().sum(2)
    share = (-distance / (2 * 0.5 / 13)).softmax(1)  # the spread is 1 before anything is prepared
    np.testing.assert_allclose(objective.predict(encoder, x), share.float(), atol=1e-6)
    lloyd_passes(x, objective, encoder, 1)
    np.testing.assert_allclose(objective.centres[0], (share.T @ x.double()) / share.sum(0).unsqueeze(1), atol=1e-9)
    costs = []
    for _ in range(5):
        lloyd_passes(x, objective, encoder, 1)
        costs.append(float(objective.inertia))
    assert costs == sorted(costs, reverse=True), "the free energy never rises"
    cold = KMeans(encoder, spec, k=3, restarts=1, temperature=1e-6)
    for each in (cold, hard):
        each.centres.copy_(start)
        lloyd_passes(x, each, encoder, 10)
    np.testing.assert_allclose(cold.centres, hard.centres, atol=1e-9)


def test_three_blobs_are_three_by_every_measure():
    draw = torch.Generator().manual_seed(0)
    middles = torch.tensor([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0]]).double()
    x = torch.randn(300, 2, generator=draw).double() + middles.repeat(100, 1)
    table = how_many(x, range(2, 8), seed=0)
    assert [row["k"] for row in table if row["chosen"]] == [row["k"] for row in table if row["elbow"]] == [3]
    assert table[1]["stability"] == pytest.approx(1) and table[4]["stability"] < 0.9
    nearest = lloyd(x, plus_plus(x, 4, 5, draw))[1]
    assert silhouette(torch.cdist(x, x), nearest) == pytest.approx(silhouette_score(x, nearest), abs=1e-9)
    assert elbow([5.0, 5.0, 5.0]) is None and elbow([3.0, 1.0]) is None


def test_number_of_clusters_is_chosen_and_says_why(command, own_place):
    said = command("method=kmeans", "data=iris", "method.kmeans.k=auto", "method.kmeans.k_range=[2,5]", "epochs=50",
                   "eval=[cluster]", "logger=none", "device.threads=1", "hydra.run.dir=run")  # fmt: skip
    assert said.status == 0, said.err
    with open("run/audit_kmeans.csv", newline="") as f:
        table = list(csv.DictReader(f))
    chosen = next(int(row["k"]) for row in table if row["chosen"] == "True")
    assert [int(row["k"]) for row in table] == [2, 3, 4, 5] and (own_place / "run/figures/chart_kmeans.png").exists()
    assert json.loads((own_place / "run/metrics.json").read_text())["fit"]["kmeans"]["k"] == chosen == 2
    assert command("predict", "run", "out=p.csv").status == 0


def test_many_clusters_are_named_by_the_majority_of_the_labels_shown(command, own_place):
    said = command("method=kmeans", "method.kmeans.k=50", "labels=100", "epochs=50", "eval=[cluster]", "logger=none",
                   "device.threads=1", "hydra.run.dir=run")  # fmt: skip
    assert said.status == 0, said.err
    metrics = json.loads((own_place / "run/metrics.json").read_text())
    how = metrics["protocol"]["cluster"]["subjects"]["model"]
    assert "commonest class of 100 labelled training rows, those of labels=100 in splits.json" in how["accuracy"]
    assert metrics["results"]["model"]["cluster/accuracy"] > 0.75  # one cluster for each class: .74


def test_impossible_numbers_of_clusters_are_refused(worlds):
    with pytest.raises(UserError, match="method.kmeans.k=500 is above the 127 distinct samples"):
        arguments = [*overrides("kmeans", worlds["table"]["mixed"]), "method.kmeans.k=500"]
        train(arguments, device())
    _, spec, encoder = blobs()
    with pytest.raises(UserError, match="k=1 must be at least 2"):
        KMeans(encoder, spec, k=1)
    for ends in ([5, 2], [1, 4], [3], 7):
        with pytest.raises(UserError, match="method.kmeans.k_range=.* has no number of clusters in it"):
            KMeans(encoder, spec, k="auto", k_range=ends)
    with pytest.raises(UserError, match="method.kmeans.k_range=.*500.* is above the 127 distinct samples"):
        arguments = [*overrides("kmeans", worlds["table"]["mixed"]), "method.kmeans.k=auto"]
        train([*arguments, "method.kmeans.k_range=[2,500]"], device())


def test_features_that_are_not_finite_are_counted_and_named():
    x, spec, encoder = blobs()
    objective = KMeans(encoder, spec)
    x[[4, 7], 3] = torch.nan

    class Passed(Identity):
        def forward(self, x):
            return x

    with pytest.raises(UserError, match="2 of 178 samples have NaN or infinity .* first is sample 4, in features 3;"):
        objective(Passed(spec), Batch({"all": Stream({"x": x, "index": torch.arange(len(x))}, None)}))
    x = blobs()[0]
    x[9, :2], x[10, 2] = torch.inf, torch.nan
    with pytest.raises(UserError, match="1 of 178 samples have NaN or infinity .* sample 9, in numbers 0, 1;"):
        objective.prepare(shown(x, torch.full((len(x),), -1)), encoder)
