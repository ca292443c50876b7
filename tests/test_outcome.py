"""What a run says at its end: which rows are comparable, and what it writes."""

import csv
import json
from pathlib import Path

import pytest
import torch

import sslrun

LEAN = ["steps=2", "batch_size=64", "logger=none", "device.threads=1", "precision=fp32"]
SMALL = [*LEAN, "encoder.width=4"]


def rows(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def budgets_in(metrics):
    return {int(k.split("@")[1].split("/")[0]) for found in metrics["results"].values() for k in found if "@" in k}


def test_budgets_below_the_labels_that_were_used_are_not_reported(tmp_path):
    lean = [*SMALL, "eval=[linear]", "reference=null"]
    assert budgets_in(sslrun.run(["method=supervised", "labels=40", *lean], folder=tmp_path / "a")) == {40, 100}
    assert budgets_in(sslrun.run(["method=supervised", "labels=60", *lean], folder=tmp_path / "b")) == {60, 100}
    assert budgets_in(sslrun.run(["method=supervised", *lean], folder=tmp_path / "c")) == set(), "all labels were used"
    assert budgets_in(sslrun.run(["method=simclr", "labels=40", *lean], folder=tmp_path / "d")) == {10, 40, 100}


def test_reference_sees_the_labels_of_the_method_or_each_budget(tmp_path):
    lean = [*SMALL, "eval=[linear]", "eval.budgets=[20]"]
    found = sslrun.run(["method=fixmatch", "labels=40", "mu=1", *lean], folder=tmp_path / "a")["results"]["supervised"]
    assert {k for k in found if k.endswith("/accuracy")} == {"classify/accuracy", "linear@40/accuracy"}
    found = sslrun.run(["method=rotation", *lean], folder=tmp_path / "b")["results"]["supervised"]
    assert {k for k in found if k.endswith("/accuracy")} == {
        "classify/accuracy",
        "classify@20/accuracy",
        "linear/accuracy",
        "linear@20/accuracy",
    }


def test_protocol_says_how_by_subject(tmp_path):
    metrics = sslrun.run(["eval=[knn,linear]", "eval.budgets=[40]", *SMALL], folder=tmp_path / "run")
    protocol = metrics["protocol"]
    assert {"knn", "linear", "linear@40"} <= protocol.keys()
    assert protocol["knn"]["k"] == 20 and protocol["knn"]["rows"] == 1295
    own = protocol["linear@40"]["subjects"]
    assert own.keys() == {"trained", "random", "raw", "supervised"}
    score = {s: how.get("selected_score", protocol["linear@40"].get("selected_score")) for s, how in own.items()}
    assert len({str(s) for s in score.values()}) > 1, "each subject chose its own strength"


# Parts and labels that are missing


def test_without_a_test_part_a_run_finishes_and_scores_nothing(tmp_path, capsys):
    metrics = sslrun.run(["data.test_fraction=0", "eval=[knn,linear,cluster]", *SMALL], folder=tmp_path / "run")
    assert (metrics["status"], metrics["results"], metrics["primary"]) == ("finished", {}, None)
    assert metrics["harm"] is None and metrics["health"]["effective_rank"] > 1
    assert "finished after" in capsys.readouterr().out
    assert (tmp_path / "run/figures/tsne.png").exists() and (tmp_path / "run/encoder/model.safetensors").exists()
    classifier = ["method=fixmatch", "labels=40", "data.test_fraction=0", "eval=[knn]", *SMALL]
    assert sslrun.run(classifier, folder=tmp_path / "b")["results"] == {}
    assert not (tmp_path / "b/predictions.csv").exists()


@pytest.fixture
def unlabelled(tmp_path):
    draw = torch.Generator().manual_seed(0)
    table = torch.randn(120, 3, generator=draw)
    path = tmp_path / "heap.csv"
    path.write_text("a,b,c\n" + "\n".join(",".join(f"{v:.4f}" for v in row) for row in table.tolist()))
    return ["data=csv", f"data.path={path}"]


def test_without_labels_a_run_finishes_with_what_needs_none(unlabelled, tmp_path, capsys):
    lean = [*unlabelled, *LEAN, "eval=[knn,linear,cluster]"]
    metrics = sslrun.run(["method=denoising_autoencoder", *lean], folder=tmp_path / "a")
    assert metrics["status"] == "finished" and metrics["primary"] == "task/skill" and metrics["harm"] is None
    assert set(metrics["results"]) == {"trained", "random", "raw", "model", "trivial"}
    assert set(metrics["results"]["trained"]) == {"cluster/inertia", "cluster/silhouette"}
    assert "trained" in capsys.readouterr().out
    bare = [*unlabelled, *LEAN, "eval=[knn]"]
    assert sslrun.run(["method=simclr", *bare], folder=tmp_path / "b")["results"] == {}
    assert "finished after" in capsys.readouterr().out
    kmeans = sslrun.run(["method=kmeans", "method.kmeans.k=3", "epochs=2", *bare], folder=tmp_path / "c")
    assert kmeans["results"].keys() == {"model"} and kmeans["results"]["model"].keys() == {"cluster/silhouette"}
    assert {r["label"] for r in rows(tmp_path / "c/predictions.csv")} == {"0", "1", "2"}


# Predictions


def test_how_few_labels_there_are_is_said(command):
    cells = [f"{i % 7},{i % 5},{'ab'[i % 2] if i < 40 else ''}" for i in range(200)]
    Path("few.csv").write_text("\n".join(["x,z,y", *cells]))
    said = command("method=supervised", "data=csv", "data.path=few.csv", "data.target=y", "eval=[knn]", "steps=2",
                   "reference=null", "hydra.run.dir=run", "logger=none", "device.threads=1")  # fmt: skip
    assert said.status == 0 and "2 classes, 28 labels shown" in said.out
    assert "only 8 test samples have labels, too few to tell methods apart" in said.out


def test_batches_that_few_samples_cannot_fill_are_made_smaller_and_that_is_said(command):
    said = command("method=fixmatch", "data=iris", "eval=[knn]", "eval.looks=0", "reference=null", "steps=2",
                   "hydra.run.dir=run", "logger=none", "device.threads=1")  # fmt: skip
    assert (
        said.status == 0
        and "batch_size=32 times mu=4 is more than the 108 samples: batch_size=32 times mu=3 is used" in said.out
    )
    settings = json.loads(Path("run/metrics.json").read_text())["settings"]
    assert settings["batch_size"] == 32 and settings["mu"] == 3


def test_all_labelled_data_without_its_labelled_samples_has_none_to_learn_from(command):
    lean = ["data=iris", "data.exclude_labelled=true", "eval=[knn]", "steps=2", "reference=null", "logger=none"]
    said = command("method=fixmatch", *lean, "device.threads=1")
    assert said.status == 1 and "data.exclude_labelled=true leaves no unlabelled sample of data=iris" in said.err
    said = command("method=fixmatch", *lean, "device.threads=1", "labels=105")
    assert said.status == 0 and "is more than the 3 samples: batch_size=3 times mu=1 is used" in said.out


def test_a_network_trained_on_the_labels_is_not_fine_tuned_once_more(tmp_path):
    lean = [*SMALL, "eval=[finetune]", "eval.budgets=[]", "labels=20", "reference=null"]
    results = sslrun.run(["method=supervised", *lean], folder=tmp_path / "a")["results"]
    assert "model" in results and "trained" not in results
    assert "finetune@20/accuracy" in sslrun.run(["method=rotation", *lean], folder=tmp_path / "b")["results"]["trained"]


def test_cluster_methods_write_numbers_of_clusters(tmp_path):
    lean = ["data=iris", "epochs=2", "eval=[knn]", "logger=none", "device.threads=1"]
    metrics = sslrun.run(["method=kmeans", *lean], folder=tmp_path / "a")
    found = rows(tmp_path / "a/predictions.csv")
    assert list(found[0]) == ["index", "label", "confidence"] and len(found) == 30
    assert {r["label"] for r in found} == {"0", "1", "2"}, "a cluster is no class, even where there are as many"
    assert {"cluster/nmi", "cluster/ari", "cluster/accuracy"} <= metrics["results"]["model"].keys()


def test_classifiers_write_names_of_classes(tmp_path):
    lean = ["data=iris", "labels=6", "steps=20", "eval=[knn]", "logger=none", "device.threads=1", "precision=fp32"]
    metrics = sslrun.run(["method=supervised", *lean], folder=tmp_path / "run")
    found = rows(tmp_path / "run/predictions.csv")
    from sklearn.datasets import load_iris

    names, target = load_iris().target_names, load_iris().target
    hits = [names[target[int(r["index"])]] == r["label"] for r in found]
    assert sum(hits) / len(hits) == pytest.approx(metrics["results"]["model"]["classify/accuracy"])
    assert all(1 / 3 <= float(r["confidence"]) <= 1 for r in found)
