"""The pictures that a run leaves, for pictures and for tables."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sslrun
from sslrun import pictures
from sslrun.contracts import DataSpec
from sslrun.record import figures

LEAN = ["batch_size=64", "reference=null", "eval=[knn]", "logger=none", "device.threads=1", "precision=fp32"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two methods at once on pictures, and on a table: views, features, and predictions of their own."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["labels=40", "steps=3", "mu=1"]
    sslrun.run(["method=[fixmatch,rotation]", "encoder.width=4", *small, *LEAN], folder=folder / "image")
    table = ["method=[fixmatch,denoising_autoencoder]", "data=breast_cancer"]
    sslrun.run([*table, *small, *LEAN], folder=folder / "table")
    sslrun.run(["method=simclr", "encoder.width=4", "steps=2", *LEAN], folder=folder / "simclr")
    return folder


@pytest.mark.parametrize(("run", "task"), [("image", "rotation"), ("table", "denoising_autoencoder")])
def test_figures_of_a_run(runs, run, task):
    folder = runs / run / "figures"
    wanted = {"beliefs", "views", "curves", "tsne", "tsne_model", "pca", "confusion", "confusion_knn", f"task_{task}"}
    assert {p.stem for p in folder.iterdir()} == wanted
    for path in folder.iterdir():
        values = np.asarray(Image.open(path))
        assert min(values.shape[:2]) > 60 and values.std() > 5, f"{path.name} shows nothing"


def test_a_task_is_drawn_at_every_look(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    lean = [o for o in LEAN if o != "logger=none"]
    sslrun.run(["method=rotation", "encoder.width=4", "epochs=3", "eval.looks=3", *lean], folder=tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0})
    events.Reload()
    steps = [event.step for event in events.Images("task_rotation")]
    assert len(steps) >= 3 and len(set(steps)) == 3, "one for each look, by step"


def test_views_show_the_samples_and_every_view(runs, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "draw", lambda rows, spec: drawn.append(rows))
    from sslrun.build import build
    from sslrun.compose import compose
    from sslrun.learner import Learner
    from sslrun.record.folder import RunFolder
    from sslrun.record.gallery import Gallery

    def shown(*overrides):
        built = build(compose([*overrides, "encoder.width=4"])[0])
        pictures.views(Learner(built.encoder, built.objectives, built.data), Gallery(RunFolder(runs / "none")))
        return built.data, drawn.pop()

    data, rows = shown("method=simclr")
    assert len(rows) == 3 and next(iter(rows)) == "sample"
    sample, one, other = rows.values()
    assert torch.equal(sample, data.train.inputs(data.sample(8).sort().values))
    for first, second in ((sample, one), (sample, other), (one, other)):
        assert first.shape == second.shape and all(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    _, rows = shown("method=fixmatch", "labels=40")
    assert list(rows) == ["sample", "labelled weak", "unlabelled strong", "unlabelled weak"]


def test_views_picture_has_a_row_for_each(runs):
    """Eight samples of 8 x 8, enlarged to 64 pixels, below each other with both of their views."""
    picture = np.asarray(Image.open(runs / "simclr/figures/views.png"))
    assert picture.shape[0] == 3 * (64 + 3)
    left = picture.shape[1] - 8 * (64 + 3)
    row = [picture[i * 67 : i * 67 + 64, left:] for i in range(3)]
    from sslrun.data.image import digits
    from sslrun.data.module import Data

    data = Data(digits(), seed=0, split_seed=0)
    first = data.train.inputs(data.sample(8).min().view(1))[0, 0]  # (8, 8) in [0, 1]
    seen = torch.from_numpy(row[0][:, :64, 0].copy()).float().view(8, 8, 8, 8).mean((1, 3)) / 255
    assert torch.allclose(seen, first, atol=1 / 255)
    assert not np.array_equal(row[0], row[1]) and not np.array_equal(row[1], row[2])


# One picture of values


def test_whole_numbers_become_captions():
    spec = DataSpec("toy", "image", (1, 8, 8), 2)
    values = {"seen": torch.rand(2, 1, 8, 8), "turned": torch.tensor([1, 3])}
    captioned, plain = pictures.draw(values, spec), pictures.draw({"seen": values["seen"]}, spec)
    assert captioned.shape[0] == plain.shape[0] + 14
    assert (captioned[:14] < 128).any(), "nothing is written above"


def test_a_table_is_drawn_in_standard_deviations(monkeypatch):
    spec = DataSpec("toy", "table", (2,), 2, mean=(10.0, 0.0), std=(2.0, 1.0))
    monkeypatch.setattr(figures, "heat", lambda panels: panels)
    shown = pictures.draw({"x": torch.tensor([[14.0, 1.0], [8.0, 0.0]]), "hidden": torch.ones(2, 5)}, spec)
    assert shown["x"].tolist() == [[2, 1], [-1, 0]]
    assert torch.equal(shown["hidden"], torch.ones(2, 5)), "another width: not columns of the table"


def test_what_cannot_be_drawn_is_left_out():
    spec = DataSpec("toy", "image", (1, 8, 8), 2)
    assert pictures.draw({"x": torch.rand(2, 1, 8, 8), "code": torch.rand(2, 5)}, spec) is None


def test_title_names_the_part_that_is_shown(tmp_path, monkeypatch):
    titles = []
    monkeypatch.setattr(figures, "confusion", lambda guess, labels, classes, title: titles.append(title))
    lean = [a for a in LEAN if a != "logger=none"]
    sslrun.run(["data=iris", "method=simclr", "data.test_fraction=0", "steps=1", "logger=none", *lean], tmp_path / "a")
    assert titles and all("validation samples" in title or "val samples" in title for title in titles)


def test_one_tsne_is_shown_by_class_cluster_and_confidence(command, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    computed, drawn, tsne, scatters = [], [], pictures._tsne, figures.scatters
    monkeypatch.setattr(pictures, "_tsne", lambda x: computed.append(x) or tsne(x))
    monkeypatch.setattr(figures, "scatters", lambda *given: drawn.append(given) or scatters(*given))
    said = command("data=iris", "method=gmm", "epochs=5", "eval=[cluster]", "device.threads=1")
    assert said.status == 0, said.err
    assert len(computed) == 1
    by_class, by_model, components = drawn
    assert by_class[0] is by_model[0] and list(components[1]) == ["class", *by_model[1]]
    (cluster, names), (confidence, none) = by_model[1].values()
    assert names == ("0", "1", "2") and set(cluster.tolist()) <= {0, 1, 2} and none == ()
    assert confidence.amin() >= 1 / 3 - 1e-6 and confidence.amax() <= 1
    assert len(cluster) == len(confidence) == len(by_class[0]) == 30
    assert components[3][0].startswith("component 1: ") and components[3][0].endswith(" % of the variance")
    run = next(Path("outputs").rglob("metrics.json")).parent
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    assert {"tsne", "tsne_model", "pca"} <= set(events.Tags()["images"])
    assert (run / "projector/metadata.tsv").read_text().startswith("class\tindex\tthe method's own cluster\tconfidence")


def test_hard_clusters_have_no_confidence_to_show():
    spec = DataSpec("toy", "table", (2,))
    told = pictures._told(("cluster", torch.eye(3)[[0, 2, 2, 1]]), torch.arange(4), spec)
    assert [v.tolist() for v, _ in told.values()] == [[0, 2, 2, 1]]
    told = pictures._told(("class", torch.tensor([[0.0, 0.0], [0.2, 0.8]])), torch.arange(2), spec)
    assert [v.tolist() for v, _ in told.values()] == [[-1, 1], pytest.approx([0, 0.8])]


def test_principal_components_are_scikit_learns():
    from sklearn.decomposition import PCA

    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([5, 1, 3, 1, 1])
    points, shares = pictures._principal(x)
    theirs = PCA(2).fit(x.double().numpy())
    assert shares == pytest.approx(theirs.explained_variance_ratio_)
    np.testing.assert_allclose(abs(points), abs(theirs.transform(x.double().numpy())), rtol=1e-6, atol=1e-9)
    for x in (torch.rand(12, 1), torch.zeros(20, 4)):
        points, shares = pictures._principal(x)
        assert points.shape == (len(x), 2) and np.isfinite(points).all() and np.isfinite(shares).all()


def test_tsne_of_a_few_and_of_equal_rows():
    for x in (torch.rand(11, 3), torch.rand(12, 1), torch.zeros(20, 4)):
        points = pictures._tsne(x)
        assert points.shape == (len(x), 2) and np.isfinite(points).all()
