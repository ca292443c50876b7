"""Tables: numbers, categories and gaps become one tensor, and mistakes get one sentence."""

import math

import pytest
import torch
from sklearn import datasets

from sslrun.contracts import Field, UserError
from sslrun.data import table

ROWS = """age,city,dose,label
30,Rome,1.5,yes
?,Oslo,,no
41,,2,yes
25,Rome,NA,
"""


def write(path, text, encoding="utf-8"):
    path.write_text(text, encoding=encoding)
    return str(path)


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "iris"])
def test_bundled(name):
    source, bundle = getattr(table, name)(), getattr(datasets, f"load_{name}")()
    assert torch.equal(source.train.x, torch.from_numpy(bundle.data).float())
    assert source.train.y.tolist() == bundle.target.tolist()
    assert source.spec.classes == tuple(bundle.target_names) and source.spec.shape == bundle.data.shape[1:]
    assert [f.name for f in source.spec.fields] == list(bundle.feature_names)
    assert {(f.kind, f.size) for f in source.spec.fields} == {("numeric", 1)} and source.spec.modality == "table"


def test_numbers_categories_and_gaps(tmp_path):
    source = table.csv(write(tmp_path / "people.csv", ROWS), target="label")
    assert source.spec.fields == (Field("age"), Field("city", "categorical", 3, ("Oslo", "Rome")), Field("dose"))
    assert source.spec.shape == (3,) and source.spec.scale == 1 and source.spec.name == "people"
    nan = math.nan
    wanted = torch.tensor([[30, 2, 1.5], [nan, 1, nan], [41, 0, 2], [25, 2, nan]])
    assert torch.equal(source.train.x.isnan(), wanted.isnan())
    assert torch.equal(source.train.x.nan_to_num(-1), wanted.nan_to_num(-1))
    assert source.train.y.tolist() == [1, 0, 1, -1] and source.spec.classes == ("no", "yes")


@pytest.mark.parametrize(("mark", "encoding"), [(";", "utf-8"), ("\t", "utf-8"), (",", "utf-8-sig")])
def test_separators_and_byte_order_mark(tmp_path, mark, encoding):
    plain = table.csv(write(tmp_path / "a.csv", ROWS), target="label")
    other = table.csv(write(tmp_path / "b.csv", ROWS.replace(",", mark), encoding), target="label")
    assert torch.equal(plain.train.x.nan_to_num(-1), other.train.x.nan_to_num(-1))
    assert plain.fingerprint == other.fingerprint and plain.spec.fields == other.spec.fields


def test_quoted_cells(tmp_path):
    text = 'city,x,y\n"Rome, Italy",1,a\n"a ""b""\nc",2,b\n'
    source = table.csv(write(tmp_path / "a.csv", text), target="y")
    assert source.train.x.tolist() == [[1, 1], [2, 2]] and source.spec.fields[0].size == 3


def test_settings_choose_columns(tmp_path):
    path = write(tmp_path / "a.csv", "id,code,x,who,void\n1,10,1,p,\n2,9,2,q,\n3,10,3,p,?\n")
    source = table.csv(path, categorical=["code"], drop=["id"], groups="who")
    assert [f.name for f in source.spec.fields] == ["code", "x"]
    assert source.train.x[:, 0].tolist() == [1, 2, 1] and source.train.groups == ["p", "q", "p"]
    assert source.spec.num_classes == 0 and source.train.y.tolist() == [-1, -1, -1]
    assert source.notes == ["column 'void' is empty and was left out"]


def test_test_file_uses_the_codes_of_training(tmp_path):
    train = write(tmp_path / "a.csv", ROWS)
    test = write(tmp_path / "b.csv", "label,dose,city,age\nno,1,Paris,3\nyes,2,Rome,4\n")
    source = table.csv(train, target="label", test_path=test)
    assert source.test.x.tolist() == [[3, 0, 1], [4, 2, 2]] and source.test.y.tolist() == [0, 1]
    assert source.notes == ["column 'city' has 1 test values unseen in training, coded as missing"]
    bare = table.csv(train, target="label", test_path=write(tmp_path / "c.csv", "dose,city,age\n1,Rome,3\n"))
    assert bare.test.y.tolist() == [-1]


def test_numeric_classes_sort_as_numbers(tmp_path):
    source = table.csv(write(tmp_path / "a.csv", "x,y\n1,10\n2,9\n3,2.0\n"), target="y")
    assert source.spec.classes == ("2", "9", "10") and source.train.y.tolist() == [2, 1, 0]


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (ROWS, {"target": "lable"}, "data.target=lable is not a column .* 'age', 'city', 'dose', 'label'"),
        (ROWS, {"groups": "who"}, "data.groups=who is not a column"),
        (ROWS, {"drop": ["who"]}, "data.drop=who is not a column"),
        (ROWS, {"groups": "city"}, "is missing in 1 rows"),
        ("a,b\n", {}, "has no rows"),
        ("", {}, "has no rows"),
        ("a,a\n1,2\n", {}, "column 'a' more than once"),
        ("a,b\n1,2\n3\n", {}, "has 1 cells in line 3"),
        ("a,y\n?,1\n,2\n", {"target": "y"}, "has no column left"),
        ('a,b\n1,"2\n', {}, "is not CSV"),
        ("x,y\n" + "\n".join(f"{i},{i / 7:.4f}" for i in range(60)), {"target": "y"}, "is a quantity and not a class"),
    ],
)
def test_errors(tmp_path, text, settings, message):
    with pytest.raises(UserError, match=message):
        table.csv(write(tmp_path / "a.csv", text), **settings)


def test_errors_of_files(tmp_path):
    path = write(tmp_path / "a.csv", ROWS)
    with pytest.raises(UserError, match="data.path is not set"):
        table.csv(None)
    with pytest.raises(UserError, match="data.path=.*none.csv is not a file"):
        table.csv(str(tmp_path / "none.csv"))
    with pytest.raises(UserError, match="is not UTF-8"):
        table.csv(write(tmp_path / "l.csv", "näme,x\n1,2\n", "latin-1"))
    for text, message in [
        ("age,city\n1,Rome\n", "lacks the column 'dose'"),
        ("age,city,dose,label\nold,Rome,1,yes\n", "'old' in row 1"),
        ("age,city,dose,label\n1,Rome,1,maybe\n", "class 'maybe' in the test part"),
    ]:
        with pytest.raises(UserError, match=message):
            table.csv(path, target="label", test_path=write(tmp_path / "t.csv", text))
