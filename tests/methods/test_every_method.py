"""What holds for every method in conf/method, on every modality that it declares; a new method needs no new test."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from worlds import UNFIT, WORLDS, End, Killed, Trained, built, cases, device, overrides, resolved, summary, train

from sslrun.build import build
from sslrun.catalogue import fitting, locate, methods
from sslrun.check.alive import watched
from sslrun.contracts import UserError
from sslrun.data.loader import Loader
from sslrun.streams import streams_of

every_case = pytest.mark.parametrize(("names", "modality"), cases(), ids=[" ".join(case) for case in cases()])


def one_world(worlds, modality):
    return next(iter(worlds[modality].values()))


# Composition


@pytest.mark.parametrize(
    ("names", "world"),
    [(n, w) for n, m in cases() for w in WORLDS[m] if (n, w) not in UNFIT],
    ids=lambda value: str(value),
)
def test_takes_a_step_on_what_it_declares(names, world, worlds):
    arguments = overrides(names, next(some[world] for some in worlds.values() if world in some))
    before = built(arguments)[1]
    done = train(arguments, device(), steps=2)
    assert done.trainer.global_step == 2
    assert np.isfinite(done.losses).all() and len(done.losses) == 2
    moved = [
        not torch.equal(old, new)
        for old, new in zip(before.encoder.parameters(), done.learner.encoder.parameters(), strict=True)
    ]
    assert any(moved) == any(o.trains for o in before.objectives.values())


def misfits():
    for name, node in methods().items():
        declared = locate(node["_target_"]).modalities
        yield from ((name, modality) for modality in WORLDS if declared and modality not in declared)


@pytest.mark.parametrize(("name", "modality"), misfits())
def test_refuses_what_it_does_not_declare(name, modality, worlds):
    cfg = resolved(overrides(name, one_world(worlds, modality)))
    with pytest.raises(UserError) as error:
        build(cfg)
    text = str(error.value)
    assert (
        f"method={name}" in text
        and modality in text
        and built(["method=[]", *one_world(worlds, modality)])[1].data.name in text
    )
    instead = [other.strip(" .") for other in text.rpartition(":")[2].split(",")]
    assert instead == fitting(modality) and name not in instead


@pytest.mark.parametrize(("name", "world"), sorted(UNFIT))
def test_refuses_what_it_cannot_read_of_its_modality(name, world, worlds):
    arguments = next(some[world] for some in worlds.values() if world in some)
    with pytest.raises(UserError) as error:
        build(resolved(overrides(name, arguments)))
    data = built(["method=[]", *arguments])[1].data.name
    before, _, instead = str(error.value).partition(f"data={data}")
    assert f"method={name}" in before and "method=" in instead


# Losses that are alive


@every_case
def test_every_loss_is_alive(names, modality, worlds):
    cfg, parts = built(overrides(names, one_world(worlds, modality)))
    found = watched(parts, cfg.batch_size, cfg.mu)
    if not found:
        pytest.skip("learns without gradients")
    assert not any(found.values()), found


# One process or two


def close(got, expected, what):
    """Equal to 1e-6 of the array's largest value: rounding alone moves values whose true size is zero."""
    expected = np.asarray(expected, dtype=np.float64)
    size = np.abs(expected[np.isfinite(expected)]).max(initial=0)
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=1e-6, atol=1e-6 * size + 1e-12, err_msg=what)


def assert_same(one, two):
    """The losses' mean over the ranks, and gradients and state on each of them, are those of one process."""
    for rank in two:
        assert rank["steps"] == one["steps"] and len(rank["losses"]) == len(one["losses"])
    close(np.mean([rank["losses"] for rank in two], 0), one["losses"], "losses")
    for rank in two:
        assert rank["state"].keys() == one["state"].keys()
        for step, (got, expected) in enumerate(zip(rank["gradients"], one["gradients"], strict=True)):
            assert got.keys() == expected.keys()
            for key, value in expected.items():
                close(got[key], value, f"gradient of {key} at step {step}")
        for key, value in one["state"].items():
            close(rank["state"][key], value, key)


