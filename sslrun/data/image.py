"""Picture data sets that fit in memory: torchvision's, scikit-learn's digits, and arrays of the user's own."""

from __future__ import annotations

import socket
import zipfile
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslrun.contracts import DataSpec, UserError
from sslrun.data.source import Part, Source, encode_labels, fingerprint, named

DIGITS = tuple("0123456789")
LAYOUTS = ("NHW", "NHWC", "NCHW")


def digits() -> Source:
    """scikit-learn's bundled digits: 1,797 pictures (1, 8, 8), 0 to 16, 10 classes, one part.

    Alpaydin and Kaynak 1998, optical recognition of handwritten digits.
    """
    from sklearn.datasets import load_digits

    bundle = load_digits()
    x = torch.from_numpy(bundle.images).to(torch.uint8).unsqueeze(1)  # (N, 1, 8, 8)
    return _source("digits", Part(x, torch.from_numpy(bundle.target).long()), None, DIGITS, scale=16.0)


def cifar10(root: str) -> Source:
    """CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 pictures (3, 32, 32), 8-bit, 10 classes.

    Raises UserError where it is neither under `root` nor can be downloaded; so do the data sets below.
    """
    return _cifar("cifar10", "CIFAR10", "cifar-10-python.tar.gz", root)


def cifar100(root: str) -> Source:
    """CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 pictures (3, 32, 32), 8-bit, 100 classes."""
    return _cifar("cifar100", "CIFAR100", "cifar-100-python.tar.gz", root)


def stl10(root: str) -> Source:
    """STL-10 (Coates et al. 2011): 5,000 labelled, 100,000 unlabelled, 8,000 test pictures (3, 96, 96), 8-bit.

    The unlabelled part follows the labelled one in the training part, with y = -1.
    """
    from torchvision.datasets import STL10

    wanted = Wanted("STL-10", root, ".", ["stl10_binary.tar.gz"], "http://ai.stanford.edu/~acoates/stl10/")
    train, test = (wanted.load(STL10, split=split) for split in ("train+unlabeled", "test"))
    parts = [Part(_tensor(part.data), torch.from_numpy(np.asarray(part.labels)).long()) for part in (train, test)]
    return _source("stl10", *parts, tuple(getattr(train, "classes", DIGITS)))


def svhn(root: str) -> Source:
    """SVHN, cropped digits (Netzer et al. 2011): 73,257 + 26,032 pictures (3, 32, 32), 8-bit, 10 classes."""
    from torchvision.datasets import SVHN

    files = ["train_32x32.mat", "test_32x32.mat"]
    wanted = Wanted("SVHN", root, ".", files, "http://ufldl.stanford.edu/housenumbers/")
    loaded = [wanted.load(SVHN, split=split) for split in ("train", "test")]
    return _source("svhn", *(Part(_tensor(d.data), torch.from_numpy(d.labels).long()) for d in loaded), DIGITS)


def mnist(root: str) -> Source:
    """MNIST (LeCun et al. 1998): 60,000 + 10,000 pictures (1, 28, 28), 8-bit, 10 classes."""
    return _mnist("mnist", "MNIST", root)


def fashion_mnist(root: str) -> Source:
    """Fashion-MNIST (Xiao et al. 2017): 60,000 + 10,000 pictures (1, 28, 28), 8-bit, 10 classes."""
    return _mnist("fashion_mnist", "FashionMNIST", root)


