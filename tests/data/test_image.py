"""Picture data sets in memory: torchvision's own readers on files in their format, and arrays in every layout."""

import gzip
import hashlib
import pickle
import socket
import struct
from urllib.error import URLError

import numpy as np
import pytest
import torch
from scipy.io import savemat
from sklearn.datasets import load_digits
from torchvision import datasets

from sslrun.contracts import UserError
from sslrun.data import image


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """Every download fails as it does without a network."""

    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)


def noise(*shape, seed=0, high=256, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_digits_are_scikit_learns():
    source, bundle = image.digits(), load_digits()
    assert source.train.x.shape == (1797, 1, 8, 8) and source.train.x.dtype == torch.uint8
    assert torch.equal(source.train.x.flatten(1).double(), torch.from_numpy(bundle.data))
    assert source.train.y.tolist() == bundle.target.tolist()
    assert (source.spec.scale, source.spec.num_classes, source.test) == (16, 10, None)
    assert source.fingerprint == image.digits().fingerprint and len(source.fingerprint) == 64


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-10's files, small, where torchvision looks for them; returns the pixels (6, 3, 32, 32)."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = noise(6, 3, 32, 32)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for i, name in enumerate(names):
        (folder / name).write_bytes(pickle.dumps({"data": pixels[i].reshape(1, -1), "labels": [i]}))
    words = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": words}))
    sums = [[name, md5(folder / name)] for name in names]
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": md5(folder / "batches.meta")})
    return pixels


def test_cifar10_through_torchvisions_reader(tmp_path, cifar):
    source = image.cifar10(str(tmp_path))
    assert torch.equal(source.train.x, torch.from_numpy(cifar[:5]))
    assert torch.equal(source.test.x, torch.from_numpy(cifar[5:]))
    assert source.train.y.tolist() == [0, 1, 2, 3, 4] and source.test.y.tolist() == [5]
    assert source.spec.shape == (3, 32, 32) and source.spec.scale == 255 and source.val is None
    assert source.spec.classes[0] == "airplane" and source.spec.num_classes == 10


def test_a_damaged_file_is_refused(tmp_path, cifar):
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"damaged")
    with pytest.raises(UserError, match="cifar-10-python.tar.gz"):
        image.cifar10(str(tmp_path))


def test_stl10_appends_the_unlabelled_part(tmp_path, monkeypatch):
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    pixels = {"train": noise(3, 3, 96, 96, seed=1), "unlabeled": noise(4, 3, 96, 96, seed=2),
              "test": noise(2, 3, 96, 96, seed=3)}  # fmt: skip
    for name, x in pixels.items():
        (folder / f"{name}_X.bin").write_bytes(x.transpose(0, 1, 3, 2).tobytes())  # the files go by columns
    (folder / "train_y.bin").write_bytes(bytes([1, 10, 3]))  # and count classes from 1
    (folder / "test_y.bin").write_bytes(bytes([2, 5]))
    (folder / "class_names.txt").write_text("\n".join("abcdefghij"))
    for which in ("train_list", "test_list"):
        files = [[name, md5(folder / name)] for name, _ in getattr(datasets.STL10, which)]
        monkeypatch.setattr(datasets.STL10, which, files)
    source = image.stl10(str(tmp_path))
    assert source.train.y.tolist() == [0, 9, 2, -1, -1, -1, -1] and source.test.y.tolist() == [1, 4]
    assert torch.equal(source.train.x, torch.from_numpy(np.concatenate([pixels["train"], pixels["unlabeled"]])))
    assert torch.equal(source.test.x, torch.from_numpy(pixels["test"]))
    assert source.spec.classes == tuple("abcdefghij") and source.train.x.is_contiguous()


def test_svhn_through_torchvisions_reader(tmp_path, monkeypatch):
    pixels, listed = noise(3, 3, 32, 32), dict(datasets.SVHN.split_list)
    for split in ("train", "test"):
        path = tmp_path / f"{split}_32x32.mat"
        savemat(path, {"X": pixels.transpose(2, 3, 1, 0), "y": np.array([[10], [1], [9]])})
        listed[split] = [listed[split][0], path.name, md5(path)]
    monkeypatch.setattr(datasets.SVHN, "split_list", listed)
    source = image.svhn(str(tmp_path))
    assert torch.equal(source.train.x, torch.from_numpy(pixels)) and source.train.y.tolist() == [0, 1, 9]


