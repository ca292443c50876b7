"""What the examples of semi-supervised methods (`sslrun check`) do not reach: state over steps, and refusals."""

import math

import pytest
import torch
from batches import Linear, after, picture

from sslrun.check.byhand import held_against
from sslrun.methods.semi.entropy_minimisation import EntropyMinimisation
from sslrun.methods.semi.flexmatch import FlexMatch
from sslrun.methods.semi.freematch import FreeMatch
from sslrun.methods.semi.mean_teacher import MeanTeacher
from sslrun.methods.semi.mixmatch import MixMatch
from sslrun.methods.semi.pi_model import PiModel
from sslrun.methods.semi.pseudo_label import PseudoLabel
from sslrun.methods.semi.softmatch import SoftMatch
from sslrun.methods.semi.temporal_ensembling import TemporalEnsembling
from sslrun.methods.semi.uda import UDA
from sslrun.nn.example import Example

ZERO, ONE, UNSURE = (0.97, 0.03), (0.02, 0.98), (0.6, 0.4)


def weak(*rows, index=None):
    """A batch of these weak probabilities; strong ones, which no state depends on, are all alike."""
    unlabelled = {"weak": rows, "strong": ((0.7, 0.3),) * len(rows)}
    if index is not None:
        unlabelled["index"] = index
    return {"labelled": {"weak": ((0.5, 0.5),), "y": (0,)}, "unlabelled": unlabelled}


# FlexMatch


def test_flexmatch_remembers_the_last_confident_guess_of_each_sample():
    made = after(FlexMatch, weak(ZERO, ZERO, ZERO, UNSURE), weak(ONE, UNSURE, index=(0, 2)))
    assert made.guesses.tolist() == [1, 0, 0, 2]  # 2: none yet; an unsure look forgets nothing
    torch.testing.assert_close(made.thresholds(), 0.95 * torch.tensor([1, 0.5 / 1.5]))


def test_flexmatch_counts_no_sample_outside_training():
    made = after(FlexMatch, weak(ZERO, UNSURE, UNSURE))
    guesses = made.guesses.clone()
    made.eval()
    made.trust(torch.tensor([ONE, ONE, ONE]), torch.tensor([0, 1, 2]))
    assert torch.equal(made.guesses, guesses)


# FreeMatch and SoftMatch


def test_freematch_follows_confidence_mean_and_histogram():
    made = after(FreeMatch, weak((0.9, 0.1), (0.7, 0.3)), weak((0.6, 0.4), (0.2, 0.8)), decay=0.75)
    # each goes a quarter of the way: to 0.8, then to 0.7; to 0.8, then to 0.4; to 1, then to 1/2
    torch.testing.assert_close(made.confidence, torch.tensor((0.5 * 0.75 + 0.8 / 4) * 0.75 + 0.7 / 4))
    mean, share = ((0.5 * 0.75 + first / 4) * 0.75 + second / 4 for first, second in ((0.8, 0.4), (1, 0.5)))
    torch.testing.assert_close(made.mean, torch.tensor([mean, 1 - mean]))
    torch.testing.assert_close(made.histogram, torch.tensor([share, 1 - share]))


def test_freematch_with_no_trusted_row_has_a_finite_fairness_without_gradient():
    made = after(FreeMatch, weak(UNSURE))
    strong = torch.tensor([[0.3, 0.2]], requires_grad=True)
    _, term = made.extra(strong, torch.zeros(1))["loss_fairness"]
    term.backward()
    assert term.isfinite() and not strong.grad.any()


def test_softmatch_follows_mean_variance_and_classes():
    first, second = ((0.9, 0.1), (0.7, 0.3)), ((0.6, 0.4), (0.2, 0.8), (0.5, 0.5))
    made = after(SoftMatch, weak(*first), weak(*second), decay=0.5)
    classes, mean, variance = torch.tensor([0.5, 0.5]), 0.5, 1.0
    for rows in map(torch.tensor, (first, second)):
        classes = (classes + rows.mean(0)) / 2
        aligned = rows / classes
        sure = (aligned / aligned.sum(1, keepdim=True)).amax(1)
        mean, variance = (mean + sure.mean()) / 2, (variance + sure.var()) / 2
    torch.testing.assert_close(made.classes, classes)
    torch.testing.assert_close(made.mean, mean)
    torch.testing.assert_close(made.variance, variance)


def test_softmatch_takes_a_single_row():
    made = after(SoftMatch, weak((0.9, 0.1)), decay=0.5)
    assert made.variance == 0.5  # one row has none


@pytest.mark.parametrize("kind", (FreeMatch, SoftMatch))
def test_adaptive_state_bears_a_thousand_steps_of_certainty(kind):
    made = after(kind, weak((0.9, 0.1)), decay=0.5)
    made.train()
    for _ in range(1000):
        trust = made.trust(torch.tensor([[1.0, 0.0]] * 4), torch.arange(4))
    assert trust.tolist() == [1.0] * 4


