"""Which number stands in a cell, against what it is held, and what is never mixed."""

import numpy as np
import pytest
from scipy import stats

from sslrun.report import compare, table
from sslrun.report.draw import draw
from sslrun.report.lines import flags, value
from sslrun.report.series import by_labels, references_by_labels, series

OURS, THEIRS = (0.90, 0.93, 0.91, 0.94), (0.88, 0.90, 0.90, 0.91)


def test_a_job_without_labels_fills_a_cell_for_each_number_of_them(swept, cell):
    found = compare([swept])
    for labels, mean in (("10", 0.86), ("40", 0.87)):
        shown = cell(found, "simclr", labels)
        assert (shown.metric, shown.n) == (f"linear@{labels}/accuracy", 2) and shown.mean == pytest.approx(mean)
    assert cell(found, "fixmatch", "10").metric == "classify/accuracy"


def test_missing_jobs_are_counted_and_never_numbers(swept, cell, make):
    make.unfinished("failed", "the loss is NaN", folder="two/method=fixmatch,labels=40,seed=1")
    found = compare([swept])
    assert flags(cell(found, "fixmatch", "40")) == ["failed 1"] and cell(found, "fixmatch", "40").n == 1


def test_a_cell_without_numbers_says_why(make, cell):
    jobs = [("a", [{"method": "simclr", "seed": "0"}]), ("b", [{"method": "byol", "seed": "0"}])]
    make("simclr", 0, folder="s/a")
    found = compare([make.sweep("s", {"method": ["simclr", "byol"], "seed": ["0"]}, jobs)])
    assert value(cell(found, "byol")) == "waiting 1" and not cell(found, "byol").numbers


def test_a_sweep_before_its_first_result(make, cell):
    make.root.mkdir()
    jobs = [("a", [{"method": "simclr", "labels": "10"}]), ("b", [{"method": "byol", "labels": "10"}])]
    found = compare([make.sweep("s", {"method": ["simclr", "byol"], "labels": ["10"]}, jobs)])
    assert value(cell(found, "simclr")) == "waiting 1" and found.baseline == ""


def test_a_search_has_a_row_for_each_value(make):
    jobs = []
    for i, lr in enumerate((1, 3, 2)):
        make("simclr", 0, 0.5 + 0.1 * i, folder=f"s/{i}", settings={"lr": lr})
        jobs.append((str(i), [{"lr": str(lr)}]))
    found = compare([make.sweep("s", {"lr": "interval(3, 1)"}, jobs)])
    rows = [row.labels for row in found.grids[0].rows if not row.reference]
    assert found.rows == ["lr"] and rows == [("1",), ("2",), ("3",)]


def test_a_number_that_a_method_does_not_have_is_missing(make, cell):
    make("simclr", 0)
    make("kmeans", 0, results={"model": {"cluster/nmi": 0.7}}, primary="cluster/nmi")
    found = compare([make.root], columns=["labels"])
    assert value(cell(found, "kmeans", "40")) == "no such number 1"
    found = compare([make.root])
    assert cell(found, "kmeans").metric == "cluster/nmi" and not cell(found, "simclr").best


def test_averaged_weights_are_judged_where_a_method_keeps_them_even_if_worse(make, cell):
    own = {"model": {"classify/accuracy": 0.95}, "ema": {"classify/accuracy": 0.90}}
    make("fixmatch", 0, labels=40, results=own)
    shown = cell(compare([make.root]), "")
    assert (shown.numbers[0].subject, shown.mean) == ("ema", 0.90)


@pytest.fixture
def transferred(make):
    """Two seeds, each probed and fine-tuned with 10 labels and with all, beside the network from scratch; a sweep."""
    jobs = []
    for seed in (0, 1):
        trained = {"linear@10/accuracy": 0.6, "finetune@10/accuracy": 0.7, "linear/accuracy": 0.8}
        trained |= {"finetune/accuracy": 0.9 + 0.02 * seed}
        scratch = {"classify@10/accuracy": 0.5, "classify/accuracy": 0.85, "linear/accuracy": 0.1}
        untrained = {"linear@10/accuracy": 0.4, "linear/accuracy": 0.7}
        found = {"trained": trained, "supervised": scratch, "random": untrained}
        protocol = {"linear": {"rows": 500}, "finetune": {"rows": 500}}
        make("simclr", seed, folder=f"t/{seed}", results=found, protocol=protocol)
        jobs.append((str(seed), [{"method": "simclr", "labels": n, "seed": str(seed)} for n in ("10", "null")]))
    return make.sweep("t", {"method": ["simclr"], "labels": ["10", "null"], "seed": ["0", "1"]}, jobs)