@pytest.mark.parametrize(("load", "folder"), [(image.mnist, "MNIST"), (image.fashion_mnist, "FashionMNIST")])
def test_mnist_through_torchvisions_reader(tmp_path, load, folder):
    raw = tmp_path / folder / "raw"
    raw.mkdir(parents=True)
    pixels = noise(4, 28, 28)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, 4, 28, 28) + pixels.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, 4) + bytes([7, 0, 9, 1]))
    source = load(str(tmp_path))
    assert torch.equal(source.train.x, torch.from_numpy(pixels)[:, None]) and source.test.y.tolist() == [7, 0, 9, 1]
    assert source.spec.num_classes == 10 and source.spec.shape == (1, 28, 28)


@pytest.mark.parametrize(
    ("load", "files", "folder"),
    [
        (image.cifar10, ["cifar-10-python.tar.gz"], ""),
        (image.cifar100, ["cifar-100-python.tar.gz"], ""),
        (image.stl10, ["stl10_binary.tar.gz"], ""),
        (image.svhn, ["train_32x32.mat", "test_32x32.mat"], ""),
        (image.mnist, ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"], "MNIST/raw"),
        (image.fashion_mnist, ["train-images-idx3-ubyte.gz"], "FashionMNIST/raw"),
    ],
)
def test_without_a_network_the_files_are_named(tmp_path, load, files, folder):
    root = tmp_path / "data"
    with pytest.raises(UserError) as caught:
        load(str(root))
    text = str(caught.value)
    for wanted in (*files, f"data.root={root}", f"into {root / folder}", "could not be downloaded", "no route to host"):
        assert wanted in text
    assert "\n" not in text and socket.getdefaulttimeout() is None


def test_the_named_file_put_there_by_hand_is_enough(tmp_path, monkeypatch):
    pixels = noise(2, 28, 28)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    sums = []
    for name, _ in datasets.MNIST.resources:
        pictures = "images" in name
        head = struct.pack(">4I", 2051, 2, 28, 28) if pictures else struct.pack(">2I", 2049, 2)
        (raw / name).write_bytes(gzip.compress(head + (pixels.tobytes() if pictures else bytes([3, 4]))))
        sums.append((name, md5(raw / name)))
    monkeypatch.setattr(datasets.MNIST, "resources", sums)
    assert image.mnist(str(tmp_path)).test.y.tolist() == [3, 4]


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "layout", "axes"),
    [
        ((4, 9, 9), None, None),
        ((4, 9, 7), "NHW", None),
        ((4, 9, 9, 3), None, (0, 3, 1, 2)),
        ((4, 9, 7, 3), None, (0, 3, 1, 2)),
        ((4, 9, 9, 40), None, (0, 3, 1, 2)),
        ((4, 3, 9, 9), None, (0, 1, 2, 3)),
        ((4, 1, 9, 7), None, (0, 1, 2, 3)),
        ((4, 40, 9, 9), None, (0, 1, 2, 3)),
        ((4, 5, 5, 5), "NHWC", (0, 3, 1, 2)),
        ((4, 9, 9, 3), "NCHW", (0, 1, 2, 3)),
    ],
)
def test_layouts(tmp_path, shape, layout, axes):
    x = noise(*shape)
    source = image.image_arrays(save(tmp_path / "x.npz", x_train=x), layout=layout)
    wanted = x[:, None] if axes is None else x.transpose(axes)
    assert torch.equal(source.train.x, torch.from_numpy(wanted.copy())) and source.spec.shape == wanted.shape[1:]
    assert source.spec.num_classes == 0 and source.train.y.tolist() == [-1] * 4 and source.spec.name == "x"


@pytest.mark.parametrize(
    ("x", "dtype", "scale"),
    [
        (noise(3, 8, 8), torch.uint8, 255),
        (noise(3, 8, 8, dtype=np.int64), torch.uint8, 255),
        (noise(3, 8, 8, high=300, dtype=np.uint16), torch.int32, 65535),
        (noise(3, 8, 8, high=65536, dtype=np.int64), torch.int32, 65535),
        (np.linspace(0, 1.2, 192).reshape(3, 8, 8), torch.float32, 1),
        (np.linspace(-3, 100, 192).reshape(3, 8, 8), torch.float32, 100),
        (noise(3, 8, 8, high=2).astype(bool), torch.uint8, 1),
    ],
)
def test_depth_and_scale(tmp_path, x, dtype, scale):
    source = image.image_arrays(save(tmp_path / "x.npz", x_train=x))
    assert source.train.x.dtype == dtype and source.spec.scale == pytest.approx(scale)
    assert np.allclose(source.train.x[:, 0].numpy(), x)


