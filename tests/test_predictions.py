"""The scores of a method's own predictions: by the last step, as a median of the last ones, at the best one."""

import json
import statistics

import pytest
import torch

import sslrun
from sslrun import predictions
from sslrun.data.image import digits
from sslrun.data.module import Data
from sslrun.record.tail import Tail
from sslrun.verbs.resume import main as resume

RUN = ["method=mean_teacher", "labels=20", "mu=1", "batch_size=16", "steps=100", "encoder.width=4", "eval=[knn]",
       "reference=null", "logger=none", "device.threads=1", "precision=fp32"]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of 100 steps, and each weight that its tail kept, before it was dropped."""
    folder, kept = tmp_path_factory.mktemp("tail") / "run", {}

    def drop(tail):
        kept.update(zip(tail.steps, tail.states(), strict=True))
        Tail.drop(tail)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sslrun.run.Tail", type("Kept", (Tail,), {"drop": drop}))
        metrics = sslrun.run(RUN, folder=folder)
    return folder, metrics, kept


def accuracy(folder, state):
    """Of the student's weights in a state, on the test part, by nothing that the run used to score them."""
    encoder = sslrun.load(folder)
    own = {k.removeprefix("encoder."): v for k, v in state.items() if k.startswith("encoder.")}
    encoder.load_state_dict(own)
    weight, bias = (state[f"objectives.mean_teacher.head.{k}"] for k in ("weight", "bias"))
    data = Data(digits(), seed=0, split_seed=0, labels=20, val_fraction=0.08, test_fraction=0.2)
    test = data.open_test()
    with torch.no_grad():
        answer = encoder.eval()(test.inputs(torch.arange(len(test)))) @ weight.T + bias
    return float((answer.argmax(1) == test.labels).float().mean())


def test_plain_scores_are_the_last_steps_and_the_others_say_so(run):
    folder, metrics, kept = run
    results, step = metrics["results"], metrics["validation"]["step"]
    found = {s for s in results if s.startswith(("model", "ema"))}
    assert found == {f"{s}{v}" for s in ("model", "ema") for v in ("", ":median20", ":best")}
    assert list(kept) == list(range(81, 101))
    each = [accuracy(folder, state) for state in kept.values()]
    assert results["model"]["classify/accuracy"] == pytest.approx(each[-1], abs=1e-6)
    assert results["model:median20"]["classify/accuracy"] == pytest.approx(statistics.median(each), abs=1e-6)
    assert len(set(each)) > 2, "the steps differ"
    best = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert best["global_step"] == step
    assert results["model:best"]["classify/accuracy"] == pytest.approx(accuracy(folder, best["state_dict"]), abs=1e-6)
    told = metrics["protocol"]["classify"]
    assert told["selected_on"] == "nothing: the last step" and "validation/classify_accuracy" in told["best"]
    assert told["validation_labels"].startswith("143")


def test_nothing_is_left_of_the_tail_and_the_last_weights_are_kept(run):
    folder, _, kept = run
    assert sorted(p.name for p in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt", "origin.json"]
    last = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(v, kept[100][k]) for k, v in last.items())
    assert all(torch.equal(v, kept[100][f"encoder.{k}"]) for k, v in sslrun.load(folder).state_dict().items())


def test_a_run_that_was_killed_in_its_tail_tells_the_same(run, tmp_path, monkeypatch):
    calls = []

    def stop(tail, trainer, *rest):
        Tail.on_train_batch_end(tail, trainer, *rest)
        calls.append(trainer.global_step)
        if calls.count(92) == 1 and calls[-1] == 92:
            raise KeyboardInterrupt

    monkeypatch.setattr("sslrun.run.Tail", type("Stopped", (Tail,), {"on_train_batch_end": stop}))
    with pytest.raises(KeyboardInterrupt):
        sslrun.run(RUN, folder=tmp_path / "run")
    assert len(list((tmp_path / "run/checkpoints/tail").iterdir())) == 12
    resume([str(tmp_path / "run")])
    results = [json.loads((f / "metrics.json").read_text())["results"] for f in (run[0], tmp_path / "run")]
    assert calls[-1] == 100 and calls.count(92) > 1
    assert results[0] == results[1]


def test_a_run_that_ended_before_its_tail_tells_no_median(tmp_path):
    metrics = sslrun.run([*RUN, "max_time=1s", "steps=100000"], folder=tmp_path / "run")
    assert "model" in metrics["results"] and "model:median20" not in metrics["results"]
    short = Tail(tmp_path, 99)
    assert short.steps == [] and list(short.states()) == []


def test_only_what_steps_decide_has_several_scores(trained):
    results = json.loads((trained("kmeans") / "metrics.json").read_text())["results"]
    assert {s for s in results if s.startswith("model")} == {"model"}
    assert predictions.protocol_of(results, None, 10, 0) == {}
