"""The command line in an empty directory: what it starts, and how fast it answers."""

import json
import subprocess
import sys

import pytest

from sslrun.verbs import USAGE

SHORT = ("steps=2", "batch_size=64", "encoder.width=8", "eval=[knn]", "reference=null", "logger=none", "precision=fp32")


def test_a_run_leaves_its_folder(command, own_place):
    said = command(*SHORT)
    assert said.status == 0 and "Traceback" not in said.err
    (folder,) = own_place.glob("outputs/simclr/digits/*")
    for name in (
        "status.json",
        "config.yaml",
        "metrics.json",
        "metrics.csv",
        "splits.json",
        "encoder/model.safetensors",
    ):
        assert (folder / name).exists(), name
    assert json.loads((folder / "status.json").read_text())["status"] == "finished"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 2 and {"trained", "random", "raw"} <= set(metrics["results"])
    for word in ("digits: 1 x 8 x 8", "the same encoder, untrained", str(folder.relative_to(own_place))):
        assert word in said.out


@pytest.mark.parametrize("verb", USAGE)
def test_each_verb_says_how_it_is_used(command, verb):
    said = command(verb, "--help")
    assert said.status == 0 and said.out == f"usage: {USAGE[verb]}\n"


def test_a_configuration_is_shown(command, own_place):
    said = command("--cfg", "job", "method=rotation", "data=cifar10")
    assert said.status == 0 and "sslrun.methods.pretext.image.rotation.Rotation" in said.out
    assert "CIFAR" not in said.err and not list(own_place.iterdir())


def test_help_and_version_are_quick_and_load_no_torch(tmp_path):
    code = """
import sys, time
from sslrun.cli import main
try:
    main(sys.argv[1:])
finally:
    print()
    print(time.process_time(), sorted({"torch", "lightning", "numpy"} & set(sys.modules)))
"""
    for argv, word in ((["--help"], "sslrun resume RUN"), (["--version"], "sslrun 0."), (["--cfg", "job"], "epochs:")):
        done = subprocess.run([sys.executable, "-c", code, *argv], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0 and word in done.stdout, done
        seconds, loaded = done.stdout.splitlines()[-1].split(" ", 1)
        assert loaded == "[]" and float(seconds) < 1
    assert not list(tmp_path.iterdir())


def test_module_form(tmp_path):
    done = subprocess.run([sys.executable, "-m", "sslrun", "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.startswith("sslrun ")


OWN = {
    "conf/method/mine.yaml": "# @package _global_\n# My own method.\nmethod:\n  mine:\n    _target_: {module}.Mine\n"
    "    strength: 1.0   # how hard\n",
    "conf/data/noise.yaml": "# @package _global_\ndefaults:\n  - override /encoder: cnn\n"
    "  - override /augmentation: digits\ndata:\n  _target_: {module}.noise\n  count: 120\n",
    "{module}.py": '''
import torch
from sslrun.contracts import DataSpec, Objective
from sslrun.data.source import Part, Source, fingerprint


class Mine(Objective):
    """Pulls features to zero."""

    def __init__(self, encoder, spec, strength: float = 1.0):
        super().__init__(encoder, spec)
        self.head = torch.nn.Linear(encoder.dim, spec.num_classes)
        self.strength = strength

    def forward(self, encoder, batch):
        return {{"loss": self.strength * self.head(encoder(batch["all"]["x"])).square().mean()}}

    def predict(self, encoder, x):
        return self.head(encoder(x)).float().softmax(1)


def noise(count: int = 10):
    x = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(count) % 3
    return Source(DataSpec("noise", "image", (1, 8, 8), 3, ("a", "b", "c")), Part(x, y), fingerprint=fingerprint(x, y))
''',
}


@pytest.fixture
def own(own_place, request):
    """A user's own method and data set: a folder of two YAML files, and a module beside it."""
    module = f"own_{abs(hash(request.node.name))}"  # a module of an earlier test is not imported again
    for name, text in OWN.items():
        path = own_place / "user" / name.format(module=module)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(module=module))
    return module


def test_a_users_own_method_and_data(command, own):
    there = ("--config-dir", "user/conf")
    mine = ("method=mine", "data=noise", *SHORT, "batch_size=16", "hydra.run.dir=outputs/mine")
    assert command(*there, *mine).status == 0
    shown = command("methods", "mine", *there).out
    assert "My own method." in shown and "method.mine.strength" in shown and "how hard" in shown
    assert "simclr" in command("methods", *there).out
    said = command("resume", "outputs/mine", "steps=4", "--config-dir=user/conf")
    assert said.status == 0 and f"trusting {own}.Mine, {own}.noise" in said.out
    assert command("embed", "outputs/mine", *there).status == 0
    assert command("predict", "outputs/mine", *there).status == 0


def test_a_users_own_classes_are_not_trusted_by_themselves(command, own, monkeypatch):
    mine = ("method=mine", "data=noise", *SHORT, "batch_size=16", "hydra.run.dir=outputs/mine")
    assert command("--config-dir", "user/conf", *mine).status == 0
    monkeypatch.setenv("SSLRUN_CONFIG_DIR", "")  # as in another process
    for verb in ("resume", "embed", "predict"):
        said = command(verb, "outputs/mine")
        assert said.status == 1 and f"names {own}.Mine" in said.err and "user/conf" in said.err


def test_a_users_own_classes_reach_every_process(command, own):
    mine = ("method=mine", "data=noise", *SHORT, "batch_size=16", "device=ddp_cpu", "hydra.run.dir=outputs/mine")
    said = command("--config-dir", "user/conf", *mine)
    assert said.status == 0 and "2 x cpu" in said.out, said.err
