"""Several methods in one run: their order, weights, scales and settings, what is refused, and what is reported."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
from collections import defaultdict

import pytest
import torch
from omegaconf import OmegaConf

from sslrun.build import build, resolved
from sslrun.cli import main
from sslrun.compose import compose
from sslrun.contracts import DataSpec, UserError
from sslrun.data.loader import Loader
from sslrun.learner import Learner
from sslrun.methods.semi.supervised import Supervised
from sslrun.multitask import settled
from sslrun.streams import streams_of, views_of

LEAN = ["steps=2", "encoder.width=4", "eval=[knn]", "logger=none", "precision=fp32", "device.threads=1"]


def found(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    curves: dict[str, list[float]] = defaultdict(list)
    for row in csv.DictReader((folder / "metrics.csv").open()):
        curves[row["name"]].append(float(row["value"]))
    return metrics, curves


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run of a classifier and a task, and what it said."""
    place = tmp_path_factory.mktemp("both")
    typed = ["method=[supervised,rotation]", "labels=20", "batch_size=64", "method.rotation.weight=0.5", *LEAN]
    with contextlib.chdir(place), contextlib.redirect_stdout(io.StringIO()) as said:
        main(typed)
    (folder,) = place.glob("outputs/rotation+supervised/digits/*")
    return folder, said.getvalue()


def settings(*overrides):
    return resolved(compose(overrides)[0], overrides)


def test_the_order_of_naming_changes_nothing():
    """To the order of every key: what is computed from the same configuration is the same, bit for bit."""
    one, two = (settings(f"method=[{names}]", "batch_size=64") for names in ("jigsaw,rotation", "rotation,jigsaw"))
    assert OmegaConf.to_yaml(one) == OmegaConf.to_yaml(two) and list(one.method) == ["jigsaw", "rotation"]
    assert compose(["method=[rotation,jigsaw]"])[1].parts[1] == "jigsaw+rotation"
    composed, _ = compose(["method=[rotation,jigsaw]", "encoder.width=4"])
    assert list(build(composed).objectives) == ["jigsaw", "rotation"]


def test_a_classifier_beside_a_task_is_held_against_the_network_of_labels_alone(run):
    metrics, _ = found(run[0])
    assert metrics["method"] == "rotation+supervised" and "batch_size=64 as in supervised, not 128 (rotation)" in run[1]
    results = metrics["results"]
    assert metrics["primary"] == "classify/accuracy" and metrics["harm"] in (True, False, "unknown")
    assert {"model:supervised", "model:rotation", "trivial:rotation", "supervised"} <= set(results)
    assert "classify/accuracy" in results["supervised"] and "classify/accuracy" in results["model:supervised"]
    assert "task/skill" in results["model:rotation"]
    alone = compose(["method=supervised"])[0]
    assert alone.reference is None and compose(["method=[supervised,rotation]", "reference=null"])[0].reference is None


def test_losses_are_logged_apart_and_as_the_weighted_sum_of_what_each_is_without_learning(run):
    _, curves = found(run[0])
    for phase in ("train", "validation"):
        parts = zip(curves[f"{phase}/rotation/loss"], curves[f"{phase}/supervised/loss"], strict=True)
        expected = [0.5 * turn / math.log(4) + label / math.log(10) for turn, label in parts]  # 2 labels a class
        assert curves[f"{phase}/loss"] == pytest.approx(expected, rel=1e-4)
    skill = [1 - loss / math.log(4) for loss in curves["validation/rotation/loss"]]
    assert curves["validation/rotation/skill"] == pytest.approx(skill, abs=1e-5)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["method=[rotation,jigsaw,rotation]"], "names rotation twice; method.rotation.weight=2"),
        (["method=[rotation,kmeans]"], "method=kmeans is not trained by gradients.*method=[[]rotation[]] alone"),
        (["method=[rotation,denoising_autoencoder]"], "no data in common: .*rotation image data"),
        (["method=[rotation,jigsaw]", "method.rotation.weight=0", "method.jigsaw.weight=0"], "leaves nothing to train"),
        (["method=rotation", "method.rotation.weight=0"], "method.rotation.weight=0 leaves nothing to train"),
    ],
)
def test_what_cannot_be_together_is_refused(overrides, words):
    with pytest.raises(UserError, match=words):
        settings(*overrides)


@pytest.mark.parametrize(
    "overrides", [["method=[rotation,jigsaw]", "method.jigsaw.weight=0"], ["method=kmeans"], ["method=[]"]]
)
def test_what_can_is_not(overrides):
    settings(*overrides)


def own_methods(folder, **own):
    """User's methods in a folder: rotation under other names, each with top-level settings of its own."""
    (folder / "method").mkdir()
    for name, lines in own.items():
        node = f"method: {{{name}: {{_target_: sslrun.methods.pretext.image.rotation.Rotation}}}}"
        (folder / f"method/{name}.yaml").write_text("\n".join(["# @package _global_", *lines, node]))


