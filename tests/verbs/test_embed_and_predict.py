"""Features and predictions of a run's own data and of new data, brought to what its encoder reads."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image

from sslrun.contracts import DataSpec, Field, UserError
from sslrun.data.source import Part
from sslrun.verbs.fitting import columns, fitted


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def test_embed_as_npz(command, trained):
    said = command("embed", trained("simclr"), "out=f.npz")
    assert said.status == 0 and "1,797 x" in said.out
    found = np.load("f.npz", allow_pickle=False)
    assert len(found["features"]) == len(found["label"]) == len(found["class"]) == 1797
    assert sorted(found["index"].tolist()) == list(range(1797))
    assert (found["class"] == found["label"].astype(str)).all()


def test_embed_as_parquet(command, trained):
    pq = pytest.importorskip("pyarrow.parquet")
    assert command("embed", trained("simclr"), "out=f.parquet").status == 0
    assert command("embed", trained("simclr"), "out=f.npz").status == 0
    table = pq.read_table("f.parquet")
    assert np.allclose(np.stack(table["features"].to_numpy()), np.load("f.npz")["features"])


@pytest.mark.parametrize("size, mode", [((31, 20), "RGB"), ((8, 8), "L"), ((5, 9), "RGBA")])
def test_new_pictures_of_any_form(command, trained, tmp_path, size, mode):
    draws = np.random.default_rng(0)
    for name in ("3", "zebra"):
        (tmp_path / "new" / name).mkdir(parents=True)
        for i in range(3):
            shape = (size[1], size[0], len(mode)) if len(mode) > 1 else (size[1], size[0])
            pixels = draws.integers(0, 256, shape, dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "new" / name / f"{i}.png")
    new = ["data=image_folder", f"data.root={tmp_path / 'new'}"]
    assert command("embed", trained("supervised"), *new, "out=f.npz").status == 0
    found = np.load("f.npz")
    assert found["class"].tolist() == ["3"] * 3 + ["zebra"] * 3
    assert found["label"].tolist() == [3] * 3 + [-1] * 3  # the run's own class of that name; it knows no zebra
    assert found["name"][0] == "3/0.png"
    said = command("predict", trained("supervised"), *new, "out=p.csv")
    assert said.status == 0 and "6 predictions in p.csv, of pictures read as 1 x 8 x 8 as in training" in said.out
    assert {r["label"] for r in rows("p.csv")} <= set("0123456789") and rows("p.csv")[0]["name"] == "3/0.png"
    assert {r["part"] for r in rows("p.csv")} == set(found["part"]) == {"new"}


def test_new_samples_do_not_overwrite_the_runs_own(command, copied):
    run = copied("supervised")
    said = command("predict", run), command("predict", run, "data=digits")
    assert [s.status for s in said] == [0, 0] and "predictions_all_new.csv" in said[1].out
    assert {r["part"] for r in rows(run / "predictions_all.csv")} == {"train"}
    assert {r["part"] for r in rows(run / "predictions_all_new.csv")} == {"new"}
    assert command("embed", run, "data=digits").status == 0 and not (run / "features.npz").exists()


def test_predict_labels_clusters_and_completions(command, trained):
    assert command("predict", trained("supervised"), "out=p.csv").status == 0
    test = {r["index"]: r["label"] for r in rows("p.csv")}
    own = rows(trained("supervised") / "predictions.csv")
    assert len(test) == 1797 and len(own) == 359 and all(test[r["index"]] == r["label"] for r in own)
    assert command("predict", trained("kmeans"), "out=k.csv").status == 0
    assert {int(r["label"]) for r in rows("k.csv")} == set(range(10))
    assert command("predict", trained("table"), "out=t.npz").status == 0
    done = np.load("t.npz")
    assert done["train"].shape == (178, 13) and np.isfinite(done["train"]).all()
    said = command("predict", trained("simclr"))
    assert said.status == 1 and "method=simclr does not predict" in said.err


@pytest.mark.parametrize(
    "argv, words",
    [
        (["data=wine"], "reads image data, and data=wine is table data"),
        (["data.rot=x"], "key data.rot is unknown"),
        (["lr=3"], "does not know lr=3"),
        (["out=f.txt"], "must end in .npz or .parquet"),
    ],
)
def test_what_cannot_be_embedded(command, trained, argv, words):
    said = command("embed", trained("simclr"), *argv)
    assert said.status == 1 and words in said.err and len(said.err.splitlines()) == 1


def spec(*fields, classes=()):
    return DataSpec("t", "table", (len(fields),), len(classes), classes, fields=fields)


def test_columns_and_classes_are_matched_by_name():
    wanted = spec(Field("age"), Field("city", "categorical", 3, ("bonn", "rome")), classes=("no", "yes"))
    given = spec(Field("city", "categorical", 4, ("oslo", "rome", "zug")), Field("age"), classes=("yes",))
    x = torch.tensor([[2.0, 30], [1, 31], [0, 32], [3, 33]])
    x, labels, _ = fitted(Part(x, torch.tensor([0, -1, 0, -1])), given, wanted)
    assert x.tolist() == [[30, 2], [31, 0], [32, 0], [33, 0]]  # rome is code 2 there; oslo and zug are unknown
    assert labels.tolist() == [1, -1, 1, -1]
    with pytest.raises(UserError, match="lacks column 'age'"):
        columns(x[:, :1], spec(given.fields[0]), wanted)
    with pytest.raises(UserError, match="'city' is categorical in the run's training data and numeric"):
        columns(x, spec(Field("city"), Field("age")), wanted)


def test_real_pictures_keep_the_scale_that_training_measured():
    wanted = DataSpec("a", "image", (1, 8, 8), scale=7.5)
    x, _, scale = fitted(
        Part(torch.rand(2, 1, 8, 8) * 3, torch.tensor([-1, -1])), DataSpec("b", "image", (1, 8, 8), scale=2.9), wanted
    )
    assert scale == 7.5
    deep = DataSpec("c", "image", (3, 16, 16), scale=255.0)
    store, _, scale = fitted(
        Part(torch.full((2, 3, 16, 16), 51, dtype=torch.uint8), torch.tensor([0, 0])), deep, wanted
    )
    assert scale == 255 and store[torch.tensor([1])].shape == (1, 1, 8, 8)
    assert torch.allclose(store[torch.tensor([0])], torch.tensor(51.0), atol=0.1)
