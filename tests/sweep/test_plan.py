"""What varies, and which jobs that makes."""

from __future__ import annotations

import re

import pytest

from sslrun.compose import compose, composer
from sslrun.errors import UserError
from sslrun.sweep.axes import Axis, draws, grid, label, read
from sslrun.sweep.search import Grid, Random
from sslrun.sweep.study import Job, Planner, Study, common, differences

FIXED = ["data=digits", "epochs=3"]


@pytest.fixture
def composed():
    with composer() as function:
        yield function


@pytest.fixture
def planner(composed):
    return lambda *fixed: Planner(composed, [*FIXED, *fixed], threads=1, precision="fp32")


def test_axes_are_read_in_hydras_grammar(composed):
    given = ["method=[simclr,rotation],kmeans", "data=digits", "seed=range(0,3)", "lr=tag(log,interval(1e-4,1e-1))"]
    given += ["encoder.width=interval(8,64)", "optimizer=glob(a*)", "labels=40,null", "eval=[knn]"]
    axes, fixed = read(given, {})
    found = {axis.key: axis for axis in axes}
    assert fixed == ["data=digits", "eval=[knn]"]
    assert found["method"].values == ("[simclr,rotation]", "kmeans") and found["seed"].values == ("0", "1", "2")
    assert found["optimizer"].values == ("adamw",) and found["labels"].values == ("40", "null")
    assert (found["lr"].low, found["lr"].high, found["lr"].log) == (1e-4, 1e-1, True)
    assert found["encoder.width"].whole and not found["lr"].whole


def test_typed_axes_replace_those_of_an_experiment(composed):
    over = {"method": ["simclr", "rotation"], "seed": "range(0,5)", "labels": 40}
    axes, fixed = read(["seed=7,8", "labels=10"], over)
    assert {axis.key: axis.values for axis in axes} == {"method": ("simclr", "rotation"), "seed": ("7", "8")}
    assert fixed == ["labels=10"]


def test_several_methods_are_one_value_of_an_axis_whatever_their_order(planner, composed):
    axes, _ = read([], {"method": [["supervised"], ["supervised", "rotation"], "simclr"], "seed": [0, None]})
    assert axes[0].values == ("[supervised]", "[supervised,rotation]", "simclr") and axes[1].values == ("0", "null")
    points = [{"method": names} for names in ("[supervised]", "[supervised,rotation]", "[rotation,supervised]")]
    alone, both = planner("batch_size=64", "labels=40").jobs(points)
    assert alone.plain["reference"] is None and both.plain["reference"] and both.cells == points[1:]
    assert [label(point) for point in points[:2]] == ["supervised", "supervised+rotation"]
    with pytest.raises(UserError, match="names rotation twice"):
        planner().jobs([{"method": "[rotation,rotation]"}])


@pytest.mark.parametrize(
    ("override", "word"),
    [("lr=interval(1,0.1)", "first end"), ("lr=tag(log,interval(0,1))", "above 0"), ("method=[a", "cannot be read")],
)
def test_axes_that_cannot_be_read(override, word, composed):
    with pytest.raises(UserError, match=word):
        read([override], {})


def test_seeds_vary_slowest():
    points = grid([Axis("method", ("a", "b")), Axis("seed", ("0", "1")), Axis("labels", ("10", "40"))])
    assert len(points) == 8 and [p["seed"] for p in points] == ["0"] * 4 + ["1"] * 4
    assert list(points[0]) == ["method", "seed", "labels"], "in the order typed"


def test_grids_refuse_what_has_no_end_and_what_is_too_much():
    with pytest.raises(UserError, match="lr=interval.*sweep=random"):
        Grid().points([Axis("lr", low=0.1, high=1.0)])
    many = [Axis(key, tuple(map(str, range(100)))) for key in ("a", "b")]
    with pytest.raises(UserError, match="10,000 jobs; say sweep.limit=10000"):
        Grid().points(many)
    assert len(Grid(limit=10_000).points(many)) == 10_000


def test_random_points_are_drawn_as_asked():
    axes = [Axis("lr", low=1e-4, high=1e-1, log=True), Axis("width", low=8, high=64, whole=True), Axis("m", ("a", "b"))]
    points = Random(samples=400, seed=3).points(axes)
    assert points == list(draws(axes, 400, 3)) and points != list(draws(axes, 400, 4))
    rates = sorted(float(p["lr"]) for p in points)
    assert rates[0] >= 1e-4 and rates[-1] <= 1e-1
    assert 10**-2.8 < rates[200] < 10**-2.2, "half of them lie below the geometric mean"
    assert {p["m"] for p in points} == {"a", "b"} and all(8 <= int(p["width"]) <= 64 for p in points)


