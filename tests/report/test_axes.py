"""What loose runs and sweeps are compared by."""

import pytest

from sslrun.contracts import UserError
from sslrun.report import compare
from sslrun.report.axes import Entry
from sslrun.report.words import order, word


@pytest.fixture
def loose(make):
    for seed in (0, 1):
        make("simclr", seed, 0.9)
        make("rotation", seed, 0.8)
        make("fixmatch", seed, 0.9, labels=40)
    return make


def test_what_follows_from_the_method_is_no_axis(loose):
    found = compare([loose.root])
    assert found.axes == ["method"] and found.rows == ["method"] and found.columns == []


def test_a_setting_that_differs_within_a_method_is_an_axis(loose):
    loose("simclr", 0, 0.7, settings={"optimizer.lr": 0.1})
    found = compare([loose.root])
    assert found.axes == ["method", "optimizer.lr"] and found.rows == ["method", "optimizer.lr"]
    assert ("simclr", "0.1") in [row.labels for row in found.grids[0].rows]


def test_of_settings_that_vary_together_one_is_an_axis(loose):
    loose("simclr", 0, 0.7, settings={"epochs": 160, "optimizer.warmup": 0.1, "optimizer.lr": 0.1})
    assert compare([loose.root]).axes == ["method", "epochs"]


def test_another_encoder_is_one_axis_with_all_that_follows(loose):
    loose("simclr", 0, 0.7, settings={"encoder._target_": "sslrun.encoders.vit.Vit", "encoder.depth": 4})
    found = compare([loose.root])
    assert found.axes == ["method", "encoder"]


@pytest.mark.parametrize("key", ["device.threads", "eval.looks", "save_every", "compile", "split_seed"])
def test_what_changes_no_result_is_no_axis(loose, key):
    loose("simclr", 2, 0.7, settings={key: 9})
    assert compare([loose.root]).axes == ["method"]


def test_seeds_are_an_axis_only_when_asked_for(loose, cell):
    found = compare([loose.root], columns=["seed"])
    assert found.columns == ["seed"] and cell(found, "simclr", "1").n == 1


def test_data_sets_are_columns_and_tables_where_labels_are_columns(loose):
    loose("simclr", 0, 0.7, data="wine")
    found = compare([loose.root])
    assert (found.rows, found.columns, len(found.grids)) == (["method"], ["data"], 1)
    found = compare([loose.root], columns=["labels"])
    assert [grid.title for grid in found.grids] == ["data digits", "data wine"]


def test_loose_runs_without_labels_stand_at_every_number_of_labels(loose, cell):
    loose("fixmatch", 0, 0.7, labels=10)
    found = compare([loose.root])
    assert found.columns == ["labels"] and found.grids[0].columns == [("10",), ("40",)]
    assert cell(found, "simclr", "10").mean == pytest.approx(0.9)
    assert cell(found, "simclr", "40").mean == pytest.approx(0.91)
    assert cell(found, "fixmatch", "40").metric == "classify/accuracy"


def test_label_columns_of_probes_alone_are_their_budgets(make):
    make("simclr", 0, 0.9)
    assert compare([make.root], columns=["labels"]).grids[0].columns == [("10",), ("40",), ("100",)]


def test_rows_and_columns_can_be_turned_round(swept):
    found = compare([swept], rows=["labels"], columns=["method"])
    assert found.grids[0].columns == [("simclr",), ("fixmatch",)]
    assert [row.labels for row in found.grids[0].rows if not row.reference] == [("10",), ("40",)]


def test_filters(loose):
    loose("simclr", 0, 0.7, data="wine")
    assert {run.data for run in compare([loose.root], where=[("data", "wine")]).runs} == {"wine"}
    several = compare([loose.root], where=[("method", "simclr"), ("method", "rotation"), ("data", "digits")])
    assert {run.method for run in several.runs} == {"simclr", "rotation"} and len(several.runs) == 4
    assert len(compare([loose.root], where=[("optimizer.lr", "3e-2")]).runs) == 2


def test_a_filter_on_labels_reads_probes_of_as_many(loose, cell):
    found = compare([loose.root], where=[("labels", "40")])
    assert cell(found, "simclr").metric == "linear@40/accuracy" and cell(found, "fixmatch").mean == 0.9


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"rows": ["metod"]}, "metod is no setting of these runs; did you mean method"),
        ({"where": [("dta", "digits")]}, "dta is no setting of these runs; did you mean data"),
        ({"where": [("data", "digit")]}, "--where data=digit leaves nothing; did you mean digits"),
        ({"where": [("method", "fixmatch"), ("optimizer.lr", "0.001")]}, "no run has all of these"),
        ({"rows": ["method"], "columns": ["method"]}, "method can be a row or a column, not both"),
        ({"metric": "linear@41/accuracy"}, "--metric linear@41/accuracy is in no run; did you mean linear@40/accuracy"),
        ({"baseline": "method=simclt"}, "--baseline method=simclt is not in these runs; did you mean method=simclr"),
        ({"baseline": "lr"}, "--baseline lr is not in these runs"),
    ],
)
def test_a_mistake_is_answered_with_what_there_is(loose, asked, said):
    with pytest.raises(UserError) as error:
        compare([loose.root], **asked)
    assert said in str(error.value) and str(error.value).count(". ") == 0


def test_sweeps_keep_their_order(swept):
    rows = [row.labels[0] for row in compare([swept]).grids[0].rows if not row.reference]
    assert rows == ["simclr", "fixmatch"]


def test_one_spelling_for_each_value():
    assert word("1e-3") == word(0.001) == word("0.0010") and word("40") == word(40) == word(40.0)
    assert word(None) == "null" and word(True) == "true" and word("simclr") == "simclr"
    assert order(["null", "100", "b10", "9", "b9"]) == ["9", "100", "b9", "b10", "null"]


def test_several_methods_are_one_word_whatever_the_order_they_were_typed_in(make):
    make("rotation+supervised", 0)
    (run,) = compare([make.root]).runs
    for names in ("[supervised,rotation]", "[rotation, supervised]"):
        assert Entry(run, {"method": names}).value("method") == Entry(run, {}).value("method") == "rotation+supervised"
