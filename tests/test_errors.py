"""A user's mistakes: each gets one sentence that names the key, the value and what would work, and loses nothing."""

import errno
import json
import os
import re
import shutil
import urllib.error
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from sslrun.record.folder import RunFolder

SHORT = ("steps=2", "batch_size=64", "encoder.width=8", "eval=[knn]", "reference=null", "logger=none", "precision=fp32")


def sentence(said):
    """The one line on stderr, with a full stop."""
    assert said.status != 0, said
    lines = [line for line in said.err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("sslrun: "), said.err
    assert not re.search(r"Traceback|\w+Error:|\w+Exception:", lines[0]), said.err
    return lines[0]


TYPOS = [
    (["method=simclrr"], "method=simclrr is unknown; did you mean simclr"),
    (["method=[simclr,rotaton]"], "method=rotaton is unknown; did you mean rotation"),
    (["data=cifar"], "did you mean cifar10 or cifar100"),
    (["encoder=resnet"], "did you mean resnet"),
    (["optimzer=sgd"], "key optimzer is unknown; did you mean optimizer"),
    (["ephocs=3"], "key ephocs is unknown; did you mean epochs"),
    (["method.simclr.temprature=.1"], "key method.simclr.temprature is unknown; did you mean temperature"),
    (["method.simcl.temperature=.1"], "key method.simcl is unknown; did you mean simclr"),
    (["data=image_folder", "data.rot=DIR"], "key data.rot is unknown; did you mean root"),
    (["encoder.widht=8"], "key encoder.widht is unknown; did you mean width"),
    (["epochs=abc"], "epochs=abc is not a whole number"),
    (["lr=fast"], "lr=fast is not a number"),
    (["compile=maybe"], "compile=maybe is not true or false"),
    (["method=[simclr"], "method=[simclr cannot be read"),
    (["epochs"], "epochs is neither a verb nor KEY=VALUE"),
    (["resum", "outputs/x"], "did you mean resume"),
    (["--foo"], "--foo is no flag"),
    (["--config-dir", "/nowhere"], "/nowhere"),
    (["methods", "simclrr"], "did you mean simclr"),
]


@pytest.mark.parametrize("argv, words", TYPOS, ids=[" ".join(argv) for argv, _ in TYPOS])
def test_what_is_unknown_or_unreadable(command, own_place, argv, words):
    assert words in sentence(command(*argv))
    assert not (own_place / "outputs").exists()  # nothing was begun


VALUES = [
    ("epochs=0", "1 or more"),
    ("steps=-1", "1 or more"),
    ("batch_size=0", "1 or more"),
    ("mu=0", "1 or more"),
    ("accumulate=-2", "1 or more"),
    ("labels=0", "1 or more"),
    ("lr=-1", "above 0"),
    ("lr=nan", "above 0"),
    ("+bar=3", "key bar is unknown"),
    ("clip=0", "above 0"),
    ("save_every=-1", "0 or more"),
    ("max_time=soon", "90s"),
    ("precision=fp8", "bf16"),
    ("eval.budgets=5", "[10,40]"),
    ("eval.budgets=[a]", "[10,40]"),
    ("data.val_fraction=2", "below 1"),
    ("data.test_fraction=-.1", "from 0"),
    ("data.test_fraction=.95", "sum must be below 1"),
    ("optimizer.warmup=5", "from 0 to 1"),
    ("optimizer.schedule=linear", "cosine"),
    ("device.devices=0", "1 or more"),
    ("method.simclr.temperature=hot", "not a number"),
    ("method.simclr.temperature=0", "above 0"),
    ("method.simclr.weight=-1", "0 or more"),
    ("method.simclr.recipe=nope", "contrastive"),
    ("+method.simclr.foo=3", "foo"),
    ("encoder.width=-4", "encoder"),
    ("labels=5", "from 10 to 1295"),
    ("labels=99999", "from 10 to 1295"),
    ("teacher=run", "takes no teacher"),
    ("weights=nowhere", "nowhere has no encoder"),
]


@pytest.mark.parametrize("override, words", VALUES, ids=[o for o, _ in VALUES])
def test_values_that_cannot_work(command, own_place, override, words):
    said = sentence(command(*SHORT[1:], *[] if override.startswith("steps") else ["steps=2"], override))
    assert override.removeprefix("+").partition("=")[0].split(".")[0] in said
    assert words in said
    status = json.loads(next(own_place.glob("outputs/*/*/*/status.json")).read_text())
    assert status["status"] == "failed" and status["reason"]


@pytest.mark.parametrize(
    "argv, words",
    [
        (["method=rotation", "data=wine"], ["image", "table data", "denoising_autoencoder", "fixmatch"]),
        (["method=denoising_autoencoder"], ["table", "digits", "rotation"]),
        (["data=wine", "encoder=cnn"], ["Cnn", "image", "leave encoder= out"]),
        (["data=image_folder"], ["data.root is not set"]),
        (["data=image_folder", "data.root=/nowhere"], ["/nowhere is not there"]),
        (["data=csv", "data.path=/nowhere.csv"], ["/nowhere.csv is not a file"]),
        (["data=image_arrays", "data.path=/nowhere.npz"], ["/nowhere.npz is not a file"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_does_not_go_together(command, argv, words):
    said = sentence(command("steps=2", "reference=null", *argv))
    assert all(word in said for word in words), said


def test_no_network(command, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    said = sentence(command("data=cifar10", f"data.root={tmp_path / 'none'}"))
    assert "cifar-10-python.tar.gz" in said and str(tmp_path / "none") in said and "no route to host" in said


def pictures(folder, count, seed=0):
    folder.mkdir(parents=True)
    draws = np.random.default_rng(seed)
    for i in range(count):
        Image.fromarray(draws.integers(0, 256, (12, 12), dtype=np.uint8)).save(folder / f"{i}.png")


def test_pictures_that_are_too_few_or_broken(command, tmp_path):
    root = tmp_path / "pictures"
    (root / "empty").mkdir(parents=True)
    here = ["data=image_folder", f"data.root={root}", "encoder=cnn", "augmentation=digits", *SHORT]
    assert "empty" in sentence(command(*here))
    (root / "empty").rmdir()
    pictures(root / "a", 30)
    pictures(root / "b", 1)
    assert "batch_size=64 is more than the" in command(*here).out
    broken = root / "a" / "broken.png"
    broken.write_bytes(b"not a picture")
    assert str(broken) in sentence(command(*here, "data.on_error=raise"))
    said = command(*here, "batch_size=8", "data.on_error=skip", "data.test_fraction=.3")
    assert said.status == 0, said.err
    assert "1 of 32 files could not be read and were skipped: a/broken.png" in said.out
    assert "class 'b' has a single training picture" in said.out


def test_weights_of_another_kind(command, trained):
    said = sentence(command("steps=2", f"weights={trained('simclr')}", "data=wine"))
    assert "encodes image data, and data=wine is table" in said
    said = sentence(command("steps=2", f"weights={trained('simclr')}", "encoder=resnet18"))
    assert "encoder= differs" in said and "sslrun.encoders.cnn.Cnn" in said


def test_weights_of_another_shape(command, copied):
    from safetensors.torch import load_file, save_file

    run = copied("simclr")
    state = load_file(run / "encoder/model.safetensors")
    name = next(k for k, v in state.items() if v.dim() == 4)
    state[name] = torch.zeros(1, 2, 3, 3)
    save_file(state, run / "encoder/model.safetensors")
    said = sentence(command(*SHORT[:2], *SHORT[3:], f"weights={run}"))
    assert name in said and "(1, 2, 3, 3) there" in said and f"({len(state) - 1} of {len(state)} tensors match)" in said
    (run / "encoder/model.safetensors").write_bytes(b"xx")
    assert "damaged" in sentence(command(*SHORT[:2], *SHORT[3:], f"weights={run}"))


def test_another_version(command, copied):
    run = copied("simclr")
    for path in (run / "encoder/config.yaml", run / "checkpoints/origin.json"):
        path.write_text(path.read_text().replace("0.1.0", "9.3.0"))
    assert "sslrun 9.3.0" in sentence(command("resume", run, "steps=8"))
    assert "sslrun 9.3.0" in sentence(command(*SHORT[:2], *SHORT[3:], f"weights={run}"))


def test_an_edited_configuration_is_refused_with_a_diff(command, copied):
    run = copied("simclr")
    path = run / "config.yaml"
    before = path.read_text()
    path.write_text(before.replace("temperature: 0.2", "temperature: 0.9").replace("seed: 0", "seed: 3", 1))
    said = sentence(command("resume", run, "steps=8"))
    assert "method.simclr.temperature: 0.2 -> 0.9" in said and "seed: 0 -> 3" in said
    path.write_text(before.replace("steps: 4", "steps: 6"))  # may differ
    assert command("resume", run, "steps=8").status == 0
    path.write_text("method: [")
    assert "no configuration of a run" in sentence(command("resume", run))


def test_only_what_is_vouched_for_is_called(command, copied, own_place):
    run = copied("simclr")
    path = run / "config.yaml"
    before = path.read_text()
    for target in ("os.system", "sslrun.data.image.np.load", "sslrun.record.folder.write_atomically", "torch.load"):
        path.write_text(before.replace("sslrun.data.image.digits", target))
        for verb in ("resume", "embed", "predict"):
            assert target in sentence(command(verb, run))
    encoder = run / "encoder/config.yaml"
    encoder.write_text(encoder.read_text().replace("sslrun.encoders.cnn.Cnn", "os.system"))
    path.write_text(before)
    assert "os.system is not one of sslrun.encoders" in sentence(command("embed", run))


def test_a_folder_in_use(command, copied):
    run = copied("simclr")
    owner = RunFolder(run)
    owner.claim()
    owner.set_status("running")
    assert f"in use by process {os.getpid()}" in sentence(command("resume", run, "steps=8"))
    assert RunFolder(run).status()["status"] == "running"  # still the owner's
    owner.release()


def test_outputs_that_cannot_be_written(command, own_place):
    (own_place / "outputs").write_text("a file")
    assert "outputs" in sentence(command(*SHORT))


@pytest.mark.parametrize("where", ["os.fsync", "torch.save"])
def test_a_full_disk(command, copied, monkeypatch, where):
    run = copied("simclr")
    good = (run / "checkpoints/last.ckpt").read_bytes()

    def refuse(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(where, refuse)
    assert "disk is full" in sentence(command("resume", run, "steps=8"))
    assert (run / "checkpoints/last.ckpt").read_bytes() == good


def test_a_disk_that_fills_up_within_a_checkpoint(command, copied, monkeypatch):
    run = copied("simclr")
    good = (run / "checkpoints/last.ckpt").read_bytes()

    def half(checkpoint, f):
        f.write(b"half")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 980160 vs 980056")

    monkeypatch.setattr(torch, "save", half)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert "disk is full" in sentence(command("resume", run, "steps=8"))
    assert (run / "checkpoints/last.ckpt").read_bytes() == good
    assert not list(run.rglob("*.tmp"))
    assert json.loads((run / "status.json").read_text())["status"] == "failed"


def test_a_loss_that_is_not_a_number(command, copied, own_place):
    said = sentence(command("steps=40", "epochs=20", *SHORT[1:], "lr=1e30", "hydra.run.dir=run", "save_every=0"))
    step = int(re.search(r"at step (\d+)", said)[1])
    assert "lower lr" in said and step >= 1
    kept = torch.load(own_place / "run/checkpoints/last.ckpt", weights_only=True)
    assert kept["global_step"] <= step
    assert json.loads((own_place / "run/status.json").read_text())["status"] == "failed"


def test_traceback_is_shown_when_asked_for(own_place):
    from sslrun.cli import main
    from sslrun.contracts import UserError

    with pytest.raises(UserError):
        main(["steps=0", "traceback=true"])
