"""The forecast measures a copy: nothing of the run changes, and the memory it names is what training keeps."""

import copy

import pytest
import torch
from safetensors.torch import load_file

import sslrun
from sslrun import run as run_module
from sslrun.build import build
from sslrun.compose import compose
from sslrun.device import resolve
from sslrun.fit import loader_for
from sslrun.forecast import _part, forecast
from sslrun.learner import Learner

SMALL = ["batch_size=32", "device.threads=1", "precision=fp32"]
METHODS = {
    "simclr": ["method=simclr", "encoder.width=8"],
    "fixmatch": ["method=fixmatch", "labels=40", "encoder.width=8"],
    "kmeans": ["method=kmeans"],
    "table": ["method=denoising_autoencoder", "data=wine"],
}


@pytest.fixture(params=METHODS)
def ready(request):
    """A learner in front of its first step."""
    cfg, _ = compose([*METHODS[request.param], *SMALL])
    built, device = build(cfg), resolve(cfg)
    learner = Learner(built.encoder, built.objectives, built.data)
    learner.prepare()
    learner.train()
    return learner, loader_for(built.data, built.objectives, cfg.batch_size, cfg.mu, device), device


def batch_of(learner, loader):
    batch = learner.data.batch(loader.plan(0, 0), learner.data.train, learner.views, "cpu")
    return {(name, key): value.clone() for name in batch for key, value in batch[name].items()}


def test_weights_buffers_modes_and_batches_stay(ready):
    learner, loader, device = ready
    before, batch = copy.deepcopy(learner.state_dict()), batch_of(learner, loader)
    modes = [m.training for m in learner.modules()]
    seconds, memory = forecast(learner, loader, 10, 1, device)
    assert seconds > 0 and memory >= 0
    after = learner.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    assert all(p.grad is None for p in learner.parameters())
    assert modes == [m.training for m in learner.modules()]
    again = batch_of(learner, loader)
    assert all(torch.equal(batch[k], again[k]) for k in batch) and batch.keys() == again.keys()


def saved(learner, loader):
    """Bytes of the tensors that a whole step keeps for its backward pass, parameters left out."""
    kept = {}
    own = {p.untyped_storage().data_ptr() for p in learner.parameters()}

    def note(x):
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage()
        return x

    with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        loss = learner.training_step(loader.plan(0, 0), 0)
    assert loss.isfinite()
    return sum(s.nbytes() for at, s in kept.items() if at not in own)


def test_memory_is_what_backward_keeps_and_what_the_optimiser_adds(ready):
    learner, loader, device = ready
    _, memory = forecast(learner, loader, 10, 1, device)
    state = 3 * sum(p.numel() * p.element_size() for p in learner.parameters() if p.requires_grad)
    needed = saved(learner, loader)
    if needed:
        assert 0.9 * needed <= memory - state <= 1.5 * needed
    else:
        assert memory == state == 0, "k-means keeps nothing for a gradient"


def test_time_grows_with_steps_and_accumulation(ready, monkeypatch):
    learner, loader, device = ready
    monkeypatch.setattr("sslrun.forecast._step", lambda twin, plan, device, measure=False: (0.5, 0))
    assert forecast(learner, loader, 10, 3, device)[0] == 0.5 * 4 * 10 * 3, "a slow quarter stands for the whole"
    monkeypatch.setattr(
        "sslrun.forecast._step", lambda twin, plan, device, measure=False: (0.1, 0) if measure else (0.3, 0)
    )
    assert forecast(learner, loader, 10, 3, device)[0] == pytest.approx(0.3 * 10 * 3)


def test_a_quarter_of_a_step_keeps_two_rows_for_batch_statistics():
    cfg, _ = compose(["method=fixmatch", "labels=40", "batch_size=4", "mu=4", *SMALL[1:]])
    built, device = build(cfg), resolve(cfg)
    plan = loader_for(built.data, built.objectives, 4, 4, device).plan(0, 0)
    part = _part(plan, 4)
    for name, rows in {"labelled": 2, "unlabelled": 4}.items():
        assert torch.equal(part.streams[name].positions, plan.streams[name].positions[:rows])
        assert part.streams[name].total == rows, "a step of its own"


def test_a_run_with_and_without_it_is_the_same_to_the_bit(tmp_path, monkeypatch):
    lean = ["method=fixmatch", "labels=40", "encoder.width=8", "steps=6", "eval=[knn]", "reference=null", "logger=none"]
    sslrun.run([*lean, *SMALL], folder=tmp_path / "with")
    called = []
    monkeypatch.setitem(vars(run_module), "forecast", lambda *_: called.append(True))
    sslrun.run([*lean, *SMALL], folder=tmp_path / "without")
    assert called
    ours, theirs = (load_file(tmp_path / name / "encoder/model.safetensors") for name in ("with", "without"))
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)
    for name in ("predictions.csv", "splits.json"):
        assert (tmp_path / "with" / name).read_text() == (tmp_path / "without" / name).read_text()
