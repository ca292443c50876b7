"""Folders of pictures: every layout, mode and depth, broken files, and what the user is told."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as reference

from sslrun.contracts import UserError
from sslrun.data.folder import image_folder
from sslrun.data.module import Data
from sslrun.data.source import Images


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SSLRUN_DATA", str(tmp_path_factory.mktemp("cache")))


def draw(path, size=(16, 16), mode="RGB", seed=0, **options):
    """Writes random noise as a picture of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], len(mode)) if mode in ("RGB", "RGBA", "LA") else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels, mode=None).save(path, **options)
    return pixels


def classes(root, *names, count=3, **options):
    for k, name in enumerate(names):
        for i in range(count):
            draw(root / name / f"{i}.png", seed=10 * k + i, **options)


def test_class_folders_are_sorted_and_exact(tmp_path):
    pixels = draw(tmp_path / "dog" / "b.png", seed=1)
    draw(tmp_path / "dog" / "deep" / "er" / "a.png", seed=2)
    draw(tmp_path / "cat" / "z.PNG", seed=3)
    draw(tmp_path / "cat" / "y.png", seed=4)
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden").mkdir()
    source = image_folder(str(tmp_path))
    assert source.spec.classes == ("cat", "dog") and source.spec.num_classes == 2
    assert source.train.names == ["cat/y.png", "cat/z.PNG", "dog/b.png", "dog/deep/er/a.png"]
    assert source.train.y.tolist() == [0, 0, 1, 1]
    assert source.spec.shape == (3, 16, 16) and source.train.x.dtype == torch.uint8 and source.spec.scale == 255
    assert torch.equal(source.train.x[2], torch.from_numpy(pixels).permute(2, 0, 1))
    assert (source.val, source.test, source.notes) == (None, None, [])


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_parts_and_unlabelled_folder(tmp_path, val):
    classes(tmp_path / "train", "a", "b")
    classes(tmp_path / val, "b", count=2)
    classes(tmp_path / "test", "a", count=1)
    draw(tmp_path / "train" / "loose.png", seed=90)
    draw(tmp_path / "unlabeled" / "x" / "u.png", seed=91)
    source = image_folder(str(tmp_path))
    assert source.train.y.tolist() == [0, 0, 0, 1, 1, 1, -1, -1]
    assert source.train.names[-2:] == ["train/loose.png", "unlabeled/x/u.png"]
    assert source.val.y.tolist() == [1, 1] and source.test.y.tolist() == [0]


def test_heaps_without_labels(tmp_path):
    flat, nested, single = tmp_path / "flat", tmp_path / "nested", tmp_path / "single"
    for i in range(3):
        draw(flat / f"{i}.png", seed=i)
    classes(nested, "2020/jan", "2020/feb", "2021")
    classes(single, "images")
    for source in (image_folder(str(flat)), image_folder(str(nested), labelled=False), image_folder(str(single))):
        assert source.spec.num_classes == 0 and set(source.train.y.tolist()) == {-1}
    assert image_folder(str(nested)).spec.classes == ("2020", "2021")


def test_train_may_be_the_name_of_a_class(tmp_path):
    classes(tmp_path, "car", "ship", "train")
    assert image_folder(str(tmp_path)).spec.classes == ("car", "ship", "train")


def test_grey_stays_one_channel_and_colour_makes_three(tmp_path):
    grey = draw(tmp_path / "a" / "grey.png", mode="L", seed=1)
    draw(tmp_path / "b" / "grey.png", mode="L", seed=2)
    source = image_folder(str(tmp_path))
    assert source.spec.shape == (1, 16, 16)
    assert torch.equal(source.train.x[0, 0], torch.from_numpy(grey))
    draw(tmp_path / "b" / "rgb.png", seed=3)
    source = image_folder(str(tmp_path))
    assert source.spec.shape == (3, 16, 16)
    assert torch.equal(source.train.x[0], torch.from_numpy(grey).expand(3, 16, 16))
    assert image_folder(str(tmp_path), channels=1).spec.shape == (1, 16, 16)


