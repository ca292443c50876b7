"""Small real data of each modality, made of what scikit-learn bundles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def tinted_digits(folder: Path) -> list[str]:
    """scikit-learn's digits, each class tinted: 160 training pictures of 3 x 8 x 8."""
    bundle = load_digits()
    grey = (bundle.images[:200] * 15.9).astype(np.uint8)
    tint = 0.3 + 0.7 * np.random.default_rng(0).random((10, 3))
    x = (grey[..., None] * tint[bundle.target[:200], None, None]).astype(np.uint8)
    y = bundle.target[:200]
    path = folder / "tinted_digits.npz"
    np.savez(path, x_train=x[:160], y_train=y[:160], x_test=x[160:], y_test=y[160:])
    return ["data=image_arrays", f"data.path={path}"]


# overrides that choose the data, from a folder that files may be written to
WORLDS: dict[str, Callable[[Path], list[str]]] = {
    "image": tinted_digits,
    "table": lambda folder: ["data=breast_cancer"],
}
