"""SimCLR's training beside lightly's, each contestant in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.common import ENTRY, compare, installed, turns
from bench.processes import memory_mb

NETWORKS = {
    "resnet18": ("sslrun", "lightly", "lightly_bf16", "lightly_imagenet_stem"),
    "cnn": ("sslrun", "lightly", "lightly_bf16"),
}


def make_pictures(path: Path, number: int) -> None:
    """Random pictures with some structure, (number, 32, 32, 3) 8-bit, of ten made-up classes."""
    import numpy as np

    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (number, 4, 4, 3), dtype=np.uint8)
    np.savez(path, x_train=coarse.repeat(8, 1).repeat(8, 2), y_train=np.arange(number) % 10)


def train(contestant: str, network: str, pixels: Path, seconds: float) -> tuple[float, float, float]:
    """Pictures per clock and processor second, and peak memory in MB, of one contestant in processes of its own."""
    with tempfile.TemporaryDirectory() as folder:
        log, answer = Path(folder) / "log", Path(folder) / "answer"
        command = [sys.executable, str(ENTRY), "--train", contestant, network, str(pixels), folder]
        with open(log, "w") as out:
            command += ["--seconds", str(seconds), "--out", str(answer)]
            child = subprocess.Popen(command, stdout=out, stderr=out)
            peak = 0.0
            while child.poll() is None:
                peak = max(peak, memory_mb(child.pid))
                time.sleep(0.5)
        if child.returncode:
            raise RuntimeError(f"{contestant} failed:\n{log.read_text()[-3000:]}")
        return *json.loads(answer.read_text()), peak


def measure_training(rounds: int, seconds: float, quick: bool) -> dict[str, Any]:
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        pixels = Path(folder) / "pictures.npz"
        make_pictures(pixels, 2_000 if quick else 50_000)
        for network in ("cnn",) if quick else NETWORKS:
            names = [n for n in NETWORKS[network] if n == "sslrun" or installed("lightly")]
            clock, processor, peaks = ({name: [] for name in names} for _ in range(3))
            for name in turns(names, rounds):
                found = train(name, network, pixels, seconds)
                for kept, value in zip((clock, processor, peaks), found, strict=True):
                    kept[name].append(value)
            results[network] = compare(clock) | {
                "processor": compare(processor),
                "peak_mb": {k: max(v) for k, v in peaks.items()},
            }
    return results