def test_alpha_is_laid_on_white(tmp_path):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4] = (200, 100, 0, 255)
    pixels[4:] = (200, 100, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.fromarray(pixels[..., [0, 3]].copy()).save(tmp_path / "b.png")  # LA
    palette = Image.fromarray(pixels[..., :3].copy()).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "c.png")
    x = image_folder(str(tmp_path)).train.x
    assert x[0, :, 0, 0].tolist() == [200, 100, 0] and x[0, :, 7, 7].tolist() == [255] * 3
    assert x[1, :, 0, 0].tolist() == [200] * 3 and x[1, :, 7, 7].tolist() == [255] * 3
    assert torch.equal(x[2], torch.from_numpy(np.array(palette.convert("RGB"))).permute(2, 0, 1))


def test_16_bit_keeps_its_depth(tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (16, 16), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "b.tif")
    shallow = draw(tmp_path / "c.png", mode="L")
    source = image_folder(str(tmp_path))
    assert source.train.x.dtype == torch.int32 and source.spec.scale == 65535 and source.spec.shape == (1, 16, 16)
    wanted = [deep.astype(np.int32), deep.astype(np.int32), shallow.astype(np.int32) * 257]
    assert torch.equal(source.train.x[:, 0], torch.from_numpy(np.stack(wanted)))
    draw(tmp_path / "d.png")  # a colour picture brings all to 8 bits
    source = image_folder(str(tmp_path))
    assert source.train.x.dtype == torch.uint8
    assert torch.equal(source.train.x[0, 0], torch.from_numpy(np.rint(deep / 257).astype(np.uint8)))
    assert torch.equal(source.train.x[2, 0], torch.from_numpy(shallow))


def test_arrays_of_many_channels(tmp_path):
    cube = np.random.default_rng(0).integers(0, 256, (12, 12, 5), dtype=np.uint8)
    np.save(tmp_path / "a.npy", cube)
    np.save(tmp_path / "b.npy", cube.transpose(2, 0, 1))
    source = image_folder(str(tmp_path))
    assert source.spec.shape == (5, 12, 12) and torch.equal(source.train.x[0], source.train.x[1])
    assert torch.equal(source.train.x[0], torch.from_numpy(cube).permute(2, 0, 1))
    halved = image_folder(str(tmp_path), image_size=6).train.x[0]
    kept = torch.from_numpy(cube).permute(2, 0, 1)[None].double()
    wanted = torch.nn.functional.interpolate(kept, (6, 6), mode="bilinear", antialias=True)[0].round()
    assert torch.equal(halved.double(), wanted)


def test_real_arrays_state_their_scale(tmp_path):
    for i, top in enumerate((3.0, 4.0)):
        np.save(tmp_path / f"{i}.npy", np.linspace(0, top, 64, dtype=np.float32).reshape(8, 8))
    source = image_folder(str(tmp_path))
    assert source.spec.scale == 4.0 and source.train.x.dtype == torch.float32 and source.train.x.max() == 4.0


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (200, 64)])
def test_resizing_agrees_with_torchvision(tmp_path, size):
    draw(tmp_path / "a.png", size)
    got = image_folder(str(tmp_path), image_size=32).train.x[0]
    with Image.open(tmp_path / "a.png") as picture:
        short = reference.resize(picture, 32, InterpolationMode.BILINEAR, antialias=True)
        wanted = reference.pil_to_tensor(reference.center_crop(short, [32, 32]))
    assert torch.equal(got, wanted)


def test_size_follows_the_headers(tmp_path):
    draw(tmp_path / "a.png", (40, 24))
    assert image_folder(str(tmp_path)).spec.shape == (3, 24, 40)  # shared and small: kept
    draw(tmp_path / "b.png", (90, 100))
    draw(tmp_path / "c.png", (100, 200))
    assert image_folder(str(tmp_path)).spec.shape == (3, 96, 96)  # median of 24, 90, 100
    big = tmp_path / "big"
    draw(big / "a.png", (700, 500))
    assert image_folder(str(big)).spec.shape == (3, 224, 224)