@pytest.mark.parametrize("kind", (FreeMatch, SoftMatch))
def test_adaptive_state_rests_outside_training(kind):
    made = after(kind, weak((0.9, 0.1), (0.7, 0.3)))
    before = {k: v.clone() for k, v in made.named_buffers()}
    made.eval()
    made.trust(torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
    assert all(torch.equal(v, before[k]) for k, v in made.named_buffers())


# Temporal ensembling


def test_temporal_ensembling_keeps_a_running_mean_of_each_sample():
    def seen(*rows, index):
        labelled = {"view": ((0.5, 0.5),), "y": (0,)}
        return {"labelled": labelled, "unlabelled": {"view": rows, "index": index}}

    made = after(TemporalEnsembling, seen(ZERO, UNSURE, index=(2, 0)), seen(ONE, index=(2,)), momentum=0.75)
    twice = [(0.75 * a + b) / 4 for a, b in zip(ZERO, ONE, strict=True)]
    expected = torch.tensor([[p / 4 for p in UNSURE], [0, 0], twice])
    torch.testing.assert_close(made.memory, expected)
    assert made.visits.tolist() == [1, 0, 2]


def test_temporal_ensembling_remembers_training_alone():
    streams = {"labelled": {"view": ((0.5, 0.5),), "y": (0,)}, "unlabelled": {"view": (ZERO, ONE)}}
    made = after(TemporalEnsembling, streams)
    memory = made.memory.clone()

    def asked(objective, batch):
        objective.eval()
        out = objective(lambda x: x.flatten(1), batch)
        assert out["loss_unlabelled"] == 0 and "mask_rate" not in out
        return None if torch.equal(objective.memory, memory) else "moved"

    assert held_against(TemporalEnsembling, Example("", streams, rule=asked)) == {"rule": None}


# UDA


@pytest.mark.parametrize(
    ("signal", "bar"), [("linear", 0.25), ("log", 1 - math.exp(-5 * 0.25)), ("exp", math.exp(5 * (0.25 - 1)))]
)
def test_uda_leaves_out_labelled_rows_above_a_rising_bar(signal, bar):
    bar = 0.5 + 0.5 * bar  # of two classes
    below, above = bar - 0.01, bar + 0.01
    streams = weak(UNSURE) | {"labelled": {"weak": ((below, 1 - below), (above, 1 - above)), "y": (0, 0)}}
    expected = {"loss_labelled": -math.log(below)}
    example = Example("", streams, expected, settings={"signal": signal}, done=0.25)
    assert held_against(UDA, example) == {"numbers": None}


def test_uda_with_no_labelled_row_below_the_bar_has_no_loss():
    streams = weak(UNSURE) | {"labelled": {"weak": (ZERO,), "y": (0,)}}
    example = Example("", streams, {"loss_labelled": 0.0}, settings={"signal": "exp"}, done=0.0)
    assert held_against(UDA, example) == {"numbers": None}


# Weights and refusals


@pytest.mark.parametrize("kind", (EntropyMinimisation, MeanTeacher, MixMatch, PiModel, TemporalEnsembling))
def test_without_a_ramp_the_weight_is_full_from_the_start(kind):
    made = kind(Linear(16, 3), picture(), ramp=0.0)
    made.horizon = 100
    assert made.rise() == 1
    assert kind(Linear(16, 3), picture(), ramp=0.5).rise() < 0.01


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        (UDA, {"threshold": 1.5}, "threshold=1.5 must lie above 0 and not above 1"),
        (UDA, {"temperature": 0.0}, "temperature=0.0 must lie above 0"),
        (UDA, {"signal": "cosine"}, "signal=cosine is unknown; choose one of linear, log, exp, or null"),
        (FlexMatch, {"threshold": 0.0}, "threshold=0.0 must lie above 0"),
        (FreeMatch, {"decay": 1.0}, r"decay=1.0 must lie in \[0, 1\)"),
        (FreeMatch, {"highest": 0.0}, "highest=0.0 must lie above 0"),
        (SoftMatch, {"sigmas": 0.0}, "sigmas=0.0 must lie above 0"),
        (SoftMatch, {"decay": -0.1}, r"decay=-0.1 must lie in \[0, 1\)"),
        (MeanTeacher, {"ema": 1.0}, r"ema=1.0 must lie in \[0, 1\)"),
        (MeanTeacher, {"unlabelled_weight": -1.0}, "unlabelled_weight=-1.0 must be 0 or more"),
        (PiModel, {"ramp": 1.5}, "ramp=1.5 must lie between 0 and 1"),
        (TemporalEnsembling, {"momentum": 1.0}, r"momentum=1.0 must lie in \[0, 1\)"),
        (PseudoLabel, {"start": 0.6, "end": 0.6}, "start=0.6 and end=0.6 must be ascending"),
        (PseudoLabel, {"threshold": -0.1}, "threshold=-0.1 must lie between 0 and 1"),
        (MixMatch, {"temperature": 2.0}, "temperature=2.0 must lie above 0 and not above 1"),
        (MixMatch, {"alpha": -1.0}, "alpha=-1.0 must be 0 or more"),
    ],
)
def test_refuses_what_cannot_work(kind, settings, words):
    with pytest.raises(ValueError, match=words):
        kind(Linear(16, 3), picture(), **settings)
