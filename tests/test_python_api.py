"""sslrun from Python: the same runs, without a command line."""

import numpy as np
import pytest
import torch

import sslrun
from sslrun.contracts import UserError


def test_run_returns_its_metrics_and_load_the_encoder(trained, own_place):
    short = ["steps=2", "batch_size=64", "encoder.width=8", "eval=[knn]", "reference=null", "logger=none"]
    metrics = sslrun.run(["method=rotation", "precision=fp32", *short], folder="here")
    assert metrics["status"] == "finished" and metrics["method"] == "rotation" and (own_place / "here").is_dir()
    encoder = sslrun.load("here")
    assert not encoder.training
    x = torch.rand(3, 1, 8, 8)
    assert encoder(x).shape == (3, encoder.dim)
    assert torch.equal(encoder(x), sslrun.load("here/encoder")(x))


def test_mistakes_are_raised(own_place):
    with pytest.raises(UserError, match="did you mean simclr"):
        sslrun.run(["method=simclrr"])
    with pytest.raises(UserError, match="epochs=0"):
        sslrun.run(["epochs=0"], folder="x")
    with pytest.raises(UserError, match="nowhere has no encoder"):
        sslrun.load("nowhere")
    with pytest.raises(UserError, match="epochs"):
        sslrun.run(["epochs=0"], folder="unfinished")
    with pytest.raises(UserError, match="or finish this one by `sslrun resume unfinished`"):
        sslrun.load("unfinished")
    with pytest.raises(AttributeError, match="nothing"):
        sslrun.nothing  # noqa: B018


def test_the_encoder_on_disk_gives_the_features_that_were_judged(trained, command, own_place):
    run = trained("simclr")
    assert command("embed", run, "out=f.npz").status == 0
    saved = np.load("f.npz")
    from sslrun.data.image import digits

    x = digits().train.x[:16].float() / 16
    assert np.allclose(sslrun.load(run)(x).detach().numpy(), saved["features"][:16], atol=1e-5)