def image_arrays(path: str | None, layout: str | None = None, groups: str | None = None) -> Source:
    """Pictures in one .npz file: `x_train`, and where there are: `y_train`, `x_val`, `y_val`, `x_test`, `y_test`,
    `x_unlabelled`, `groups_train`.

    `layout` is NHW, NHWC or NCHW (by default found from the shape: the axis that differs from two equal ones, else
    the smaller of the two candidates, is the channels). 8-bit stays 8-bit (scale 255), 16-bit becomes int32 (scale
    65535), floats float32 (scale 1, or their maximum where it is above 1.5). Labels are numbers or text, -1 where
    unlabelled. `x_unlabelled` follows `x_train` with y = -1. `groups` names the key of the groups, `groups_train`
    unless given. Raises UserError for a file that is missing, pickled or inconsistent.
    """
    arrays = _open(path)
    if "x_train" not in arrays:
        raise UserError(f"data.path={path} has no array x_train, only {named(sorted(arrays), 'array')}.")
    if layout is not None and layout not in LAYOUTS:
        raise UserError(f"data.layout={layout} is not a layout; choose one of {', '.join(LAYOUTS)}, or null.")
    pictures = {name: _channels_first(arrays[key], layout, f"{key} of data.path={path}")
                for name, key in _PICTURES.items() if key in arrays}  # fmt: skip
    shapes = {name: array.shape[1:] for name, array in pictures.items()}
    if len(set(shapes.values())) > 1:
        raise UserError(f"data.path={path}: the parts differ in picture shape (C, H, W): {shapes}; make them equal.")
    x, scale = _depth(pictures, path)

    labels = {name: _labels(arrays, name, len(x[name]), path) for name in x if name != "unlabelled"}
    coded, classes = encode_labels(labels, f"data.path={path}")
    group = groups or "groups_train"
    if groups is not None and group not in arrays:
        raise UserError(f"data.groups={groups} is not in data.path={path}; it has {named(sorted(arrays), 'array')}.")
    held = arrays[group].astype(str).tolist() if group in arrays else None
    if held is not None and len(held) != len(x["train"]):
        raise UserError(f"data.path={path}: {group} has {len(held)} entries, x_train has {len(x['train'])} pictures.")
    if "unlabelled" in x:
        extra = len(x["unlabelled"])
        x["train"] = torch.cat([x["train"], x.pop("unlabelled")])
        coded["train"] = torch.cat([coded["train"], torch.full((extra,), -1)])
        if held is not None:  # an unlabelled picture of unknown origin is a group of its own
            held += [f"unlabelled {i}" for i in range(extra)]
    parts = {name: Part(x[name], coded[name]) for name in x}
    parts["train"].groups = held
    return _source(Path(path).stem, parts["train"], parts.get("test"), classes, scale, parts.get("val"))


_PICTURES = {"train": "x_train", "val": "x_val", "test": "x_test", "unlabelled": "x_unlabelled"}


def _open(path: str | None) -> dict[str, np.ndarray]:
    if path is None:
        raise UserError("data.path is not set; give the .npz file: data.path=pictures.npz.")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"data.path={path} is not a file; give an .npz file with x_train and y_train.")
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise UserError(
            f"data.path={path} cannot be read as an .npz of plain arrays ({error}); write it with "
            "numpy.savez_compressed, without object arrays."
        ) from error


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """Which axis of one picture's three is the channels, 0 or 2; None where the shape does not tell."""
    first, middle, last = shape
    if first == last:
        return None
    if middle == last:
        return 0
    if middle == first:
        return 2
    return 0 if first < last else 2


def _channels_first(array: np.ndarray, layout: str | None, what: str) -> np.ndarray:
    """(N, C, H, W), whatever the layout was."""
    if array.ndim not in (3, 4) or not array.size or (layout and array.ndim != len(layout)):
        raise UserError(f"{what} has shape {array.shape}; it must not be empty, and be {layout or ', '.join(LAYOUTS)}.")
    if array.ndim == 3:
        return array[:, None]
    if layout is None:
        axis = channel_axis(array.shape[1:])
        if axis is None:
            raise UserError(f"{what} has shape {array.shape}, in which the channels are not plain; set data.layout.")
        layout = "NCHW" if axis == 0 else "NHWC"
    return array if layout == "NCHW" else array.transpose(0, 3, 1, 2)


def _depth(pictures: dict[str, np.ndarray], path: Any) -> tuple[dict[str, Tensor], float]:
    """Tensors of one type, and the value that becomes 1.0."""
    kinds = {array.dtype.kind for array in pictures.values()}
    if kinds == {"f"}:
        if not all(np.isfinite(array).all() for array in pictures.values()):
            raise UserError(f"data.path={path} has values that are not finite; replace them before saving.")
        seen = [float(pictures[name].max()) for name in ("train", "unlabelled") if name in pictures]
        scale = max(seen) if max(seen) > 1.5 else 1.0
        return {name: _tensor(array.astype(np.float32)) for name, array in pictures.items()}, scale
    if kinds == {"b"}:
        return {name: _tensor(array.astype(np.uint8)) for name, array in pictures.items()}, 1.0
    if not kinds <= {"u", "i"}:
        raise UserError(f"data.path={path} mixes types {sorted(str(a.dtype) for a in pictures.values())}; use one.")
    low, high = (int(pick(f(a) for a in pictures.values())) for pick, f in ((min, np.min), (max, np.max)))
    if low < 0 or high > 65535:
        raise UserError(
            f"data.path={path} has whole numbers from {low} to {high}; save them as uint8, uint16 or float."
        )
    wide = high > 255 or any(array.dtype == np.uint16 for array in pictures.values())
    kind, scale = (np.int32, 65535.0) if wide else (np.uint8, 255.0)
    return {name: _tensor(array.astype(kind)) for name, array in pictures.items()}, scale