def test_names_need_no_quotes():
    point = {
        "method": "[simclr,rotation]",
        "data.root": "/some/where/pictures",
        "optimizer.lr": "0.1",
        "labels": "null",
    }
    assert label(point) == "simclr+rotation_root-pictures_lr-0.1_labels-null"
    long = label({f"key{i}": "x" * 20 for i in range(20)})
    assert len(long) <= 120 and long != label({f"key{i}": "x" * 20 for i in range(19)} | {"key19": "y" * 20})
    assert re.fullmatch(r"[\w.+-]+", label({"a": "b c:d/e=f,g"}))


def test_labels_that_a_method_does_not_read_make_no_jobs(planner):
    points = grid([Axis("method", ("simclr", "supervised")), Axis("labels", ("20", "40")), Axis("seed", ("0", "1"))])
    jobs = planner().jobs(points)
    by_name = {label(common(job.cells)): job for job in jobs}
    assert set(by_name) == {"simclr_seed-0", "simclr_seed-1"} | {
        f"supervised_labels-{n}_seed-{s}" for n in (20, 40) for s in (0, 1)
    }
    shared = by_name["simclr_seed-0"]
    assert [cell["labels"] for cell in shared.cells] == ["20", "40"] and shared.plain["labels"] is None
    assert shared.plain["eval"]["budgets"] == [10, 20, 40, 100], "probes answer for every cell"
    assert shared.overrides == ["method=simclr", "seed=0"]
    assert by_name["supervised_labels-20_seed-0"].plain["eval"]["budgets"] == [10, 40, 100]


def test_labels_matter_where_they_leave_the_unlabelled_stream(planner):
    points = [{"method": "kmeans", "labels": n} for n in ("20", "40")]
    assert len(planner().jobs(points)) == 1
    points = [{"method": "[fixmatch]", "labels": n} for n in ("20", "40")]
    assert len(planner("data.exclude_labelled=true").jobs(points)) == 2


def test_a_job_is_what_its_results_depend_on(planner):
    def ids(*fixed):
        return [job.id for job in planner(*fixed).jobs([{"seed": "0"}, {"seed": "1"}])]

    assert len(set(ids())) == 2 and ids() == ids("save_every=7", "traceback=true", "logger=none")
    assert not set(ids()) & set(ids("batch_size=64")) and not set(ids()) & set(ids("encoder.width=8"))


def test_jobs_are_composed_as_a_single_run_would_be(planner):
    from omegaconf import OmegaConf

    from sslrun.build import resolved

    point = {"method": "fixmatch", "seed": "3", "labels": "40", "lr": "0.01", "optimizer.momentum": "0.8"}
    (job,) = planner().jobs([point])
    overrides = [*FIXED, *(f"{k}={v}" for k, v in point.items()), "device.threads=1", "precision=fp32"]
    assert job.plain == OmegaConf.to_container(resolved(compose(overrides)[0], overrides))
    assert job.plain["split_seed"] == 3, "what follows from a key follows"


@pytest.mark.parametrize(
    ("point", "word"),
    [
        ({"method": "simlcr"}, "did you mean simclr"),
        ({"seed": "many"}, "seed=many is not a whole number"),
        ({"labels": "-3"}, "labels=-3 does not work"),
        ({"encoder.wdith": "3"}, "wdith"),
    ],
)
def test_a_point_that_cannot_work_is_refused_before_anything_runs(point, word, planner):
    with pytest.raises(UserError, match=word):
        planner().jobs([{"seed": "0"}, point])


def test_a_study_keeps_folders_apart(tmp_path):
    def study(jobs, **definition):
        mine = Study(tmp_path / "study", "sslrun -m", {"axes": {"seed": ["0"]}, "fixed": {}, "search": {}} | definition)
        mine.claim()
        mine.add(jobs)
        mine.release()
        return [job.name for job in mine.jobs]

    def jobs(*ids):
        return [Job(i, {}, [], [{"seed": "0"}]) for i in ids]

    assert study(jobs("a" * 16)) == ["seed-0"]
    assert study(jobs("b" * 16, "a" * 16)) == ["seed-0-bbbbbbbb", "seed-0"], "a changed job is a new one beside the old"
    with pytest.raises(UserError, match="seed: 0 -> 0,1"):
        study([], axes={"seed": ["0", "1"]})
    with pytest.raises(UserError, match="epochs: nothing -> 3"):
        study([], fixed={"epochs": "3"})
    (tmp_path / "study/sweep.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        study([])


def test_differences_name_leaves():
    assert differences({"axes": {"a": ["1"]}, "n": 1}, {"axes": {"a": ["1", "2"]}, "n": 1}) == ["a: 1 -> 1,2"]