def test_probe_and_fine_tuning_have_rows_of_their_own_against_the_network_from_scratch(transferred, cell):
    found = compare([transferred])
    assert found.rows == ["probe"] and found.baseline == "supervised"
    tuned, probed = cell(found, "finetune", "null"), cell(found, "linear", "null")
    assert (tuned.mean, probed.mean) == (pytest.approx(0.91), 0.8)
    assert tuned.difference.mean == pytest.approx(0.91 - 0.85), "its own predictions with all labels"
    assert cell(found, "finetune", "10").difference.mean == pytest.approx(0.7 - 0.5)
    assert cell(found, "supervised", "10").mean == 0.5 and cell(found, "random", "10").mean == 0.4
    assert compare([transferred], metric="linear@10/accuracy").rows != ["probe"], "a number asked for has no two ways"


def test_label_efficiency_ends_at_all_labels(transferred):
    found = compare([transferred])
    lines = {line.way: line for line in series(found)}
    assert by_labels(lines["finetune"], every=True) == {10: [0.7, 0.7], 500: [0.9, 0.92]}
    assert by_labels(lines["linear"], every=False) == {10: [0.6, 0.6]}
    assert references_by_labels(lines["linear"].runs, every=True)["supervised"] == {10: [0.5] * 2, 500: [0.85] * 2}
    assert "label_efficiency" in draw(found)


def test_the_methods_of_a_multitask_run_are_found(make, cell):
    own = {"model:rotation": {"task/skill": 0.5}, "model:supervised": {"classify/accuracy": 0.8}}
    make("supervised+rotation", 0, labels=40, results=own, primary="classify/accuracy")
    assert cell(compare([make.root]), "").numbers[0].subject == "model:supervised"


def test_another_metric_can_be_asked_for(swept, cell):
    found = compare([swept], metric="linear@40/accuracy")
    assert {cell(found, "simclr", n).mean for n in ("10", "40")} == {0.87}
    assert cell(found, "fixmatch", "40").numbers[0].subject == "trained"


@pytest.fixture
def paired_runs(make):
    for seed, (a, b) in enumerate(zip(OURS, THEIRS, strict=True)):
        make("fixmatch", seed, a, labels=40, references=(b, 0.5, 0.6))
        make("supervised", seed, b, labels=40, references=(b, 0.5, 0.6))
    return make


@pytest.mark.parametrize("baseline", [None, "supervised", "method=supervised"])
def test_differences_are_those_of_the_paired_t_test(paired_runs, cell, baseline):
    found = cell(compare([paired_runs.root], baseline=baseline), "fixmatch").difference
    low, high = stats.ttest_rel(OURS, THEIRS).confidence_interval(0.95)
    assert found.n == 4 and found.mean == pytest.approx(np.subtract(OURS, THEIRS).mean())
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_untrained_and_raw_are_baselines_too(paired_runs, cell):
    untrained = cell(compare([paired_runs.root], baseline="untrained"), "fixmatch").difference
    raw = cell(compare([paired_runs.root], baseline="raw"), "fixmatch").difference
    assert untrained.mean == pytest.approx(np.mean(OURS) - 0.5) and raw.mean == pytest.approx(np.mean(OURS) - 0.6)


def test_a_supervised_method_is_the_baseline_where_runs_have_no_such_reference(make, cell):
    for seed in (0, 1, 2):
        for method, base in (("simclr", 0.9), ("supervised", 0.8)):
            name = "classify/accuracy" if method == "supervised" else "linear@40/accuracy"
            own = {"model" if method == "supervised" else "trained": {name: base + 0.01 * seed}}
            make(method, seed, results=own | {"random": {"linear@40/accuracy": 0.5}}, labels=40)
    found = compare([make.root])
    assert found.baseline == "method=supervised"
    assert cell(found, "simclr").difference.mean == pytest.approx(0.1)


