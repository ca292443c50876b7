"""Where pictures, projections and comparisons of a run go."""

import csv

import numpy as np
import torch
from google.protobuf import text_format
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

from sslrun.record.folder import RunFolder
from sslrun.record.gallery import Gallery, flat


def gallery(path):
    logger = TensorBoardLogger(str(path), name="", version="", default_hp_metric=False)
    return Gallery(RunFolder(path), logger)


def test_a_picture_is_a_file_and_an_event(tmp_path):
    g = gallery(tmp_path)
    picture = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    g.show("views", picture, 7)
    g.writer.close()
    assert (np.asarray(Image.open(tmp_path / "figures/views.png")) == picture).all()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Images("views")
    assert (event.step, event.width, event.height) == (7, 30, 20)


def test_without_a_logger_the_files_are_written_all_the_same(tmp_path):
    g = Gallery(RunFolder(tmp_path))
    g.show("views", np.zeros((4, 4, 3), np.uint8), 0)
    g.project(torch.zeros(2, 3), {"class": ["a", "b"]}, None)
    g.compare({"seed": 0}, {"test/accuracy": 1.0}, 3)
    assert [p.name for p in tmp_path.rglob("*.*")] == ["views.png"]


def test_the_projector_gets_features_names_and_thumbnails_in_one_order(tmp_path):
    pictures = torch.arange(5).view(5, 1, 1, 1).expand(5, 1, 8, 8) / 4
    gallery(tmp_path).project(
        torch.arange(10.0).view(5, 2), {"class": list("abcde"), "index": [9, 8, 7, 6, 5]}, pictures
    )
    config = text_format.Parse((tmp_path / "projector_config.pbtxt").read_text(), ProjectorConfig()).embeddings[0]
    rows = list(csv.reader((tmp_path / config.metadata_path).read_text().splitlines(), delimiter="\t"))
    assert rows[0] == ["class", "index"] and rows[1:] == [list(p) for p in zip("abcde", "98765", strict=True)]
    features = np.loadtxt(tmp_path / config.tensor_path)
    assert features.tolist() == torch.arange(10.0).view(5, 2).tolist()
    sheet = np.asarray(Image.open(tmp_path / config.sprite.image_path))
    side = config.sprite.single_image_dim[0]
    assert sheet.shape[:2] == (3 * side, 3 * side)
    shades = [int(sheet[i // 3 * side + side // 2, i % 3 * side + side // 2, 0]) for i in range(5)]
    assert shades == [0, 64, 128, 191, 255]


def test_hyperparameters_stand_beside_results(tmp_path):
    gallery(tmp_path).compare({"lr": 0.1, "method.simclr.temperature": 0.2}, {"test/trained/knn/accuracy": 0.9}, 5)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert events.Scalars("test/trained/knn/accuracy")[0].value == np.float32(0.9)
    content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    info = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    assert info["lr"].number_value == 0.1 and info["method.simclr.temperature"].number_value == 0.2
    assert not (tmp_path / "hparams.yaml").exists()


def test_nested_settings_become_flat():
    found = flat({"seed": 0, "lr": None, "method": {"simclr": {"temperature": 0.2}}, "betas": [0.9, 0.99]})
    assert found == {"seed": 0, "lr": "null", "method.simclr.temperature": 0.2, "betas": "[0.9, 0.99]"}
