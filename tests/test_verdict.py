"""Which number a run is judged by, and whether the method did harm by it."""

import pytest

from sslrun.verdict import harm_of, primary_of


def test_primary_metric_is_the_one_that_the_method_is_for():
    probes = {"linear/accuracy": 0.9, "linear@10/accuracy": 0.5, "linear@40/accuracy": 0.7, "knn/accuracy": 0.8}
    assert primary_of({"trained": probes}, [10, 40, 100]) == "linear@40/accuracy"
    assert primary_of({"trained": probes}, []) == "linear/accuracy"
    assert primary_of({"trained": probes, "model": {"classify/accuracy": 0.9}}, [40]) == "classify/accuracy"
    assert primary_of({"trained": probes, "model:fixmatch": {"classify/accuracy": 0.9}}, [40]) == "classify/accuracy"
    layers = {"layers/best/accuracy": 0.9, "layers@40/best/accuracy": 0.6, "layers@40/stage1/accuracy": 0.7}
    assert primary_of({"trained": layers, "model": {"task/skill": 0.5}}, [10, 40, 100]) == "layers@40/best/accuracy"
    assert primary_of({"trained": layers}, []) == "layers/best/accuracy"
    assert primary_of({"trained": layers | probes}, [40]) == "linear@40/accuracy"
    assert primary_of({"raw": probes}, [40]) is None, "a row that nobody trained"
    assert primary_of({}, [40]) is None


def test_primary_metric_is_one_of_which_more_is_better():
    assert primary_of({"trained": {"cluster/inertia": 3.0, "cluster/silhouette": 0.2}}, []) == "cluster/silhouette"
    assert primary_of({"model": {"task/loss": 1.0, "task/skill": 0.3}}, []) == "task/skill"
    assert primary_of({"trained": {"cluster/inertia": 3.0}}, []) is None


def verdict(own, random=0.5, raw=0.5, supervised=None, primary="linear@40/accuracy", subject="trained", rows=400):
    results = {subject: {primary: own}, "random": {primary: random}, "raw": {primary: raw}}
    if supervised is not None:
        results["supervised"] = {primary: supervised}
    return harm_of(results, primary, None, rows)


def test_verdict_holds_the_method_against_the_best_other_row():
    assert verdict(0.7) is False
    assert verdict(0.7, random=0.9) is True and verdict(0.7, raw=0.9) is True and verdict(0.7, supervised=0.9) is True
    assert verdict(0.7, random=0.9, raw=0.1, supervised=0.2) is True, "the best, not the last or the mean"
    assert verdict(0.7, subject="model:rotation") is False, "one of several methods"


def test_what_another_step_would_have_told_decides_nothing():
    lucky = {"model": {"classify/accuracy": 0.6}, "model:best": {"classify/accuracy": 0.9, "task/skill": 0.5}}
    lucky["ema:median20"] = {"classify/accuracy": 0.9}
    rivals = {"supervised": {"classify/accuracy": 0.8}}
    assert harm_of(lucky | rivals, "classify/accuracy", 40, 400) is True
    assert primary_of({"model": {}, "model:best": {"classify/accuracy": 0.9}}, []) is None


def test_verdict_is_open_within_noise():
    # two standard errors of the difference of two rates about .5 are .0704 among 400 samples, .139 among 100
    assert verdict(0.565) == verdict(0.435) == "unknown"
    assert verdict(0.575) is False and verdict(0.425) is True
    assert verdict(0.575, rows=100) == verdict(0.425, rows=100) == "unknown"
    assert verdict(0.9995, random=1.0) == "unknown" and verdict(0.96, random=1.0) is True, "no rate is without noise"


@pytest.mark.parametrize(("ours", "best", "rows"), [(1.0, 0.0, 1), (0.25, 0.75, 4), (35 / 36, 1.0, 36)])
def test_a_handful_of_samples_decides_nothing(ours, best, rows):
    assert verdict(ours, random=best, raw=0.0, rows=rows) == verdict(best, random=ours, raw=0.0, rows=rows) == "unknown"


def test_scores_come_with_their_noise():
    def scored(value, low, high):
        return {"proxy/auroc": value, "proxy/auroc_low": low, "proxy/auroc_high": high}

    naive = scored(0.90, 0.86, 0.93) | {"proxy/norm_auroc": 0.99}
    for own, expected in ((0.84, "unknown"), (0.80, True), (0.98, False)):
        results = {"model:rotation": scored(own, own - 0.08, own + 0.06), "raw": naive, "random": scored(0.5, 0.2, 0.8)}
        assert harm_of(results, "proxy/auroc", None, 100_000) is expected, "half of the wider interval is .07"
    assert primary_of({"model": scored(0.8, 0.7, 0.9) | {"cluster/nmi": 0.5, "task/skill": 0.3}}, [10]) == "proxy/auroc"
    assert primary_of({"model": scored(0.8, 0.7, 0.9), "trained": {"knn/accuracy": 0.9}}, []) == "knn/accuracy"


def test_there_is_no_verdict_without_another_row():
    assert harm_of({"trained": {"knn/accuracy": 0.9}}, "knn/accuracy", None, 100) is None
    assert harm_of({"random": {"knn/accuracy": 0.9}}, "knn/accuracy", None, 100) is None
    assert (
        harm_of({"model": {"classify/accuracy": 0.9}, "raw": {"knn/accuracy": 0.9}}, "classify/accuracy", 9, 99) is None
    )
    assert harm_of({}, None, None, 0) is None


def test_classifier_is_held_against_probes_of_as_many_labels():
    results = {
        "model": {"classify/accuracy": 0.6},
        "ema": {"classify/accuracy": 0.8},
        "raw": {"linear@40/accuracy": 0.7, "linear@100/accuracy": 0.9, "linear/accuracy": 0.95},
    }
    assert harm_of(results, "classify/accuracy", 40, 1000) is False
    assert harm_of(results, "classify/accuracy", 100, 1000) is True
    assert harm_of(results, "classify/accuracy", None, 1000) is True
    results["supervised"] = {"classify/accuracy": 0.9}
    assert harm_of(results, "classify/accuracy", 40, 1000) is True


def test_averaged_weights_are_judged_where_there_are_some_also_when_the_last_ones_are_better():
    results = {
        "model": {"classify/accuracy": 0.9},
        "ema": {"classify/accuracy": 0.5},
        "raw": {"linear@40/accuracy": 0.7},
    }
    assert harm_of(results, "classify/accuracy", 40, 1000) is True
    assert harm_of(results | {"ema": {"classify/accuracy": 0.9}}, "classify/accuracy", 40, 1000) is False


def test_fine_tuning_is_held_against_training_from_the_start():
    results = {"trained": {"finetune@40/accuracy": 0.8}, "supervised": {"classify@40/accuracy": 0.7}}
    assert harm_of(results, "finetune@40/accuracy", None, 1000) is False
    results["supervised"] = {"classify@40/accuracy": 0.9, "classify@10/accuracy": 0.1}
    assert harm_of(results, "finetune@40/accuracy", None, 1000) is True


# Budgets
