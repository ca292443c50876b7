"""What a classifier believes, and what is said of it while a run goes on."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sslrun.advice import Advice
from sslrun.beliefs import Beliefs, bins, calibration_error, gradient_norms, unlabelled
from sslrun.contracts import DataSpec
from sslrun.encoders.cnn import Cnn
from sslrun.record.figures import beliefs as picture


def test_calibration_error_is_that_of_torchmetrics():
    from torchmetrics.functional.classification import multiclass_calibration_error

    draw = torch.Generator().manual_seed(0)
    p = torch.softmax(3 * torch.randn(500, 4, generator=draw), 1)
    y = torch.randint(4, (500,), generator=draw)
    theirs = multiclass_calibration_error(p, y, 4, n_bins=10, norm="l1")
    assert float(calibration_error(p, y)) == pytest.approx(float(theirs), abs=1e-6)
    count, confident, right = bins(p, y)
    assert int(count.sum()) == 500 and bool((confident[count > 0] > 0).all()) and float(right.max()) <= 1


def test_scalars_tell_how_far_guesses_stray_from_the_prior():
    guesses = torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1]])
    found = Beliefs("m", torch.tensor([0.25, 0.25, 0.5]), guesses, torch.zeros(0, 3), torch.zeros(0).long())
    told = found.scalars()
    assert found.shares.tolist() == [0.75, 0.25, 0.0]
    assert told == pytest.approx(
        {"guesses/largest_class": 0.75, "guesses/off_prior": 0.5, "guesses/confidence": 0.75}, abs=1e-6
    )


class Line(nn.Module):
    """An encoder of one weight w; the terms below have the gradients 3 and 4 w."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(2.0))


def test_gradient_norms_are_each_terms_own():
    encoder = Line()

    def objective(encoder, batch):
        return {"loss": 9 * encoder.w, "loss_labelled": 3 * encoder.w, "loss_unlabelled": 2 * encoder.w**2,
                "loss_idle": 0 * encoder.w.detach(), "accuracy": torch.ones(())}  # fmt: skip

    with torch.no_grad():  # as a look is
        assert gradient_norms(encoder, objective, None) == {"loss_labelled": 3.0, "loss_unlabelled": 8.0}
    assert encoder.w.grad is None


@pytest.mark.skipif(not shutil.which("g++"), reason="compiling for a CPU needs g++")
def test_gradient_norms_of_a_compiled_encoder():
    plain = Cnn(DataSpec("d", "image", (1, 8, 8), 3, ("a", "b", "c")), width=2)
    compiled = copy.deepcopy(plain)
    compiled.compile()

    def objective(encoder, x):
        z = encoder(x)
        return {"loss_a": z.sum(), "loss_b": z.square().sum()}

    objective(compiled, torch.randn(24, 1, 8, 8))["loss_a"].backward()
    plain.load_state_dict(compiled.state_dict())
    batch = torch.randn(40, 1, 8, 8)  # another size than that of training, so that it is compiled for any
    found, wanted = (gradient_norms(e.eval(), objective, batch) for e in (compiled, plain))
    assert found == pytest.approx(wanted, rel=1e-5)


def test_guessed_rows_have_no_label_and_lie_all_over_the_part():
    y = torch.full((5000,), -1)
    y[::2] = 1
    rows = unlabelled(SimpleNamespace(train=SimpleNamespace(y=y)))
    assert len(rows) == 1024 and bool((y[rows] == -1).all()) and rows.max() > 4900
    assert len(unlabelled(SimpleNamespace(train=SimpleNamespace(y=torch.ones(5))))) == 0


@pytest.mark.parametrize("guesses, known", [(50, 20), (0, 20), (50, 0)])
def test_picture_leaves_out_what_is_not_there(guesses, known):
    prior = torch.full((3,), 1 / 3)
    p = torch.softmax(torch.randn(known, 3), 1)
    drawn = picture(prior, prior, torch.rand(guesses), bins(p, torch.zeros(known).long()), ("a", "b", "c"))
    assert drawn.ndim == 3
    assert drawn.shape[1] == round(110 * 4.2 * ((2 if guesses else 0) + (1 if known else 0)))


# What is said


def advice(rates, beliefs=None, per_epoch=10, total=1000):
    told = []
    look = SimpleNamespace(beliefs=beliefs)
    callback = Advice(look, per_epoch, total, told.append)
    objective = SimpleNamespace(threshold=0.95)
    spec = DataSpec("d", "image", (1, 2, 2), 3, ("cat", "dog", "owl"))
    learner = SimpleNamespace(scalars={}, objectives={"fixmatch": objective}, data=SimpleNamespace(spec=spec))
    for step, rate in enumerate(rates, 1):
        learner.scalars["mask_rate"] = torch.tensor(rate)
        callback.on_train_batch_end(SimpleNamespace(global_step=step, is_global_zero=True), learner)
    return told


def test_an_idle_term_is_spoken_of_once():
    told = advice([0.0] * 350)
    assert len(told) == 1
    assert "last 100 steps" in told[0] and "method.fixmatch.threshold=0.95" in told[0]
    assert len(advice([0.0] * 350, per_epoch=300)) == 1 and advice([0.0] * 250, per_epoch=300) == []
    assert advice(([0.0] * 90 + [0.1] * 10) * 3) == [], "now and then a row is trusted"


def test_guesses_of_one_class_are_spoken_of_after_a_while():
    alike = torch.eye(3)[torch.tensor([1] * 97 + [0] * 3)]
    nothing = (torch.zeros(0, 3), torch.zeros(0).long())
    found = Beliefs("fixmatch", torch.full((3,), 1 / 3), alike, *nothing)
    assert advice([0.5] * 190, found) == []
    told = advice([0.5] * 300, found)
    assert len(told) == 1 and "dog 97 %, cat 3 %" in told[0] and "dog has 33 %" in told[0]
    even = Beliefs("fixmatch", torch.full((3,), 1 / 3), torch.eye(3), *nothing)
    skewed = Beliefs("fixmatch", torch.tensor([0.02, 0.96, 0.02]), alike, *nothing)
    assert advice([0.5] * 300, even) == [] and advice([0.5] * 300, skewed) == []


def test_a_run_says_that_nothing_is_trusted_and_draws_its_beliefs(command):
    said = command("method=fixmatch", "method.fixmatch.threshold=1", "labels=20", "mu=1", "batch_size=32", "steps=50",
                   "encoder.width=4", "eval=[knn]", "reference=null", "logger=none", "precision=fp32",
                   "hydra.run.dir=run")  # fmt: skip
    assert said.err.count("no guess was as sure as method.fixmatch.threshold=1") == 1
    assert len(json.loads(Path("run/metrics.json").read_text())["remarks"]) == 1
    assert Path("run/figures/beliefs.png").exists()
    curves = Path("run/metrics.csv").read_text()
    for name in ("gradient/loss_labelled", "guesses/largest_class", "validation/calibration_error"):
        assert name in curves
