"""Going on with a run: what is allowed, and that it comes to the same end."""

import json

import pytest
import torch


def test_a_finished_run_is_extended(command, copied):
    run = copied("simclr")
    assert command("resume", run, "steps=8").status == 0
    state = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert state["global_step"] == 8
    assert json.loads((run / "metrics.json").read_text())["steps"] == 8
    assert command("resume", run, "steps=8").status == 1  # the longer run is what is saved now
    assert "steps: 8" in (run / "config.yaml").read_text()


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "finished at step 4; extend it"),
        (["steps=3"], "leaves nothing to do"),
        (["steps=abc"], "steps=abc is not a whole number"),
        (["lr=3"], "cannot change lr: None -> 3"),
        (["method.simclr.temperature=3"], "cannot change method.simclr.temperature: 0.2 -> 3"),
        (["steps"], "not steps"),
    ],
)
def test_what_resume_refuses(command, trained, argv, words):
    run = trained("simclr")
    before = (run / "status.json").read_bytes()
    said = command("resume", run, *argv)
    assert said.status == 1 and words in said.err and len(said.err.splitlines()) == 1
    assert (run / "status.json").read_bytes() == before


def test_what_is_no_run(command, own_place):
    assert "not a run folder" in command("resume", "nothing").err
    assert "needs a run folder" in command("resume").err


def test_a_sweep_is_no_run(command, own_place):
    (own_place / "study").mkdir()
    (own_place / "study/sweep.json").write_text("{}")
    said = command("resume", "study")
    assert said.status == 1 and "study is a sweep; name one of the runs in it" in said.err
