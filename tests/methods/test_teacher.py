"""`teacher=RUN`: what a student takes from another run, and which runs cannot teach."""

import json
import shutil

import numpy as np
import pytest
import torch
from worlds import End, device, train

SMALL = ["method=distillation", "steps=4", "batch_size=32", "mu=1", "precision=fp32", "device.threads=1"]
LEAN = ["eval=[knn]", "reference=null", "logger=none"]
NARROW = "encoder.width=8"


def state(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)


def test_a_student_learns_from_a_run_and_outlives_it(command, own_place, copied):
    teacher, run = copied("supervised"), own_place / "student"
    said = command(*SMALL, *LEAN, NARROW, "labels=40", f"teacher={teacher}", f"hydra.run.dir={run}")
    assert said.status == 0 and "the method of teacher= has learned from 40 labels already" in said.out
    metrics = json.loads((run / "metrics.json").read_text())
    assert not any("@10/" in key for found in metrics["results"].values() for key in found)
    learned = json.loads((run / "metrics.json").read_text())["results"]["model"]
    assert learned["classify/accuracy"] > 0

    kept, theirs = state(run), state(teacher)["state_dict"]
    for key, value in theirs.items():
        mine = key.replace("objectives.supervised.", "objective.")
        if key.startswith(("encoder.", "objectives.")):  # as the run left it
            assert torch.equal(kept["state_dict"][f"objectives.distillation.teacher.{mine}"], value)
    sizes = [sum(v.numel() for v in s.values() if v.dim()) for s in kept["optimizer_states"][0]["state"].values()]
    encoder = sum(v.numel() for k, v in theirs.items() if k.startswith("encoder."))
    assert 0 < sum(sizes) < 2.5 * encoder  # moments of one network, not of two

    shutil.rmtree(teacher)
    assert command("predict", run, "out=p.csv").status == 0
    said = command("resume", run, "steps=8")
    assert said.status == 1 and len(said.err.splitlines()) == 1 and f"teacher={teacher} is not a run folder" in said.err


def test_a_student_of_a_run_is_resumed_bit_for_bit(trained, tmp_path):
    arguments = [*SMALL, NARROW, "labels=40", f"teacher={trained('supervised')}"]
    whole = train(arguments, device(), steps=4, folder=tmp_path / "whole")
    train(arguments, device(), steps=4, folder=tmp_path / "again", end=End(1, "stop"))
    again = train(arguments, device(), steps=4, folder=tmp_path / "again", resume=True)
    one, two = whole.state()["learner"], again.state()["learner"]
    assert len(again.losses) < 4 and any("teacher" in key for key in one)
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def without_checkpoint(run):
    shutil.rmtree(run / "checkpoints")


def with_other_classes(run):
    path = run / "encoder/config.yaml"
    path.write_text(path.read_text().replace("- '9'", "- nine"))


@pytest.mark.parametrize(
    "teacher, change, more, words",
    [
        ("nowhere", None, [], "nowhere is not a run folder"),
        ("simclr", None, [], "is of method=simclr, which predicts no classes to learn; name a run of one of co_train"),
        ("kmeans", None, [], "is of method=kmeans, which predicts no classes"),
        ("supervised", without_checkpoint, [], "has no checkpoint to learn from"),
        ("supervised", with_other_classes, [], "of classes 0, 1, 2, 3, 4, 5, 6, 7, 8, nine, not 0, 1"),
        ("supervised", None, ["data=wine"], "of modality image, not table as in data=wine"),
        ("supervised", None, ["data=image_arrays", "data.path=l.npz"], "of shape 1, 8, 8, not 1, 16, 16 as in data=l"),
        ("supervised", None, ["labels=10"], "labels=10 is fewer than the 40 labels that the method of teacher="),
        ("supervised", None, ["split_seed=3"], "learned from samples that split_seed=3 tests on; add split_seed=0"),
    ],
)
def test_runs_that_cannot_teach(command, trained, copied, teacher, change, more, words):
    np.savez("l.npz", x_train=np.zeros((80, 16, 16), np.uint8), y_train=np.arange(80) % 10)
    run = copied(teacher) if change else teacher if teacher == "nowhere" else trained(teacher)
    if change:
        change(run)
    said = command(*SMALL, *LEAN, "labels=40", f"teacher={run}", *more)
    assert said.status == 1 and len(said.err.splitlines()) == 1, said.err
    assert "teacher=" in said.err and words in said.err, said.err