def test_parts_labels_and_groups(tmp_path):
    path = save(
        tmp_path / "own.npz",
        x_train=noise(4, 8, 8), y_train=np.array([[7], [3], [-1], [3]]), x_test=noise(2, 8, 8), y_test=[3, 7],
        x_val=noise(1, 8, 8), y_val=[7], x_unlabelled=noise(2, 8, 8, seed=5), groups_train=["p", "q", "q", "p"],
    )  # fmt: skip
    source = image.image_arrays(path)
    assert source.train.y.tolist() == [1, 0, -1, 0, -1, -1] and source.spec.classes == ("3", "7")
    assert (source.test.y.tolist(), source.val.y.tolist()) == ([0, 1], [1])
    assert torch.equal(source.train.x[4:, 0], torch.from_numpy(noise(2, 8, 8, seed=5)))
    assert source.train.groups[:4] == ["p", "q", "q", "p"] and len(set(source.train.groups[4:])) == 2
    words = image.image_arrays(save(tmp_path / "w.npz", x_train=noise(3, 8, 8), y_train=["dog", "cat", ""]))
    assert words.train.y.tolist() == [1, 0, -1] and words.spec.classes == ("cat", "dog")
    assert words.fingerprint != source.fingerprint


@pytest.mark.parametrize(
    ("arrays", "settings", "text"),
    [
        ({"pictures": noise(2, 8, 8)}, {}, "has no array x_train, only array 'pictures'"),
        ({"x_train": noise(2, 5, 5, 5)}, {}, "set data.layout"),
        ({"x_train": noise(2, 8)}, {}, r"has shape \(2, 8\)"),
        ({"x_train": noise(0, 8, 8)}, {}, "must not be empty"),
        ({"x_train": noise(2, 8, 8)}, {"layout": "HWC"}, "data.layout=HWC is not a layout"),
        ({"x_train": noise(2, 8, 8), "x_test": noise(2, 9, 9)}, {}, "differ in picture shape"),
        ({"x_train": noise(2, 8, 8), "x_test": np.zeros((2, 8, 8))}, {}, "mixes types"),
        ({"x_train": noise(2, 8, 8, dtype=np.int64) - 300}, {}, "has whole numbers from"),
        ({"x_train": np.full((2, 8, 8), np.nan)}, {}, "not finite"),
        ({"x_train": noise(2, 8, 8), "y_train": [1, 2, 3]}, {}, "one label per picture"),
        ({"x_train": noise(2, 8, 8), "y_train": [0.5, 1]}, {}, "whole numbers or text"),
        ({"x_train": noise(2, 8, 8), "y_train": [0, 1], "x_test": noise(1, 8, 8), "y_test": [2]}, {}, "class '2' in"),
        ({"x_train": noise(2, 8, 8)}, {"groups": "patients"}, "data.groups=patients is not in"),
        ({"x_train": noise(2, 8, 8), "groups_train": ["a"]}, {}, "groups_train has 1 entries"),
        ({"x_train": np.array([[[{}]]], dtype=object)}, {}, "without object arrays"),
    ],
)
def test_array_errors(tmp_path, arrays, settings, text):
    with pytest.raises(UserError, match=text):
        image.image_arrays(save(tmp_path / "x.npz", **arrays), **settings)


def test_files_that_are_no_arrays(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 broken")
    (tmp_path / "y.npz").write_bytes(pickle.dumps([1]))
    np.save(tmp_path / "z.npy", np.zeros(3))
    for name in ("x.npz", "y.npz", "z.npy"):
        with pytest.raises(UserError, match="cannot be read as an .npz"):
            image.image_arrays(str(tmp_path / name))
    with pytest.raises(UserError, match="is not a file"):
        image.image_arrays(str(tmp_path / "none.npz"))
    with pytest.raises(UserError, match="data.path is not set"):
        image.image_arrays(None)
