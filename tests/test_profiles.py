"""What sets the clusters of a table apart: numbers, file, figure and lines on the terminal."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslrun.build import chosen_methods
from sslrun.contracts import DataSpec, Field, Objective, UserError
from sslrun.profiles import profile, refuse_profile
from sslrun.record import summary

LEAN = ("device.threads=1", "logger=none", "method.kmeans.k_range=[2,4]", "epochs=20")
FIELDS = (Field("age"), Field("town", "categorical", 4, ("Lyon", "Nice", "Paris")), Field("same"))


def test_profile_is_means_and_shares_in_the_units_of_the_table():
    x = torch.tensor([[20, 1, 7], [30, 1, 7], [torch.nan, 3, 7], [60, 3, 7], [70, 0, 7], [999, 2, 7]])
    found = profile(x, torch.tensor([0, 0, 0, 4, 4, -1]), FIELDS)
    assert found.names == [0, 4] and found.sizes == [3, 2]
    age = np.array([20, 30, 60, 70])  # the row of no cluster is left out
    assert found.value[:, 0].tolist() == pytest.approx([25, 65])
    assert found.deviation[:, 0].tolist() == pytest.approx([(25 - 45) / age.std(), (65 - 45) / age.std()])
    assert found.value[:, 1].tolist() == [1, 3] and found.share[:, 1].tolist() == pytest.approx([2 / 3, 1])
    # of the four rows that have a town half are of either one
    assert found.deviation[:, 1].tolist() == pytest.approx([(2 / 3 - 1 / 2) / 0.5, (1 - 1 / 2) / 0.5])
    assert found.deviation[:, 2].tolist() == [0, 0], "a constant column tells nothing"
    assert found.word(0, 1) == "Lyon 67 %" and found.word(1, 0) == "65"
    assert found.telling(0) == [0, 1, 2] and found.telling(1) == [1, 0, 2]
    rows = list(found.rows())
    assert [(r["cluster"], r["column"]) for r in rows[:3]] == [(0, "age"), (0, "town"), (0, "same")]
    assert rows[1]["value"] == "Lyon" and rows[1]["size"] == 3 and rows[0]["share_of_cluster"] == ""


def test_a_column_that_a_cluster_lacks_is_empty_and_named_last():
    x = torch.tensor([[torch.nan, 0, 7], [torch.nan, 0, 7], [60, 3, 7], [70, 2, 7]])
    found = profile(x, torch.tensor([0, 0, 1, 1]), FIELDS)
    rows = list(found.rows())
    assert [r["column"] for r in rows[:3]] == ["same", "age", "town"] and rows[1]["value"] == rows[2]["value"] == ""
    assert found.word(0, 0) == found.word(0, 1) == "-"


def customers(path, labels):
    """Two kinds of customers that differ in age and spending, named in the last column on request."""
    draw = np.random.default_rng(0)
    with open(path, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["spend [EUR]", "age", "noise", *["kind"] * labels])
        for i in range(80):
            row = [1000 + 4000 * (i % 2) + draw.normal(0, 100), 30 + 40 * (i % 2) + draw.normal(0, 8), draw.normal()]
            writer.writerow([*row, *["ab"[i % 2]] * labels])


@pytest.mark.parametrize(("method", "labels"), [("kmeans", False), ("gmm", True)])
def test_customer_segments_through_the_command_line(command, method, labels):
    customers("customers.csv", labels)
    given = ["data=csv", "data.path=customers.csv", *["data.target=kind"] * labels, f"method={method}"]
    own = [o for o in LEAN if not o.startswith("method")] + ["method.gmm.k=2"] if labels else LEAN
    said = command("experiment=customer_segments", *given, *own)
    assert said.status == 0, said.err
    run = next(Path("outputs").rglob("metrics.json")).parent
    assert run.parts[1] == method, "settings of a method that was not chosen name no folder"
    with open(run / f"profile_{method}.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 2 * 3 and [int(r["size"]) for r in rows[::3]] == [40, 40], "every row of the table is in one"
    assert [r["column"] for r in rows[:2]] == ["spend [EUR]", "age"], "the most telling first"
    assert sorted(round(float(r["value"]), -2) for r in rows if r["column"] == "spend [EUR]") == [1000, 5000]
    picture = np.asarray(Image.open(run / f"figures/profile_{method}.png"))
    assert min(picture.shape[:2]) > 100 and picture.std() > 5
    assert f"{method} cluster" in said.out and "spend [EUR] " in said.out and "(+1.0)" in said.out
    results = json.loads((run / "metrics.json").read_text())["results"]
    assert not labels or results["model"]["cluster/accuracy"] == 1
    assert results["model"]["cluster/silhouette"] > 0.2 and ("cluster silhouette" in said.out) != labels


def test_profiles_of_what_is_no_table_or_no_cluster_are_refused(command):
    said = command("experiment=customer_segments", "data=digits")
    assert said.status and "data=digits is image data; use data=csv data.path=table.csv" in said.err
    with pytest.raises(UserError, match="method=pca makes none; these do: gmm, kmeans."):
        refuse_profile(DataSpec("wine", "table", (13,)), {"pca": Objective(None, None)})
    with pytest.raises(UserError, match="method.mine has no _target_"):
        chosen_methods({"mine": {"k": 3}})


def test_terminal_names_the_largest_clusters_and_what_differs(capsys, monkeypatch):
    monkeypatch.setattr(summary, "CLUSTERS", 1)
    x = torch.tensor([[20, 1, 7], [30, 1, 7], [25, 1, 7], [60, 3, 7], [70, 3, 7.0]])
    summary.profile("kmeans", profile(x, torch.tensor([0, 0, 0, 1, 1]), FIELDS))
    said = capsys.readouterr().out
    assert "Lyon 100 %" in said and "Paris" not in said and "same" not in said and "1 smaller clusters" in said
