"""One-class splits: what is normal is trained on, and nothing else is seen before the evaluators open their parts."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

import sslrun
from sslrun.contracts import DataSpec
from sslrun.data.folder import image_folder
from sslrun.data.image import digits
from sslrun.data.module import Data
from sslrun.data.source import Part, Source, class_numbers
from sslrun.data.table import wine
from sslrun.errors import UserError
from sslrun.evaluate.judge import Judge

LEAN = ["steps=2", "logger=none", "device.threads=1", "precision=fp32", "encoder.width=4"]


@pytest.fixture(autouse=True)
def without_tsne(monkeypatch):
    """It takes longer than the rest of a tiny run, and has its own tests."""
    monkeypatch.setattr("sslrun.pictures.features", lambda *arguments: None)


def folder(path):
    """Two classes of pictures, in files."""
    draw = np.random.default_rng(0)
    for name in ("good", "cracked"):
        (path / name).mkdir(parents=True)
        for i in range(20):
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path / name / f"{i}.png")
    return image_folder(str(path))


SOURCES = {
    "digits": (lambda path: digits(), 3),
    "wine": (lambda path: wine(), "class_1"),
    "folder": (folder, "good"),
    "files": (lambda path: image_folder_on_disk(path), "good"),
}


def image_folder_on_disk(path):
    folder(path)
    return image_folder(str(path), memory_gb=0)


@pytest.mark.parametrize("kind", SOURCES)
def test_fit_sees_one_class_and_evaluators_see_all(kind, tmp_path):
    make, normal = SOURCES[kind]
    source = make(tmp_path / "data")
    plain = Data(source, seed=0, split_seed=0)
    made = Data(source, seed=0, split_seed=0, normal_class=normal)
    (number,) = made.spec.normal
    assert made.spec.classes == plain.spec.classes and made.spec.classes[number] == str(normal)
    for ours, whole in ((made.train, plain.train), (made.val, plain.val)):
        assert ours.labels.unique().tolist() == [number]
        assert ours.index.tolist() == whole.index[whole.labels == number].tolist()
        assert torch.equal(ours.inputs(torch.arange(len(ours))), whole.inputs((whole.labels == number).nonzero()[:, 0]))
    for ours, whole in ((made.open_val(), plain.val), (made.open_test(), plain.open_test())):
        assert torch.equal(ours.index, whole.index) and torch.equal(ours.labels, whole.labels)
    assert len(made.open_test().labels.unique()) == made.spec.num_classes
    assert plain.open_val() is plain.val and plain.spec.normal == ()


def rows(classes=3, n=90, **parts):
    y = torch.arange(n) % classes
    x = torch.stack([y * 100.0, torch.arange(n).float()], 1)
    spec = DataSpec("rows", "table", (2,), classes, tuple("abcdef"[:classes]))
    return Source(spec, Part(x, y), fingerprint="f", **parts)


class Seen:
    def prepare(self, x):
        self.x = x


def test_statistics_and_augmentations_learn_from_normal_samples():
    recipe = Seen()
    made = Data(rows(), seed=0, split_seed=0, normal_class="b", recipes={"seen": recipe})
    assert made.spec.mean[0] == 100 and set(recipe.x[:, 0].tolist()) == {100.0}
    assert (made.labelled.tolist(), len(made.sequence)) == (list(range(len(made.train))), len(made.train))


def test_several_classes_and_official_parts_and_unlabelled_rows():
    source = rows()
    source.train.y[:9] = -1
    source.val, source.test = (Part(source.train.x[:12], torch.arange(12) % 3) for _ in range(2))
    made = Data(source, seed=0, split_seed=0, normal_class=["c", 0])
    assert made.spec.normal == (0, 2) and set(made.train.labels.tolist()) == {0, 2} and len(made.train) == 54
    assert made.val.labels.tolist() == [0, 2] * 4 and len(made.open_val()) == len(made.open_test()) == 12


def test_the_record_tells_one_split_from_another():
    splits = [Data(rows(), seed=0, split_seed=0, normal_class=c).splits() for c in (None, "a", "b", ["a", "b"])]
    assert [s.get("normal") for s in splits] == [None, ["a"], ["b"], ["a", "b"]]
    assert len({s["parts"]["train"]["sha256"] for s in splits}) == 4
    assert len({s["parts"]["test"]["sha256"] for s in splits}) == 1
    whole = splits[0]["parts"]["val"]
    assert "val_with_anomalies" not in splits[0]["parts"]
    assert all(s["parts"]["val_with_anomalies"] == whole and s["parts"]["val"] != whole for s in splits[1:])


def test_a_class_is_a_name_or_else_a_number():
    spec = DataSpec("rows", "table", (2,), 3, ("2", "1", "x"))
    assert class_numbers(2, spec, "key") == (0,) and class_numbers("x", spec, "key") == (2,)
    assert class_numbers(0, spec, "key") == (0,) and class_numbers(["x", 1], spec, "key") == (1, 2)
    for wrong in (3, "y", True, -1, 1.5, None):
        with pytest.raises(UserError, match=f"key={wrong} is not a class of data=rows; it has class '2', '1', 'x'"):
            class_numbers(wrong, spec, "key")
    with pytest.raises(UserError, match="names no class"):
        class_numbers([], spec, "key")


@pytest.mark.parametrize(
    "normal, reason", [(["a", "b", "c"], "leaves no anomaly"), ("d", "is not a class of data=rows")]
)
def test_splits_that_make_no_sense_are_refused(normal, reason):
    with pytest.raises(UserError, match=reason):
        Data(rows(), seed=0, split_seed=0, normal_class=normal)


def test_a_class_without_training_samples_is_refused():
    source = rows()
    source.train.y[source.train.y == 1] = 0
    source.val, source.test = (Part(source.train.x[:12], torch.arange(12) % 3) for _ in range(2))
    with pytest.raises(UserError, match="data.normal_class=b has no training sample"):
        Data(source, seed=0, split_seed=0, normal_class="b")


# Runs


def test_no_anomaly_is_read_before_the_judge_opens_its_parts(tmp_path, monkeypatch):
    seen, judged = {False: set(), True: set()}, []
    inputs, begin = sslrun.data.module.Part.inputs, Judge.__init__

    def spy(part, positions, *rest):
        seen[bool(judged)] |= set(part.labels[positions].tolist())
        return inputs(part, positions, *rest)

    def open_parts(*arguments):
        judged.append(True)
        begin(*arguments)

    monkeypatch.setattr(sslrun.data.module.Part, "inputs", spy)
    monkeypatch.setattr(Judge, "__init__", open_parts)
    settings = ["method=rotation", "data=digits", "data.normal_class=8", "eval=[proxy]", *LEAN]
    metrics = sslrun.run(settings, folder=tmp_path / "run")
    assert seen[False] == {8} and len(seen[True]) == 10
    results = metrics["results"]
    assert {"trained", "supervised"}.isdisjoint(results) and metrics["validation"]["metric"] == "validation/loss"
    assert all("proxy/auroc" in results[s] for s in ("model", "random", "raw"))
    assert metrics["protocol"]["proxy"]["positive"] == "every class but 8"
    record = json.loads((tmp_path / "run/splits.json").read_text())
    assert record["normal"] == ["8"] and record["parts"]["train"]["size"] == 125
    assert metrics["settings"]["batch_size"] == 125, "the default is more than there is of one class"


def test_the_methods_own_task_is_scored_on_normal_samples(tmp_path, monkeypatch):
    asked, validation = [], Data.validation

    def spy(data, part, *arguments, draw=0, **settings):
        asked.append((data, part, draw))
        return validation(data, part, *arguments, draw=draw, **settings)

    monkeypatch.setattr(Data, "validation", spy)
    normal = ["data=wine", "data.normal_class=class_0", "eval=[proxy]", *[s for s in LEAN if "width" not in s]]
    found = sslrun.run(["method=denoising_autoencoder", "batch_size=32", *normal], folder=tmp_path / "b")["results"]
    assert {"task/loss", "task/skill", "proxy/auroc"} <= found["model"].keys()
    of_test = [(p, draw) for data, p, draw in asked if set(p.index.tolist()) <= set(data.open_test().index.tolist())]
    assert [set(part.labels.tolist()) for part, draw in of_test if not draw] == [{0}]
    assert {len(set(part.labels.tolist())) for part, draw in of_test if draw} == {3}, "scores are of all"


def test_clusters_of_one_class_are_held_against_no_other(tmp_path):
    settings = ["method=kmeans", "data=wine", "data.normal_class=class_0", "eval=[proxy]", "epochs=2"]
    found = sslrun.run([*settings, "logger=none", "device.threads=1"], folder=tmp_path / "a")["results"]
    assert "proxy/auroc" in found["model"] and not any("cluster" in k for k in found["model"])


@pytest.mark.parametrize("evaluators", ["eval=[knn,linear]", "eval=[proxy,knn]", "eval=[cluster]"])
def test_probes_are_refused_before_training(evaluators, tmp_path):
    with pytest.raises(UserError, match=r"tells classes apart, and data.normal_class=0 leaves .* use eval=\[proxy\]"):
        sslrun.run(
            ["method=rotation", "data=digits", "data.normal_class=0", evaluators, *LEAN], folder=tmp_path / "run"
        )
