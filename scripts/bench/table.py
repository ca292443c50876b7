"""Verdicts against the targets, and the table of all comparisons."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from bench.common import installed

TARGETS = [  # (what, its comparison in the results, the peer, at least, aim)
    ("32 px views, times PIL", ("views", "32"), "pil", 15, 30),
    ("32 px views, times kornia", ("views", "32"), "kornia", 5, 5),
    ("ResNet-18 training, times lightly", ("training", "resnet18"), "lightly", 2.5, 3.5),
    ("ResNet-18 training, times lightly in bf16", ("training", "resnet18"), "lightly_bf16", 1.3, 2),
    ("CNN training, times lightly", ("training", "cnn"), "lightly", 8, 8),
]
LIMITS = [  # (what, its value in the results, at most)
    ("--help, seconds", ("startup", "help_s"), 1.0),
    ("first step beyond importing torch and lightning, seconds", ("startup", "own_s"), 1.5),
]


def at(results: dict[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        results = results.get(key) if isinstance(results, dict) else None
    return results


def judge(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Views are judged by the processor's seconds, the only ones taken of them; training and start by the clock's."""
    verdicts = []
    for what, path, peer, least, aim in TARGETS:
        value = at(results, (*path, "ratios", peer))
        if value is not None:
            verdict = {"what": what, "value": value, "target": least, "aim": aim, "met": value >= least}
            own = at(results, (*path, "processor", "ratios", peer))
            verdicts.append(verdict | ({"by_processor": own} if own is not None else {}))
    for what, path, most in LIMITS:
        value = at(results, path)
        if value is not None:
            verdicts.append({"what": what, "value": value, "target": most, "met": value <= most})
    return verdicts


def machine() -> dict[str, Any]:
    packages = ("torch", "torchvision", "lightning", "lightly", "kornia", "pillow")
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "versions": {p: importlib.metadata.version(p) for p in packages if installed("PIL" if p == "pillow" else p)},
    }


def show(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("comparison", "contestant", "per second", "sslrun is", "by processor time", "peak MB")
    rows = {f"views, {size} px, processor": v for size, v in results.get("views", {}).items()}
    rows |= {f"training, {network}": v for network, v in results.get("training", {}).items()}
    for title, found in rows.items():
        for name, rate in found["per_second"].items():
            ratio, peak = found["ratios"].get(name), found.get("peak_mb", {}).get(name)
            own = found.get("processor", {"ratios": {}})["ratios"].get(name)
            ratios = [f"{r:.1f}x" if r else "" for r in (ratio, own)]
            table.add_row(title, name, f"{rate:,.0f}", *ratios, f"{peak:,.0f}" if peak else "")
            title = ""
        table.add_section()
    console = Console(width=110)
    if rows:
        console.print(table)
    if start := results.get("startup"):
        console.print(
            f"--help {start['help_s']:.2f} s ({'imports' if start['help_imports_torch'] else 'without'} torch); first "
            f"step after {start['first_step_s']:.2f} s, {start['own_s']:.2f} s beyond importing torch and lightning"
        )
    for verdict in results["targets"]:
        console.print(
            f"{'met   ' if verdict['met'] else 'missed'} {verdict['what']}: {verdict['value']:.2f}, target "
            f"{verdict['target']}"
            + (f", aim {verdict['aim']}" if "aim" in verdict else "")
            + (f" ({verdict['by_processor']:.2f} by processor time)" if "by_processor" in verdict else "")
        )
    for peer in results["skipped"]:
        console.print(f'skipped: {peer} is not installed (pip install "sslrun[bench]")', markup=False)
