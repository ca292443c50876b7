"""Drawing: what stands where in a picture."""

import csv

import numpy as np
import pytest
import torch

from sslrun.record import figures


def test_grid_shows_every_picture_at_its_place_and_enlarged():
    a, b = torch.zeros(3, 1, 4, 4), torch.ones(3, 1, 4, 4)
    a[1, 0, 0, 0] = 0.5
    picture = figures.grid({"clean": a, "noisy": b}, ["x 1", "x 2", "x 3"])
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    cells = (picture == 128).all(2)
    assert cells.sum() == (figures.CELL // 4) ** 2  # one pixel of the second picture, a whole number of times larger
    rows, columns = np.nonzero(cells)
    middle = picture.shape[1] / 2
    assert rows.max() < picture.shape[0] / 2 and middle - figures.CELL < columns.mean() < middle + figures.CELL


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_number_of_channels_becomes_a_colour_picture(channels):
    x = torch.linspace(0, 1, channels).view(-1, 1, 1).expand(-1, 2, 2)
    shown = figures.rgb(x)
    assert shown.shape == (2, 2, 3)
    expected = {1: [0, 0, 0], 2: [0, 255, 0], 3: [0, 128, 255], 5: [0, 64, 128]}[channels]
    assert shown[0, 0].tolist() == expected


def test_missing_values_and_values_out_of_range_are_drawn():
    x = torch.tensor([float("nan"), -1.0, 2.0]).view(3, 1, 1)
    assert figures.rgb(x)[0, 0].tolist() == [0, 0, 255]


def test_confusion_counts_shares_of_the_truth(monkeypatch):
    seen = {}
    monkeypatch.setattr(figures, "_array", lambda figure: seen.update(axes=figure.axes[0]))
    labels = torch.tensor([0, 0, 0, 0, 1, 1, -1, 0])
    guess = torch.tensor([0, 0, 0, 1, 1, 0, 1, -1])
    figures.confusion(guess, labels, ("cat", "dog"), "t")
    assert seen["axes"].images[0].get_array().tolist() == [[0.75, 0.25], [0.5, 0.5]]
    assert [t.get_text() for t in seen["axes"].texts] == ["75", "25", "50", "50"]


@pytest.mark.parametrize("classes", [0, 3, 40])
def test_scatter_takes_no_few_or_many_classes(classes):
    points = np.random.default_rng(0).normal(size=(50, 2))
    labels = torch.arange(50) % classes if classes else torch.full((50,), -1)
    picture = figures.scatter(points, labels, [f"c{i}" for i in range(classes)], "t")
    assert picture.ndim == 3 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 5


def test_curves_put_phases_of_one_measure_together(tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(figures, "_array", lambda figure: seen.update(axes=figure.axes))
    with open(tmp_path / "m.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["epoch", "step", "name", "value"])
        writer.writerows([[0, 1, "train/loss", 3], [0, 2, "train/loss", 2], [0, 2, "validation/loss", "nan"]])
        writer.writerows([[1, 4, "validation/loss", 2.5], [0, 1, "train/lr", 0.1]])
    figures.curves(tmp_path / "m.csv")
    panels = {
        axes.get_title(): {line.get_label(): line.get_xydata().tolist() for line in axes.lines} for axes in seen["axes"]
    }
    assert panels["loss"] == {"train": [[1, 3], [2, 2]], "validation": [[4, 2.5]]}
    assert list(panels) == ["loss", "lr"]


def test_curves_of_nothing_are_no_picture(tmp_path):
    (tmp_path / "m.csv").write_text("epoch,step,name,value\n")
    assert figures.curves(tmp_path / "m.csv") is None


def test_heat_draws_missing_cells():
    x = torch.randn(4, 6)
    x[0, 0] = torch.nan
    assert figures.heat({"input": x, "output": x}).std() > 0
