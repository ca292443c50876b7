"""Threads of the whole test run, settled before torch is imported anywhere; a command line; tiny trained runs."""

import os
import shutil
import sys
from dataclasses import dataclass

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin cost small tensors a time slice each
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest  # noqa: E402
import torch  # noqa: E402

torch.set_num_threads(1)

TINY = ["steps=4", "batch_size=64", "encoder.width=8", "eval=[knn]", "reference=null", "logger=none", "precision=fp32"]
RUNS = {
    "simclr": ["method=simclr", *TINY],
    "supervised": ["method=supervised", "labels=40", *TINY],
    "kmeans": ["method=kmeans", "epochs=2", "eval=[knn]", "logger=none", "device.threads=1"],
    "table": ["method=denoising_autoencoder", "data=wine", *[t for t in TINY if not t.startswith("encoder")]],
}


@dataclass
class Said:
    """What a command left: its exit status, and what it wrote."""

    status: int
    out: str
    err: str


@pytest.fixture
def own_place(tmp_path, monkeypatch):
    """An empty working directory, and a process that takes nothing from it along."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("PYTHONPATH", "SSLRUN_CONFIG_DIR"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return tmp_path


@pytest.fixture
def command(own_place, capsys):
    """`command(*argv)` runs the command line in an empty directory, in this process."""
    from sslrun.cli import main

    def call(*argv):
        status = 0
        try:
            main([str(a) for a in argv])
        except SystemExit as stop:
            status = stop.code or 0
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """`trained(name)` is the folder of a tiny run of RUNS, trained once for the whole session; not to be changed."""
    done = {}

    def get(name):
        if name not in done:
            import sslrun

            done[name] = tmp_path_factory.mktemp("trained") / name
            sslrun.run(RUNS[name], folder=done[name])
        return done[name]

    return get


@pytest.fixture
def copied(trained, tmp_path):
    """`copied(name)` is a copy of such a folder, to be spoilt."""
    return lambda name: shutil.copytree(trained(name), tmp_path / f"copy_of_{name}")