def _labels(arrays: dict[str, np.ndarray], part: str, count: int, path: Any) -> list:
    """Labels of a part as text or int, None where unlabelled."""
    key = f"y_{part}"
    if key not in arrays:
        return [None] * count
    y = arrays[key]
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.shape != (count,):
        raise UserError(f"data.path={path}: {key} has shape {y.shape}; it must be ({count},), one label per picture.")
    if y.dtype.kind in "US":
        return [label or None for label in y.astype(str).tolist()]
    if y.dtype.kind not in "biuf" or (y.dtype.kind == "f" and not (y == np.rint(y)).all()):
        raise UserError(f"data.path={path}: {key} must hold whole numbers or text, not {y.dtype} with fractions.")
    return [None if label < 0 else label for label in y.astype(np.int64).tolist()]


class Wanted:
    """The files of a data set that torchvision reads, and what to tell a user who has none and no network."""

    def __init__(self, title: str, root: str, folder: str, files: list[str], url: str):
        self.title, self.files, self.url = title, files, url
        self.root = Path(root).expanduser()
        self.folder = self.root / folder

    def load(self, dataset: Callable, **which: Any) -> Any:
        """The torchvision data set, downloaded first where it is missing; one process at a time downloads."""
        from filelock import FileLock

        try:
            return dataset(str(self.root), **which)  # a root that is complete may be read-only
        except (RuntimeError, OSError):
            pass
        before = socket.getdefaulttimeout()
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            socket.setdefaulttimeout(60)  # a network that swallows packets would otherwise hold the run for minutes
            with FileLock(str(self.root / ".download.lock")):
                return dataset(str(self.root), download=True, **which)
        except (OSError, RuntimeError, HTTPException) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"{self.title} was not found under data.root={self.root} and could not be downloaded ({reason[-1]}); "
                f"get {', '.join(self.files)} from {self.url} and put {'it' if len(self.files) == 1 else 'them'} "
                f"into {self.folder.resolve()}."
            ) from error
        finally:
            socket.setdefaulttimeout(before)


def _cifar(name: str, kind: str, file: str, root: str) -> Source:
    from torchvision import datasets

    wanted = Wanted(kind.replace("CIFAR", "CIFAR-"), root, ".", [file], "https://www.cs.toronto.edu/~kriz/cifar.html")
    train, test = (wanted.load(getattr(datasets, kind), train=train) for train in (True, False))
    parts = [Part(_tensor(part.data.transpose(0, 3, 1, 2)), torch.tensor(part.targets)) for part in (train, test)]
    return _source(name, *parts, tuple(train.classes))


def _mnist(name: str, kind: str, root: str) -> Source:
    from torchvision import datasets

    dataset = getattr(datasets, kind)
    files = [file for file, _ in dataset.resources]
    wanted = Wanted(kind, root, f"{kind}/raw", files, dataset.mirrors[0])
    train, test = (wanted.load(dataset, train=train) for train in (True, False))
    parts = [Part(part.data.unsqueeze(1), part.targets.long()) for part in (train, test)]  # (N, 1, 28, 28)
    return _source(name, *parts, DIGITS if kind == "MNIST" else tuple(train.classes))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _source(
    name: str, train: Part, test: Part | None, classes: tuple[str, ...], scale: float = 255.0, val: Part | None = None
) -> Source:
    spec = DataSpec(name, "image", tuple(train.x.shape[1:]), len(classes), classes, scale=scale)
    held = [tensor for part in (train, val, test) if part for tensor in (part.x, part.y)]
    return Source(spec, train, val, test, fingerprint=fingerprint(classes, *held))
