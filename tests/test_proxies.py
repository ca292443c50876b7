"""Every method's score is of each sample on its own, and the same whenever it is asked for."""

import pytest
import torch

from sslrun import proxies
from sslrun.build import build
from sslrun.catalogue import locate, methods
from sslrun.compose import compose
from sslrun.contracts import Stream, Unfit
from sslrun.device import Device
from sslrun.learner import Learner
from sslrun.streams import as_seen_by

DATA = {"image": "digits", "table": "breast_cancer"}  # a new modality needs a line here
CPU = Device("cpu", 1, 1, 1, "fp32")


def cases():
    for name, node in methods().items():
        kind = locate(node["_target_"])
        if kind.score is not None:
            yield from ((name, modality) for modality in kind.modalities or DATA)


def started(name, modality):
    cfg, _ = compose([f"method={name}", f"data={DATA[modality]}", "batch_size=64", "labels=40"])
    try:
        built = build(cfg)
    except Unfit as reason:
        pytest.skip(str(reason))
    learner = Learner(built.encoder, built.objectives, built.data).eval()
    learner.prepare()
    return learner, built.objectives[name], built.data


@pytest.mark.parametrize(("name", "modality"), cases())
def test_a_sample_moves_its_own_score_alone(name, modality):
    learner, objective, data = started(name, modality)
    plan = next(data.validation(data.val, objective.streams, 64))
    batch = as_seen_by(objective, data.batch(plan, data.val, learner.views, "cpu"))
    with torch.no_grad():
        before = objective.score(learner.encoder, batch)
        for stream in batch.streams.values():
            for key, value in stream.items():
                if isinstance(stream, Stream) and torch.is_floating_point(value):
                    stream[key] = value.clone()
                    stream[key][7] = value[7].flip(-1) * 0.5
        after = objective.score(learner.encoder, batch)
    assert before.shape == (min(64, len(data.val)),) and before.isfinite().all()
    moved = (before - after).abs() > 1e-4 * before.abs().clamp_min(1e-3)
    assert moved.nonzero().flatten().tolist() == [7]


def test_scores_are_the_same_again_and_a_mean_over_draws(monkeypatch):
    learner, objective, data = started("denoising_autoencoder", "table")
    learner.train()
    torch.manual_seed(1)
    first = proxies.scores_of(objective, learner.encoder, data, data.val, CPU)
    torch.manual_seed(2)
    assert torch.equal(proxies.scores_of(objective, learner.encoder, data, data.val, CPU), first)
    assert learner.encoder.training and objective.training, "the mode is given back"
    monkeypatch.setattr(proxies, "DRAWS", 1)
    assert not torch.equal(proxies.scores_of(objective, learner.encoder, data, data.val, CPU), first)


def test_scoring_hides_the_labels():
    learner, _, data = started("rotation", "image")
    plan = next(data.validation(data.val, ("all", "labelled"), draw=1))
    batch = data.batch(plan, data.val, {}, "cpu")
    assert (batch["all"]["y"] == -1).all() and (batch["labelled"]["y"] == -1).all()


def test_score_of_kmeans_is_the_distance_to_the_nearest_centre():
    learner, objective, data = started("kmeans", "table")
    x = learner.encoder(data.train.inputs(torch.arange(len(data.train)))).detach().double()
    objective.inertia[3] = 0.0  # the restart of least inertia
    distance = torch.cdist(x, objective.centres[3] + objective.origin)
    found = proxies.scores_of(objective, learner.encoder, data, data.train, CPU)
    torch.testing.assert_close(found, distance.amin(1), rtol=1e-5, atol=1e-5)
