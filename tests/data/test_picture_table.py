import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sslrun.contracts import UserError
from sslrun.data.module import Data
from sslrun.data.pixels import pixels
from sslrun.encoders.identity import Identity

LEAN = ("device.threads=1", "logger=none", "epochs=30", "batch_size=1024")


def drawn(folder, height=40, width=60, noise=12):
    """A noisy picture of three regions, and its true segments: paths."""
    draw = np.random.default_rng(0)
    truth = np.zeros((height, width), int)
    truth[:, width // 2 :] = 1
    truth[height // 2 :, : width // 2] = 2
    colours = np.array([[200, 40, 40], [40, 160, 60], [60, 60, 200]])
    picture = (colours[truth] + draw.normal(0, noise, (height, width, 3))).clip(0, 255).astype(np.uint8)
    Image.fromarray(picture).save(folder / "photo.png")
    Image.fromarray((truth * 90).astype(np.uint8)).save(folder / "truth.png")
    return folder / "photo.png", folder / "truth.png", picture, truth


def test_rows_are_pixels_row_by_row(tmp_path):
    path, mask, picture, truth = drawn(tmp_path)
    source = pixels(str(path), str(mask))
    assert source.raster == (40, 60) and source.spec.shape == (5,) and source.spec.modality == "table"
    np.testing.assert_allclose(source.train.x[:, :3], picture.reshape(-1, 3) / 255, rtol=1e-6)
    assert source.train.x[60 * 3 + 7, 3:].tolist() == pytest.approx([3 / 60, 7 / 60])
    assert (source.train.y.numpy() == truth.ravel()).all() and source.spec.classes[1] == "#5a5a5a"
    assert pixels(str(path), position=0).spec.shape == (3,)
    smaller = pixels(str(path), str(mask), side=30)
    assert smaller.raster == (20, 30) and (smaller.train.y.numpy() == truth[::2, ::2].ravel()).all()
    Image.fromarray(picture[..., 0]).save(tmp_path / "grey.png")
    grey = pixels(str(tmp_path / "grey.png")).train.x
    assert torch.equal(grey[:, 0], grey[:, 2])


def test_places_weigh_what_was_asked(tmp_path):
    path, *_ = drawn(tmp_path)
    data = Data(pixels(str(path), position=0.25), seed=0, split_seed=0)
    z = Identity(data.spec)(data.train.inputs(torch.arange(len(data.train))))
    torch.testing.assert_close(z.std(0, correction=0), torch.tensor([1, 1, 1, 0.25, 0.25]), rtol=1e-3, atol=1e-3)
    marks = {pixels(str(path), position=p).fingerprint for p in (0, 0.25, 0.5)}
    assert len(marks) == 3


def test_segments_are_the_true_ones_and_shown_beside_the_picture(command, tmp_path):
    path, mask, *_ = drawn(tmp_path)
    said = command(
        "experiment=segmentation", f"image={path.name}", f"data.mask={mask.name}", "method.kmeans.k=3", *LEAN
    )
    assert said.status == 0, said.err
    run = next(Path("outputs").rglob("metrics.json")).parent
    results = json.loads((run / "metrics.json").read_text())["results"]
    assert results["model"]["cluster/ari"] > 0.95 and results["model"]["cluster/accuracy"] > 0.97
    with Image.open(run / "figures/segments.png") as shown:
        shown = np.asarray(shown)
    assert shown.shape == (5 * 40, 5 * (3 * 60 + 2 * 4), 3)  # five times its size
    first, second = shown[20, 5 * 128 + 20], shown[20, 5 * 128 + 280]
    assert (first != second).any() and (shown[60, 5 * 128 + 60] == first).all()
    assert str(path) in (run / "config.yaml").read_text()


def test_the_bundled_photograph_needs_no_path():
    source = pixels(side=64)
    assert source.raster == (43, 64) and source.spec.name == "china" and source.spec.num_classes == 0


def test_pictures_that_cannot_be_read_are_refused(tmp_path, command):
    path, mask, picture, _ = drawn(tmp_path)
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(picture).save(tmp_path / "noise.png")
    Image.fromarray(picture[:, :20]).save(tmp_path / "narrow.png")
    for arguments, words in (
        ({"path": "absent.png"}, "image=absent.png is not a file"),
        ({"path": str(tmp_path / "text.png")}, "text.png cannot be read"),
        ({"path": str(path), "mask": "absent.png"}, "data.mask=absent.png is not a file"),
        ({"path": str(path), "mask": str(tmp_path / "text.png")}, "data.mask=.*text.png cannot be read"),
        ({"path": str(path), "mask": str(tmp_path / "noise.png")}, "colours; a mask names 2 to 256"),
        ({"path": str(path), "mask": str(tmp_path / "narrow.png")}, "another shape than the picture's 60 x 40"),
        ({"position": -1}, "data.position=-1 must be 0 or more"),
        ({"side": 1}, "data.side=1 must be 2 or more"),
    ):
        with pytest.raises(UserError, match=words):
            pixels(**arguments)
    said = command("method=kmeans", f"image={path}")
    assert said.status and "would do nothing: data=pixels reads it" in said.err
