"""The start of a run: `--help`, and the way to the first training step."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from bench.common import ENTRY


def measure_startup(rounds: int) -> dict[str, Any]:
    def seconds(*command: str) -> float:
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True)
            return time.perf_counter() - began

    spent: dict[str, list[float]] = {"help": [], "imports": [], "first_step": []}
    seconds("-c", "import torch, lightning.pytorch")  # reads the files once
    for _ in range(rounds):
        spent["help"].append(seconds("-m", "sslrun", "--help"))
        spent["imports"].append(seconds("-c", "import torch, lightning.pytorch"))
        spent["first_step"].append(seconds(str(ENTRY), "--first-step"))
    command = [sys.executable, "-X", "importtime", "-m", "sslrun", "--help"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in listed.splitlines()}
    own = [a - b for a, b in zip(spent["first_step"], spent["imports"], strict=True)]
    return {
        "help_s": statistics.median(spent["help"]),
        "help_imports_torch": bool({"torch", "lightning"} & imported),
        "imports_s": statistics.median(spent["imports"]),
        "first_step_s": statistics.median(spent["first_step"]),
        "own_s": statistics.median(own),
        "rounds": spent,
    }


def first_step() -> None:
    """The command `sslrun`, which ends as its first training step begins."""
    import importlib

    import lightning.pytorch as pl

    from sslrun.cli import main

    class End(pl.Callback):
        def on_train_batch_start(self, *_: Any) -> None:
            os._exit(0)

    module = importlib.import_module("sslrun.run")
    fit = module.fit
    module.fit = lambda *args, callbacks, **kwargs: fit(*args, callbacks=[*callbacks, End()], **kwargs)
    main([])
    raise SystemExit("no training step began")
