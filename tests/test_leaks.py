"""What is done to the test part moves test numbers, and nothing else."""

import json

import numpy as np
import pytest
from sklearn.datasets import load_digits

import sslrun
from sslrun.errors import UserError

SETTINGS = ["data=image_arrays", "augmentation=digits", "steps=6", "batch_size=64", "encoder.width=8", "logger=none"]
JUDGED = ["eval=[knn,linear]", "eval.budgets=[20]", "reference=null", "precision=fp32", "device.threads=1"]


def arrays():
    """Digits in two parts."""
    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 8, 8) * 15).astype(np.uint8)
    return {"x_train": x[:900], "y_train": y[:900], "x_test": x[900:1200], "y_test": y[900:1200]}


def copies(data):
    """Training rows, with the labels they have there, among the test rows."""
    data["x_test"] = np.concatenate([data["x_test"], data["x_train"][:200]])
    data["y_test"] = np.concatenate([data["y_test"], data["y_train"][:200]])


def shuffled_labels(data):
    data["y_test"] = np.random.default_rng(0).permutation(data["y_test"])


def noise(data):
    data["x_test"] = np.random.default_rng(0).integers(0, 256, data["x_test"].shape, dtype=np.uint8)


def told_by_a_corner(data):
    """A pixel that names the class, in the test part only."""
    data["x_test"] = data["x_test"].copy()
    data["x_test"][:, 0, 0] = 25 * data["y_test"]


def outcome(folder, method, change=lambda data: None):
    data = arrays()
    change(data)
    path = folder / "digits.npz"  # of one name, since splits depend on it
    folder.mkdir(parents=True)
    np.savez(path, **data)
    metrics = sslrun.run([f"method={method}", f"data.path={path}", *SETTINGS, *JUDGED], folder=folder / "run")
    curves = [line for line in (folder / "run/metrics.csv").read_text().splitlines() if "speed/" not in line]
    return metrics, (folder / "run/encoder/model.safetensors").read_bytes(), curves


@pytest.fixture(scope="module", params=["simclr", "supervised"])
def honest(request, tmp_path_factory):
    return request.param, outcome(tmp_path_factory.mktemp("honest") / "a", request.param)


@pytest.mark.parametrize("change", [copies, shuffled_labels, noise, told_by_a_corner])
def test_the_test_part_chooses_nothing(honest, tmp_path, change):
    method, (metrics, weights, curves) = honest
    other, other_weights, other_curves = outcome(tmp_path / "b", method, change)
    assert other_weights == weights
    assert other_curves == curves  # every look at the validation part
    assert json.dumps(other["protocol"], sort_keys=True) == json.dumps(metrics["protocol"], sort_keys=True)
    assert other["health"] == metrics["health"] and other["primary"] == metrics["primary"]
    assert other["results"] != metrics["results"]  # it did reach the test part


def test_weights_that_learned_from_the_test_part_are_refused(trained, tmp_path):
    run, lean = trained("supervised"), ["eval=[linear]", "reference=null", "logger=none", "method=none"]
    other = [*lean, f"weights={run}", "seed=1"]
    with pytest.raises(UserError, match=r"learned from samples that split_seed=1 tests on; add split_seed=0"):
        sslrun.run(other, folder=tmp_path / "leak")
    with pytest.raises(UserError, match="labels=10 is fewer than the 40 labels that the encoder of weights="):
        sslrun.run([*other, "split_seed=0", "labels=10"], folder=tmp_path / "fewer")
    kept = sslrun.run([*other, "split_seed=0", "eval.budgets=[10,40,100]"], folder=tmp_path / "kept")
    assert not any("@10/" in name for found in kept["results"].values() for name in found), "it has seen 40 labels"
    assert any("@40/" in name for name in kept["results"]["trained"])
    again = [*lean, f"weights={tmp_path / 'kept'}", "eval.budgets=[10,40]"]
    assert not any("@10/" in name for name in sslrun.run(again, folder=tmp_path / "again")["results"]["trained"])


def test_weights_without_labels_leave_every_budget(trained, tmp_path):
    lean = ["eval=[linear]", "reference=null", "logger=none", "method=none", "eval.budgets=[10,40]"]
    found = sslrun.run([*lean, f"weights={trained('simclr')}"], folder=tmp_path / "run")["results"]["trained"]
    assert {"linear@10/accuracy", "linear@40/accuracy"} <= set(found)
