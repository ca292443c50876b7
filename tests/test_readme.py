"""What the README says runs: every command of it, its Python, and its example of a method."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sslrun.verbs import USAGE

README = (Path(__file__).parents[1] / "README.md").read_text()
SHORT = ["steps=4", "eval.budgets=[40]", "encoder.width=8", "supervision.batch_size=16", "logger=none"]


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    inline = re.findall(r"`(sslrun [^`]+)`", README)
    lines = [line.split("#")[0].strip() for block in blocks("sh") for line in block.splitlines()]
    found = [*(line for line in lines if line.startswith("sslrun ")), *inline]
    return list(dict.fromkeys(found))


@pytest.fixture
def pictures(tmp_path):
    draws = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "DIR" / name).mkdir(parents=True)
        for i in range(20):
            values = draws.integers(0, 255, (20, 20), dtype=np.uint8)
            Image.fromarray(values).save(tmp_path / "DIR" / name / f"{i}.png")
    return tmp_path / "DIR"


def test_there_are_commands():
    assert len(commands()) > 10


@pytest.mark.parametrize("line", [c for c in commands() if "simlcr" not in c and "--config-dir" not in c])
def test_command_runs(command, trained, pictures, own_place, line):
    run = trained("supervised")
    argv = [w.replace("DIR", str(pictures)).replace("RUN", str(run)) for w in shlex.split(line)[1:]]
    if any(w in ("board", "data=cifar10") for w in argv):  # a server, and a download: composed or found, no more
        assert argv[0] == "board" or command(*argv, "--cfg", "job").status == 0
        return
    if argv[0] == "resume":
        argv[1] = shutil.copytree(run, own_place / "copy")
        argv[2] = "steps=8"
    elif argv[0] == "report":
        shutil.copytree(run, own_place / "outputs/supervised/digits/one")
    elif argv[0] not in USAGE:
        study = "experiment" in line and not any(
            w in line for w in ("segmentation", "anomaly", "segments", "clustering")
        )
        argv += ["seed=0", "labels=40"] if study else []  # with fewer jobs
        argv += ["method=denoising"] if "transfer" in line or "zoo" in line else []
        argv = [w for w in argv if "kmeans" not in w]  # has no width
        # an encoder that has no width, or its own
        own = any(
            w in line for w in ("weights", "self_training", "label_spreading", "segment", "anomaly", "clustering")
        )
        argv += [s for s in SHORT if not (own and s.startswith("encoder"))]
        argv += ["encoder=cnn", "batch_size=16"] if "image_folder" in line else []
    said = command(*argv)
    assert said.status == 0, said.err


def test_the_mistake_it_shows_is_answered_as_it_says(command):
    said = command("method=simlcr")
    answer = re.search(r'answers "(.*?)"', " ".join(README.split())).group(1)
    assert said.status != 0 and answer in said.err


def test_its_python_runs(trained, own_place, monkeypatch):
    (code,) = (block for block in blocks("python") if "sslrun.run" in block)
    code = code.replace("outputs/simclr/digits/DATE_TIME", str(trained("simclr")))
    names = {}
    exec(code.replace('"epochs=20"', '"steps=2", "eval=[knn]", "reference=null", "logger=none"'), names)
    assert names["metrics"]["status"] == "finished" and names["encoder"].dim == 32


def test_its_example_of_a_method_learns_its_task(command, own_place):
    (code,) = (block for block in blocks("python") if "class Flip" in block)
    (own_place / "mine.py").write_text(code)
    (own_place / "my/method").mkdir(parents=True)
    (own_place / "my/method/flip.yaml").write_text(blocks("yaml")[0])
    said = command("--config-dir", "my", "method=flip", "epochs=10", "eval=[knn]", "reference=null", "device.threads=1")
    assert said.status == 0, said.err
    row = next(line for line in said.out.splitlines() if line.startswith("model"))
    accuracy = max(float(word) for word in re.findall(r"\d+\.\d", row))
    assert accuracy > 70  # of digits, some look the same mirrored


def test_the_test_command_is_the_one_that_is_run():
    script = (Path(__file__).parents[1] / ".ci/run").read_text()
    assert "README.md" in script and re.search(r"(?m)^pip install .* && pytest$", README)
