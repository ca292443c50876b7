"""The package as a user installs it: a wheel that brings its configuration along and needs no checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]


def done(command, **settings):
    """What a command wrote, once it has succeeded."""
    out = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=240, **settings)
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    done([*PIP, "wheel", ROOT, "--no-deps", "--no-build-isolation", "-w", folder])
    (made,) = folder.glob("sslrun-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`installed(*arguments)` runs Python on the installed wheel, in an empty directory."""
    target, here = tmp_path_factory.mktemp("target"), tmp_path_factory.mktemp("empty")
    done([*PIP, "install", wheel, "--no-deps", "--no-compile", "--target", target])
    environment = {k: v for k, v in os.environ.items() if k not in ("SSLRUN_CONFIG_DIR", "HYDRA_FULL_ERROR")}
    environment["PYTHONPATH"] = str(target)  # before site-packages, where a checkout may be installed as well

    def call(*arguments):
        return done([sys.executable, *arguments], cwd=here, env=environment)

    call.target, call.here = target, here
    return call


def test_every_configuration_and_module_is_inside(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    conf = {"sslrun/" + str(p.relative_to(ROOT)) for p in (ROOT / "conf").rglob("*.yaml")}
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "sslrun").rglob("*.py")}
    assert "sslrun/conf/config.yaml" in conf and "sslrun/cli.py" in modules
    assert conf | modules <= names, sorted((conf | modules) - names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"sslrun"}


def test_installed_package_reads_its_own_configuration(installed):
    what = "import sslrun, sslrun.schema; print(sslrun.__file__); print(sslrun.schema.conf_dir())"
    assert installed("-c", what).split() == [
        str(installed.target / "sslrun/__init__.py"),
        str(installed.target / "sslrun/conf"),
    ]
    assert "sslrun.methods.contrastive.simclr.SimCLR" in installed("-m", "sslrun", "--cfg", "job")


def test_installed_package_trains(installed):
    lean = ["steps=2", "batch_size=64", "eval=[knn]", "reference=null", "device.threads=1", "precision=fp32"]
    said = installed("-m", "sslrun", *lean, "hydra.run.dir=run")
    metrics = json.loads((installed.here / "run/metrics.json").read_text())
    assert metrics["status"] == "finished" and metrics["steps"] == 2
    assert "knn/accuracy" in metrics["results"]["trained"] and "results in run" in said
    assert {p.name for p in installed.here.iterdir()} == {"run"}
