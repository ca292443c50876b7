"""How settings, numbers and mistakes are written, the same on the terminal and in every file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslrun.report.paired import Paired

PLAIN = (
    "loss",
    "inertia",
    "skill",
    "silhouette",
    "nmi",
    "ari",
    "rmse",
    "mae",
    "r2",
    "auroc",
    "average_precision",
)  # not in per cent
LOWER = ("loss", "inertia", "rmse", "mae")  # better when lower


def word(value: Any) -> str:
    """A setting's value in one spelling, whether it was typed (1e-3), parsed (0.001) or a list ([a,b])."""
    if isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return word(int(number)) if number.is_integer() and "e" not in value.lower() else word(number)
    if value is None or isinstance(value, bool | list | dict):
        return json.dumps(value, default=str)
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def order(values: Iterable[str]) -> list[str]:
    """Numbers by size, then words by the alphabet, `null` (all of them) last."""

    def rank(text: str) -> tuple:
        try:
            return (0, float(text), text)
        except ValueError:
            digits = re.sub(r"\d+", lambda m: m[0].zfill(9), text)  # resnet18 before resnet101
            return (2 if text == "null" else 1, 0.0, digits)

    return sorted(set(values), key=rank)


def percent(metric: str) -> bool:
    return not metric.endswith(PLAIN)


def lower_is_better(metric: str) -> bool:
    return metric.endswith(LOWER)


def number(value: float, metric: str, signed: bool = False) -> str:
    """A metric's value: shares in per cent with one decimal, others with three."""
    text = f"{100 * value:+.1f}" if percent(metric) else f"{value:+.3f}"
    return (text if signed else text.removeprefix("+")).replace("-", "−")


def spread(mean: float, sd: float | None, metric: str) -> str:
    return number(mean, metric) + ("" if sd is None else f" ± {number(sd, metric)}")


def interval(found: Paired, metric: str) -> str:
    """`+1.2 [0.3, 2.1]`, or why there is no interval."""
    mean = number(found.mean, metric, signed=True)
    if found.low is None:
        return f"{mean} (one seed)"
    return f"{mean} [{number(found.low, metric)}, {number(found.high, metric)}]"


def listed(counts: dict[str, int]) -> str:
    """`failed 1, waiting 2`."""
    return ", ".join(f"{status} {n}" for status, n in sorted(counts.items()))


def measure(kind: tuple[str, str]) -> str:
    """A kind of number in words: `accuracy with 40 labels`."""
    name, labels = kind
    if not labels:
        return name
    return f"{name} with {'all' if labels == 'null' else labels} labels"