def test_without_a_supervised_reference_the_untrained_encoder_is_the_baseline(make):
    make("simclr", 0, results={"trained": {"linear@40/accuracy": 0.9}, "random": {"linear@40/accuracy": 0.5}})
    assert compare([make.root]).baseline == "random"


def test_seeds_of_one_side_are_left_out(paired_runs, cell):
    paired_runs("fixmatch", 9, 0.1, labels=40)
    found = compare([paired_runs.root], baseline="method=supervised")
    assert cell(found, "fixmatch").n == 5 and cell(found, "fixmatch").difference.n == 4


def test_seeds_that_were_split_otherwise_are_no_pairs(make, cell):
    for seed in (0, 1):
        make("simclr", seed)
        make("rotation", seed, split_hash="another" if seed else None) if seed else make("rotation", seed)
    assert cell(compare([make.root], baseline="method=simclr"), "rotation").difference.n == 1


def test_one_pair_has_no_interval(make, cell):
    make("simclr", 0)
    shown = cell(compare([make.root]), "")
    assert shown.difference.n == 1 and shown.difference.low is None


def runs_of(make, values):
    for method, of_seeds in values.items():
        for seed, v in enumerate(of_seeds):
            make(method, seed, v, references=(0.1 + 0.01 * seed, 0.1, 0.1))


def test_the_best_is_bold_where_the_interval_excludes_zero(make, cell):
    runs_of(make, {"simclr": (0.90, 0.91, 0.92), "rotation": (0.70, 0.72, 0.71)})
    found = compare([make.root])
    assert cell(found, "simclr").best and not cell(found, "rotation").best


def test_the_best_is_not_bold_where_it_does_not(make, cell):
    runs_of(make, {"simclr": (0.90, 0.60, 0.92), "rotation": (0.70, 0.72, 0.71)})
    assert not any(c.best for row in compare([make.root]).grids[0].rows for c in row.cells.values())


def test_one_seed_or_one_method_has_no_best(make):
    make("simclr", 0, results={"trained": {"linear@40/accuracy": 0.9}})
    assert not any(c.best for row in compare([make.root]).grids[0].rows for c in row.cells.values())
    make("rotation", 0, 0.2)
    assert not any(c.best for row in compare([make.root]).grids[0].rows for c in row.cells.values())


def test_methods_that_share_no_seed_are_not_ranked(make):
    for seed in range(3):
        ours = {"trained": {"linear@40/accuracy": 0.9 + 0.01 * seed}}
        make("simclr", seed, results=ours)
        make("rotation", 10 + seed, results={"trained": {"linear@40/accuracy": 0.5}})
    assert not any(c.best for row in compare([make.root]).grids[0].rows for c in row.cells.values())


def test_a_reference_can_be_the_best(make, cell):
    for seed in range(3):
        make("simclr", seed, 0.5 + 0.01 * seed, references=(0.9 + 0.011 * seed, 0.1, 0.2))
    found = compare([make.root])
    assert cell(found, "supervised").best and cell(found, "").harm


def test_of_losses_the_lower_is_better(make, cell):
    for method, low in (("simclr", 0.2), ("rotation", 0.5)):
        for seed in range(3):
            ours = {"trained": {"x/loss": low + 0.01 * seed}, "random": {"x/loss": 0.4 + 0.012 * seed}}
            make(method, seed, results=ours, primary="x/loss")
    found = compare([make.root])
    assert cell(found, "simclr").best and cell(found, "rotation").harm and not cell(found, "simclr").harm


def test_results_on_different_data_are_not_ranked(make):
    for seed in range(3):
        make("simclr", seed, 0.9 + 0.01 * seed, references=(0.1, 0.1, 0.1))
        make("simclr", seed, 0.5 + 0.02 * seed, data="wine", references=(0.1, 0.1, 0.1))
    found = compare([make.root], rows=["data"])
    assert [r.cells[()].best for r in found.grids[0].rows if not r.reference] == [
        True,
        True,
    ]  # above its own references