def test_where_their_files_differ_the_last_named_wins_and_the_run_says_so(own_place, monkeypatch):
    a = ["defaults: [override /optimizer: sgd]", "epochs: 3", "mu: 2", "optimizer: {lr: 0.3}"]
    b = ["defaults: [override /optimizer: lars]", "epochs: 5", "mu: 2"]
    own_methods(own_place, a=a, b=b)
    monkeypatch.setenv("SSLRUN_CONFIG_DIR", str(own_place))
    monkeypatch.syspath_prepend(str(own_place))
    for names, epochs, optimizer in (("a,b", 5, "lars"), ("b,a", 3, "sgd")):
        cfg = settings(f"method=[{names}]")
        assert (cfg.epochs, cfg.optimizer._target_) == (epochs, f"sslrun.nn.optim.{optimizer}")
        assert list(cfg.method) == ["a", "b"]
        told = settled(cfg)
        last, other = names[-1], names[0]
        assert told == [
            f"epochs={epochs} as in {last}, not {8 - epochs} ({other})",
            f"optimizer={optimizer} as in {last}, not {'sgd' if optimizer == 'lars' else 'lars'} ({other})",
        ]
    assert settled(settings("method=[a,b]", "epochs=9", "optimizer=adamw")) == []
    assert settled(settings("method=a")) == []


def test_tasks_of_other_recipes_get_views_of_their_own():
    overrides = ["method=[rotation,jigsaw,relative_patch]", "method.jigsaw.recipe=weak", "method.jigsaw.weight=0.5"]
    built = build(settings(*overrides, "encoder.width=4"))
    assert views_of(built.objectives.values()) == {"all": {("view", "crop_only"), ("view", "plain"), ("view", "weak")}}
    assert built.weights == {"jigsaw": 0.5, "relative_patch": 1.0, "rotation": 1.0}


# Scales


def scales(*overrides):
    cfg = settings(*overrides, "encoder.width=4")
    built = build(cfg)
    learner = Learner(built.encoder, built.objectives, built.data, built.weights)
    streams = streams_of(built.objectives.values())
    by_rank = []
    for rank in range(2):
        learner.scales.fill_(1)
        learner.prepare(Loader(built.data, streams, cfg.batch_size, cfg.mu, rank, 2).first())
        by_rank.append(dict(zip(built.objectives, learner.scales.tolist(), strict=True)))
    assert by_rank[0] == by_rank[1], "every process divides by the same"
    return by_rank[0]


def test_a_contrastive_loss_is_scaled_by_chance_among_the_global_batch():
    assert scales("method=[simclr,rotation]", "batch_size=100") == pytest.approx(
        {"simclr": math.log(199), "rotation": math.log(4)}
    )


def test_losses_of_labels_are_scaled_by_the_shares_of_the_classes_shown():
    even = scales("method=[supervised,fixmatch]", "labels=40", "batch_size=16", "mu=2")
    assert even == pytest.approx({"supervised": math.log(10), "fixmatch": math.log(10)})


class Labels:
    """What `prepare` reads of a data module: labels, and which of them are shown."""

    def __init__(self, y, labelled):
        self.train, self.y, self.labelled = self, torch.tensor(y), torch.tensor(labelled)


def test_hidden_labels_do_not_count_and_a_single_class_leaves_something_to_divide_by():
    class Stub(torch.nn.Module):
        dim = 3

    made = Supervised(Stub(), DataSpec("d", "table", (3,), 2))
    made.prepare(Labels([0, 1, 1, 1, 0], [0, 1, 2]), Stub())
    p = torch.tensor([2 / 5, 3 / 5])  # one and two shown, and one more of each
    assert made.trivial_loss(None).item() == pytest.approx(-(p * p.log()).sum().item())
    made.prepare(Labels([0, 0, 0, 1], [0, 1, 2]), Stub())
    assert 0 < made.trivial_loss(None).item() < math.log(2)


# Running statistics


def after_a_step(*overrides, only=None):
    """The encoder's running means after one training step, by layer; `only` trains one objective of them."""
    built = build(settings(*overrides, "labels=20", "batch_size=16", "encoder.width=4"))
    objectives = {k: v for k, v in built.objectives.items() if only in (None, k)}
    learner = Learner(built.encoder, objectives, built.data)
    loader = Loader(built.data, streams_of(built.objectives.values()), 16, 2)
    learner.train().training_step(loader.plan(0, 0), 0)
    means = {k: v for k, v in learner.encoder.named_buffers() if k.endswith(("running_mean", "batches_tracked"))}
    assert means and all(m.track_running_stats for m in learner.encoder.modules() if hasattr(m, "running_mean"))
    return means


@pytest.mark.parametrize("classifier", ["supervised", "fixmatch"])
def test_the_inputs_of_a_task_do_not_move_what_normalises_a_classifiers_pictures(classifier):
    names = f"method=[{classifier},jigsaw]"
    beside, alone = after_a_step(names), after_a_step(names, only=classifier)
    assert all(torch.equal(beside[k], alone[k]) for k in alone)
    assert any(v.any() for v in alone.values())


def test_without_a_classifier_every_task_moves_it():
    both = after_a_step("method=[rotation,jigsaw]")
    assert {int(v) for k, v in both.items() if k.endswith("tracked")} == {2}
