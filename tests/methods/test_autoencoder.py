import json

import pytest
import torch
from batches import batch
from torch import nn
from worlds import device, overrides, train

from sslrun.contracts import DataSpec, Encoder
from sslrun.methods.unsupervised.autoencoder import Autoencoder

SPEC = DataSpec("pictures", "image", (2, 1, 2), mean=(1.0, 0.0), std=(2.0, 0.5))


class Pooled(Encoder):
    dim = 3

    def forward(self, x):
        return x.flatten(1)[:, :3]


class Says(nn.Module):
    def forward(self, code):
        return torch.tensor([[0.0, 1.0, 1.0, 2.0]])


def test_loss_by_hand_in_standard_deviations_of_each_channel():
    objective = Autoencoder(Pooled(SPEC), SPEC, hidden=4)
    target = torch.tensor([[[[1.0, 5.0]], [[0.5, 0.0]]]])  # scaled: 0, 2, 1, 0
    losses = objective.losses(torch.tensor([[0.0, 1.0, 1.0, 2.0]]), target)
    assert losses.tolist() == pytest.approx([(0 + 1 + 0 + 4) / 4])
    objective.decoder = Says()
    restored = objective.complete(Pooled(SPEC), target)
    torch.testing.assert_close(restored, torch.tensor([[[[1.0, 3.0]], [[0.5, 1.0]]]]))
    assert objective.score(Pooled(SPEC), batch(all={"x": target})).tolist() == pytest.approx([1.25])


def test_without_learning_there_is_the_mean_picture(worlds):
    done = train([*overrides("autoencoder", worlds["image"]["digits"])], device(), steps=1)
    objective, part = done.learner.objectives["autoencoder"], done.learner.data.train
    x = part.inputs(torch.arange(len(part)))
    scaled = (x - x.mean()) / x.std(correction=0)
    expected = (scaled - scaled.mean(0)).square().mean()
    assert float(objective.trivial(batch(all={"x": x}))["loss"]) == pytest.approx(float(expected), rel=1e-4)


def test_digits_come_back_from_few_numbers(command, own_place):
    """Eight features; the eight principal components explain .67 of the variance."""
    said = command("method=autoencoder", "encoder.width=2", "steps=120", "eval=[knn]", "reference=null", "logger=none",
                   "device.threads=1", "hydra.run.dir=run")  # fmt: skip
    assert said.status == 0, said.err
    metrics = json.loads((own_place / "run/metrics.json").read_text())
    assert "8 features" in said.out and metrics["results"]["model"]["task/skill"] > 0.1
    assert (own_place / "run/figures/task_autoencoder.png").exists()
