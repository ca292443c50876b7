"""An encoder as a folder: the same network comes back, and nothing else is ever built."""

import pytest
import torch
from torch import nn

from sslrun.contracts import DataSpec, Field, UserError
from sslrun.encoders.cnn import Cnn
from sslrun.record.encoder import load, read_config, restore, save_encoder

SPEC = DataSpec("d", "image", (1, 8, 8), 2, ("a", "b"), scale=16.0, mean=(0.25,), std=(0.5,))
CONFIG = {"_target_": "sslrun.encoders.cnn.Cnn", "width": 8}


@pytest.fixture
def saved(tmp_path):
    encoder = Cnn(SPEC, width=8).eval()
    save_encoder(tmp_path / "encoder", encoder, CONFIG, SPEC)
    return tmp_path, encoder


def test_it_comes_back(saved):
    folder, encoder = saved
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(load(folder)(x), encoder(x))
    assert read_config(folder)[:2] == (CONFIG, SPEC)
    assert not list(folder.rglob("*.pt")) and not list(folder.rglob("*.pkl"))


def test_fields_come_back(tmp_path):
    fields = (Field("age"), Field("city", "categorical", 3, ("bonn", "rome")))
    spec = DataSpec("t", "table", (2,), fields=fields, mean=(0.0, 0.0), std=(1.0, 1.0))
    save_encoder(tmp_path, Cnn(SPEC, width=8), CONFIG, spec)
    assert read_config(tmp_path)[1] == spec


@pytest.mark.parametrize(
    "target", ["os.system", "torch.nn.Linear", "sslrun.encoders.cnn.torch", "sslrun.encoders.cnn.nn.Linear",
               "sslrun.record.folder.RunFolder", "sslrun.encoders.cnn.Encoder"]
)  # fmt: skip
def test_other_classes_are_not_built(saved, target):
    folder, _ = saved
    path = folder / "encoder/config.yaml"
    path.write_text(path.read_text().replace(CONFIG["_target_"], target))
    with pytest.raises(UserError, match="not one of sslrun.encoders|cannot be imported"):
        load(folder)


@pytest.mark.parametrize("text", ["", "encoder: [", "sslrun: 0.1.0\nencoder: {}\nspec: {}", "- 1"])
def test_a_configuration_that_is_none(saved, text):
    folder, _ = saved
    (folder / "encoder/config.yaml").write_text(text)
    with pytest.raises(UserError, match="does not describe an encoder"):
        load(folder)


def test_arguments_that_are_none(saved):
    folder, _ = saved
    path = folder / "encoder/config.yaml"
    path.write_text(path.read_text().replace("width: 8", "wide: 8"))
    with pytest.raises(UserError, match="does not take what was saved"):
        load(folder)


class Sized(nn.Module):
    """A module with a buffer that preparation gives its size."""

    def __init__(self, *size):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.register_buffer("table", torch.full(size, 2.0))


def test_buffers_take_the_size_that_preparation_gave_them():
    fresh, trained = Sized(0), nn.ModuleDict({"a": Sized(3), "b": Sized(1)})
    restore(fresh, trained.state_dict(), "a.")
    assert fresh.table.tolist() == [2.0, 2.0, 2.0] and torch.equal(fresh.layer.weight, trained["a"].layer.weight)