@pytest.mark.parametrize("accumulate", (1, 2))
@every_case
def test_two_processes_equal_one(names, modality, accumulate, worlds, pair):
    # SGD: Adam divides by the size of a gradient, and turns the rounding of a zero one into a step of full length
    arguments = [*overrides(names, one_world(worlds, modality)), "optimizer=sgd", "optimizer.warmup=0", "lr=0.05"]
    cfg, parts = built(arguments)
    length = len(Loader(parts.data, streams_of(parts.objectives.values()), cfg.batch_size, cfg.mu, whole=True))
    settings = {"steps": length // accumulate + 2, "accumulate": accumulate}  # over the end of an epoch
    one = summary(arguments, 1, **settings)
    two = pair(summary, arguments, 2, **settings)
    assert_same(one, two)


# Interrupted and resumed


def assert_identical(got, expected, where=""):
    if isinstance(expected, torch.Tensor):
        same = torch.equal(got.nan_to_num(7.0), expected.nan_to_num(7.0)) and torch.equal(got.isnan(), expected.isnan())
        assert same, f"{where} differs by {(got - expected).abs().max()}"
    elif isinstance(expected, dict):
        assert got.keys() == expected.keys(), where
        for key in expected:
            assert_identical(got[key], expected[key], f"{where} {key}")
    elif isinstance(expected, list | tuple):
        assert len(got) == len(expected), where
        for i, (a, b) in enumerate(zip(got, expected, strict=True)):
            assert_identical(a, b, f"{where} {i}")
    else:
        assert got == expected, where


def interrupted(arguments, on, folder, at, how, **settings) -> Trained:
    """The run that was ended at a micro-batch and resumed."""
    if how == "kill":
        with pytest.raises(Killed):
            train(arguments, on, folder=folder, end=End(at, how), **settings)
    else:
        first = train(arguments, on, folder=folder, end=End(at, how), **settings)
        assert at < len(first.losses) <= at + first.trainer.accumulate_grad_batches
    return train(arguments, on, folder=folder, resume=True, **settings)


@every_case
def test_resumes_bit_for_bit(names, modality, worlds, tmp_path):
    arguments = overrides(names, one_world(worlds, modality))
    whole = train(arguments, device(), epochs=3, folder=tmp_path / "whole")
    length, total = whole.trainer.num_training_batches, len(whole.losses)
    draw = random.Random(f"{names} {modality}")
    ends = [("stop", draw.randrange(total - 1)), ("stop", length - 1), ("kill", draw.randrange(1, total))]
    expected = (whole.state(), whole.predictions())
    for i, (how, at) in enumerate(ends):
        again = interrupted(arguments, device(), tmp_path / str(i), at, how, epochs=3)
        assert_identical((again.state(), again.predictions()), expected, f"{how} at {at}:")
        assert again.losses == whole.losses[total - len(again.losses) :]


ONE_OF_A_KIND = ("simclr", "rotation", "masked_image", "fixmatch", "kmeans", "denoising_autoencoder")
PRECISE = [
    pytest.param(*case, id=" ".join(case), marks=() if case[0] in ONE_OF_A_KIND else pytest.mark.slow)
    for case in cases()
]


@pytest.mark.parametrize("precision", ["bf16", "fp64"])
@pytest.mark.parametrize(("names", "modality"), PRECISE)
def test_resumes_bit_for_bit_in_other_precisions_with_accumulation(names, modality, precision, worlds, tmp_path):
    arguments = overrides(names, one_world(worlds, modality))
    settings = {"epochs": 2, "accumulate": 2}
    whole = train(arguments, device(precision), folder=tmp_path / "whole", **settings)
    at = random.Random(f"{precision} {names} {modality}").randrange(len(whole.losses) - 1)
    again = interrupted(arguments, device(precision), tmp_path / "again", at, "stop", **settings)
    assert_identical(again.state(), whole.state(), f"stop at {at}:")


SAME = {  # what has to be the same to 1e-9, whatever the number of processes
    "kmeans": (["centres", "inertia", "far"], []),
    "gmm": (["shares", "means", "covariances", "theta", "value"], []),
    "kmeans, soft, by mini-batches": (["centres", "inertia"], ["kmeans.minibatch=true", "kmeans.temperature=0.1"]),
}


@pytest.mark.parametrize("world", [2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", SAME)
def test_sums_are_the_same_on_any_number_of_processes(case, world, worlds, pair, trio):
    """Several epochs with a shorter last batch, of one row: the other processes have none."""
    name, (keys, settings) = case.split(",")[0], SAME[case]
    arguments = [*overrides(name, worlds["table"]["breast_cancer"]), "data.val_fraction=0.13", "batch_size=66"]
    arguments += [f"method.{setting}" for setting in settings]
    _, parts = built(arguments)
    shown = Loader(parts.data, ("all",), 66, 1, whole=True)
    assert len(shown.plan(0, len(shown) - 1).streams["all"].positions) == 1
    one, some = summary(arguments, 1, epochs=4), (pair if world == 2 else trio)(summary, arguments, world, epochs=4)
    for rank in some:
        for key in (f"objectives.{name}.{key}" for key in keys):
            np.testing.assert_allclose(rank["state"][key], one["state"][key], rtol=1e-9, atol=1e-9, err_msg=key)
