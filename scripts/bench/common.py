"""What the comparisons share: which peers there are, fair turns, and medians over rounds."""

from __future__ import annotations

import importlib.util
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ENTRY = ROOT / "scripts/benchmark.py"  # starts itself again for what wants a process of its own


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Every name once a round, in an order that reverses, so that a machine that slows down slows all alike."""
    for number in range(rounds):
        yield from names if number % 2 == 0 else reversed(names)


def compare(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Medians of `{contestant: rate of each round}`, and of sslrun's rate divided by each other's in the same round."""
    ours = rates["sslrun"]
    others = {k: [a / b for a, b in zip(ours, v, strict=True)] for k, v in rates.items() if k != "sslrun"}
    return {
        "per_second": {k: statistics.median(v) for k, v in rates.items()},
        "ratios": {k: statistics.median(v) for k, v in others.items()},
        "rounds": rates,
    }
