"""The encoder for use elsewhere, and TensorBoard on this machine."""

import json

import numpy as np
import pytest
import torch

import sslrun
from sslrun.contracts import UserError
from sslrun.verbs.board import prepare


def test_safetensors(command, trained, own_place):
    said = command("export", trained("simclr"), "out=here")
    assert said.status == 0
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(sslrun.load("here")(x), sslrun.load(trained("simclr"))(x))


@pytest.mark.parametrize("name, shape", [("simclr", (1, 8, 8)), ("table", (13,))])
def test_onnx_takes_any_batch(command, trained, own_place, name, shape):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    said = command("export", trained(name), "out=here", "format=onnx")
    assert said.status == 0 and "differs from the run's encoder by at most" in said.out
    session = onnxruntime.InferenceSession("here/model.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 5):
        x = torch.rand(count, *shape)
        ours = session.run(None, {"x": x.numpy()})[0]
        assert np.allclose(ours, sslrun.load(trained(name))(x).detach().numpy(), atol=1e-5)


def test_export_refuses_what_it_does_not_know(command, trained):
    for argv in (["format=pickle"], ["nonsense"]):
        said = command("export", trained("simclr"), *argv)
        assert said.status == 1 and argv[0] in said.err


def test_board_serves_this_machine_only(own_place):
    with pytest.raises(UserError, match="outputs holds no TensorBoard files yet"):
        prepare([])
    (own_place / "outputs/a").mkdir(parents=True)
    (own_place / "outputs/a/events.out.tfevents.1").write_bytes(b"")
    command, url = prepare([])
    assert command[command.index("--host") + 1] == "127.0.0.1" and url.startswith("http://127.0.0.1:")
    assert prepare(["port=0"])[1] != "http://127.0.0.1:0/"
    for argv in (["port=x"], ["a", "b"], ["host=0.0.0.0"]):
        with pytest.raises(UserError, match="board does not know"):
            prepare(argv)


def test_runs_leave_something_to_show(command, own_place):
    said = command("method=none", "eval=[knn]", "encoder.width=8", "reference=null", "hydra.run.dir=outputs/x")
    assert said.status == 0
    assert json.loads((own_place / "outputs/x/metrics.json").read_text())["status"] == "finished"
    assert prepare([])[1]