def test_large_jpeg_is_close_to_torchvision_and_upright(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 600, dtype=np.uint8)[:, None, None], (1, 400, 3))  # dark at the top
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(ramp).save(tmp_path / "b.jpg", quality=95, exif=exif)
    x = image_folder(str(tmp_path), image_size=64).train.x.float()
    with Image.open(tmp_path / "a.jpg") as picture:
        short = reference.resize(picture.convert("RGB"), 64, InterpolationMode.BILINEAR, antialias=True)
        wanted = reference.pil_to_tensor(reference.center_crop(short, [64, 64])).float()
    assert (x[0] - wanted).abs().max() <= 3
    assert (x[1] - x[0].flip(1)).abs().max() <= 3


def broken(root):
    classes(root, "a", "b", count=4)
    whole = (root / "a" / "0.png").read_bytes()
    (root / "a" / "x_garbage.png").write_bytes(b"not a picture at all")
    (root / "a" / "x_short.png").write_bytes(whole[: len(whole) // 2])
    (root / "b" / "x_zero.png").write_bytes(b"")
    draw(root / "b" / "y.jpg", (64, 64), seed=5)
    jpeg = (root / "b" / "y.jpg").read_bytes()
    (root / "b" / "x_short.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    return ["a/x_garbage.png", "a/x_short.png", "b/x_short.jpg", "b/x_zero.png"]


@pytest.mark.parametrize("memory_gb", [4, 0])
def test_broken_files_are_counted_named_and_skipped(tmp_path, memory_gb):
    bad = broken(tmp_path)
    for _ in range(2):  # the second time on what was remembered
        source = image_folder(str(tmp_path), memory_gb=memory_gb, image_size=16)
        assert len(source.train) == len(source.train.x) == 9
        assert source.train.y.tolist() == [0] * 4 + [1] * 5 and not set(bad) & set(source.train.names)
        assert source.notes == ["4 of 13 files could not be read and were skipped: " + ", ".join(bad)]
        with pytest.raises(UserError, match="x_garbage.png cannot be read"):
            image_folder(str(tmp_path), memory_gb=memory_gb, on_error="raise")


def test_a_mended_file_is_looked_at_again(tmp_path):
    broken(tmp_path)
    bad = tmp_path / "a" / "x_short.png"
    assert "a/x_short.png" not in image_folder(str(tmp_path), memory_gb=0, image_size=16).train.names
    size = bad.stat().st_size
    draw(bad, (8, 8), seed=6)
    with bad.open("ab") as file:
        file.write(bytes(max(0, size - bad.stat().st_size)))
    assert "a/x_short.png" in image_folder(str(tmp_path), memory_gb=0, image_size=16).train.names


def test_lazy_equals_in_memory(tmp_path):
    broken(tmp_path)
    held, lazy = (image_folder(str(tmp_path), image_size=16, memory_gb=gb, workers=3) for gb in (4, 0))
    assert isinstance(held.train.x, torch.Tensor) and isinstance(lazy.train.x, Images)
    assert lazy.train.x.shape == held.train.x.shape and lazy.train.x.dtype == held.train.x.dtype
    rows = torch.tensor([8, 0, 3, 3, 5])
    assert torch.equal(lazy.train.x[rows], held.train.x[rows])
    waiting = lazy.train.x.prefetch(torch.arange(9))
    assert torch.equal(waiting.result(), held.train.x) and waiting.done()
    assert (lazy.fingerprint, lazy.train.names, lazy.spec) == (held.fingerprint, held.train.names, held.spec)
    os.remove(tmp_path / "a" / "0.png")
    with pytest.raises(UserError, match="0.png cannot be read"):
        lazy.train.x[torch.tensor([0])]


def test_fingerprint_follows_the_files(tmp_path):
    classes(tmp_path, "a", "b")
    first = image_folder(str(tmp_path)).fingerprint
    assert image_folder(str(tmp_path)).fingerprint == first
    draw(tmp_path / "a" / "new.png")
    assert image_folder(str(tmp_path)).fingerprint != first


def test_groups(tmp_path):
    classes(tmp_path, "p1/a", "p2/a")
    assert image_folder(str(tmp_path), groups=r"(p\d+)/").train.groups == ["p1"] * 3 + ["p2"] * 3
    names = image_folder(str(tmp_path)).train.names
    (tmp_path / "who.csv").write_text("file,group\n" + "\n".join(f"{n},g{i % 2}" for i, n in enumerate(names)))
    assert image_folder(str(tmp_path), groups="who.csv").train.groups == ["g0", "g1"] * 3
    for groups, text in [
        ("(", "is not a regular expression"),
        (r"p\d", "must have one group"),
        ("(q)", "gives no group for p1/a/0.png"),
        ("none.csv", "is not there"),
    ]:
        with pytest.raises(UserError, match=text):
            image_folder(str(tmp_path), groups=groups)
    (tmp_path / "who.csv").write_text("name,id\nx,1\n")
    with pytest.raises(UserError, match="columns file and group"):
        image_folder(str(tmp_path), groups="who.csv")


def test_a_class_of_one_picture_is_noted(tmp_path):
    classes(tmp_path, "a", "b")
    draw(tmp_path / "c" / "only.png")
    source = image_folder(str(tmp_path))
    assert source.spec.num_classes == 3 and source.notes == ["class 'c' has a single training picture"]


def _missing(root):
    return root / "nowhere"


def _file(root):
    (root / "a.zip").write_bytes(b"")
    return root / "a.zip"


def _empty(root):
    return root


def _empty_class(root):
    classes(root, "a", "b")
    (root / "c").mkdir()
    return root


def _no_pictures(root):
    (root / "a.txt").write_text("")
    return root


def _no_train(root):
    classes(root / "test", "a", "b")
    return root


def _two_vals(root):
    for part in ("train", "val", "valid"):
        classes(root / part, "a", "b")
    return root


def _new_class(root):
    classes(root / "train", "a", "b")
    classes(root / "test", "a", "zebra")
    return root


def _all_broken(root):
    (root / "a.png").write_bytes(b"x")
    return root


def _broken_class(root):
    classes(root, "a", "b")
    (root / "c").mkdir()
    (root / "c" / "x.png").write_bytes(b"x")
    return root


def test_one_training_class_is_normal_and_what_only_test_has_an_anomaly(tmp_path):
    classes(tmp_path / "train", "good", count=9)
    classes(tmp_path / "test", "crack", "good")
    classes(tmp_path / "ground_truth", "crack")
    source = image_folder(str(tmp_path))
    assert source.spec.classes == ("crack", "good") and source.train.y.tolist() == [1] * 9
    assert source.test.y.tolist() == [0, 0, 0, 1, 1, 1]
    data = Data(source, seed=0, split_seed=0, normal_class="good", val_fraction=0.0)
    assert data.spec.normal == (1,) and data.open_test().labels.tolist() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(UserError, match="class 'crack' of the other parts .* say data.normal_class=good to have"):
        Data(source, seed=0, split_seed=0)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (_missing, "is not there"),
        (_file, "is a file, not a folder"),
        (_empty, "has no pictures to train on"),
        (_empty_class, "class folder .*c is empty"),
        (_no_pictures, "has no pictures to train on"),
        (_no_train, "has a test folder but no train folder"),
        (_two_vals, "has two folders for the val part"),
        (_new_class, "class 'zebra' in the test part has no training sample"),
        (_all_broken, "no picture could be read"),
        (_broken_class, "class 'c' of the train part has no picture that can be read"),
    ],
)
def test_errors_say_what_is_wrong(tmp_path, build, text):
    with pytest.raises(UserError, match=text) as caught:
        image_folder(str(build(tmp_path)))
    assert "data.root" in str(caught.value) and "\n" not in str(caught.value)


def test_unreadable_root_and_wrong_settings(tmp_path, monkeypatch):
    classes(tmp_path, "a", "b")
    with pytest.raises(UserError, match="data.root is not set"):
        image_folder(None)
    with pytest.raises(UserError, match="data.on_error=ignore"):
        image_folder(str(tmp_path), on_error="ignore")
    with pytest.raises(UserError, match="data.image_size=0"):
        image_folder(str(tmp_path), image_size=0)

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match="cannot be listed .Permission denied"):
        image_folder(str(tmp_path))


def test_linked_folders_are_followed_once(tmp_path):
    classes(tmp_path, "a", "b")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a", target_is_directory=True)
    assert len(image_folder(str(tmp_path)).train) == 6