def test_harm_needs_the_whole_interval_below_the_best_reference(make, cell):
    for seed in range(3):
        make("rotation", seed, 0.50 + 0.01 * seed, references=(0.9, 0.4, 0.7), harm=seed > 0)
        make("simclr", seed, 0.80 + 0.10 * seed, references=(0.9, 0.4, 0.7))
    found = compare([make.root])
    assert cell(found, "rotation").harm and flags(cell(found, "rotation")) == ["harm, 2/3 runs"]
    assert not cell(found, "simclr").harm and flags(cell(found, "simclr")) == []


def test_a_collapsed_run_keeps_its_number_and_says_so(make, cell):
    make("simclr", 0)
    make("simclr", 1, status="collapsed")
    assert flags(cell(compare([make.root]), "")) == ["collapsed 1/2"]


OTHERWISE = {
    "sslrun": {"versions": {"sslrun": "0.2.0", "torch": "2.14.1"}},
    "torch": {"versions": {"sslrun": "0.1.0", "torch": "2.13.0"}},
    "precision": {"precision": "bf16"},
    "protocol": {"protocol": {"linear@40": {"selected_on": "val"}}},
    "protocol selected on: val": {"protocol": {"linear@40": {"subjects": {"trained": {"selected_on": "val"}}}}},
}


@pytest.mark.parametrize("what", OTHERWISE)
def test_runs_of_different_kinds_share_no_cell(make, what):
    make("simclr", 0, 0.8)
    make("simclr", 1, 0.9, **OTHERWISE[what])
    found = compare([make.root])
    rows = [row for row in found.grids[0].rows if not row.reference]
    assert [row.cells[()].n for row in rows] == [1, 1] and all(what.split()[0] in row.note for row in rows)
    assert what in rows[0].note or what in rows[1].note
    assert any(f"differ in {what.split()[0]}" in note for note in found.notes)


def test_the_same_seed_with_another_split_shares_no_cell(make):
    make("simclr", 0, 0.8)
    make("simclr", 1, 0.8)
    make("simclr", 0, 0.9, split_hash="another")
    rows = {r.note: r.cells[()].n for r in compare([make.root]).grids[0].rows if not r.reference}
    assert rows == {"split 1": 1, "split 2": 1, "split seen once": 1}


@pytest.mark.parametrize("harmless", [{"threads": 8}, {"world": 2}, {"wall_s": 1.0}])
def test_threads_and_processes_split_nothing(make, cell, harmless):
    make("simclr", 0)
    make("simclr", 1, **harmless)
    assert cell(compare([make.root]), "").n == 2


def test_what_a_probe_chose_is_no_difference_of_protocol(make, cell):
    for seed, strength in enumerate((1.0, 10.0)):
        make("simclr", seed, protocol={"linear@40": {"C": strength, "selected_on": "val", "selected_score": [seed, 1]}})
    assert cell(compare([make.root]), "").n == 2


def test_of_runs_of_the_same_seed_the_newest_counts(make, cell):
    old, new = make("simclr", 0, 0.5), make("simclr", 0, 0.7)
    found = compare([make.root])
    assert cell(found, "").mean == pytest.approx(0.71) and cell(found, "").n == 1
    assert any(f"{new} is the newest and counts, not {old}" in note for note in found.notes)


def test_references_that_agree_have_one_row_and_others_name_their_runs(make):
    make("simclr", 0, references=(0.8, 0.5, 0.6))
    make("rotation", 0, references=(0.8, 0.4, 0.6))
    rows = {(*r.labels, r.note) for r in compare([make.root]).grids[0].rows if r.reference}
    assert rows == {
        ("supervised", ""),
        ("raw", ""),
        ("random", "in the runs of simclr"),
        ("random", "in the runs of rotation"),
    }


def test_the_terminal_shows_the_same(swept, capsys):
    from rich.console import Console

    Console(width=160, highlight=False).print(table(compare([swept])))
    said = capsys.readouterr().out
    for text in ("labels 10", "86.0 ± 1.4", "waiting 1", "supervised", "+6.0 [", "finished 5, waiting 1"):
        assert text in said, text
