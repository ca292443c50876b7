"""The benchmark script runs with what is installed, and the command line starts without torch."""

from __future__ import annotations

import importlib.util
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts/benchmark.py"
PEERS = {name: importlib.util.find_spec(name) is not None for name in ("lightly", "kornia")}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("benchmark") / "benchmark.json"
    command = [sys.executable, str(SCRIPT), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return json.loads(out.read_text()) | {"printed": done.stdout}


def test_views_of_every_size_and_contestant(results):
    wanted = {"sslrun", "pil", *(name for name, there in PEERS.items() if there)}
    assert set(results["views"]) == {"32", "96", "224"}
    for found in results["views"].values():
        assert set(found["per_second"]) == wanted
        assert set(found["ratios"]) == wanted - {"sslrun"}
        assert all(rate > 0 for rate in found["per_second"].values())


def test_training_has_rates_and_memory(results):
    wanted = {"sslrun", *(("lightly", "lightly_bf16") if PEERS["lightly"] else ())}
    found = results["training"]["cnn"]
    assert set(found["per_second"]) == set(found["peak_mb"]) == wanted
    assert found["per_second"]["sslrun"] > 0


def test_startup_is_timed(results):
    start = results["startup"]
    assert 0 < start["help_s"] < start["imports_s"] + start["first_step_s"]
    assert start["help_imports_torch"] is False


def test_missing_peers_are_named(results):
    missing = sorted(name for name, there in PEERS.items() if not there)
    assert sorted(results["skipped"]) == missing
    assert all(f"skipped: {name}" in results["printed"] for name in missing)


def test_targets_are_judged(results):
    assert all({"what", "value", "target", "met"} <= set(verdict) for verdict in results["targets"])
    assert any(verdict["what"] == "32 px views, times PIL" for verdict in results["targets"])


def test_help_names_the_groups_without_torch():
    code = (
        "import sys\n"
        "from sslrun.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'lightning', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for group in ("method", "data", "encoder", "augmentation", "optimizer", "device", "eval", "logger"):
        assert f"\n{group}: " in done.stdout


def test_help_of_the_module():
    command = [sys.executable, "-X", "importtime", "-m", "sslrun", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "hydra" in imported  # the report was read right
    assert not {"torch", "lightning"} & imported
    assert "Groups" in done.stdout


def test_the_cost_of_a_semi_supervised_step_is_told(monkeypatch, capsys):
    script = Path(__file__).parents[1] / "scripts/bench_semi.py"
    monkeypatch.setattr("sys.argv", [str(script), "--encoder", "cnn", "--rounds", "1", "--mu", "1"])
    runpy.run_path(str(script), run_name="__main__")
    assert "fixmatch, cnn: 12 pictures a step" in capsys.readouterr().out
