"""What a sweep varies, read in Hydra's grammar: `seed=0,1`, `labels=range(10,50)`, `lr=tag(log,interval(1e-4,.1))`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from sslrun.errors import UserError
from sslrun.explain import explain

Point = dict[str, str]  # one value for each axis, as it is typed
REPLICATES = ("seed", "split_seed")


@dataclass(frozen=True)
class Axis:
    """One key that varies: over listed values, or between two numbers (`log`: evenly in their logarithm)."""

    key: str
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    @property
    def listed(self) -> bool:
        return bool(self.values)

    def draw(self, rng: np.random.Generator) -> str:
        """A value at random."""
        if self.listed:
            return self.values[int(rng.integers(len(self.values)))]
        if self.log:
            value = float(np.exp(rng.uniform(np.log(self.low), np.log(self.high))))
        else:
            value = float(rng.uniform(self.low, self.high))
        return self.text(value)

    def text(self, value: float) -> str:
        return str(round(value)) if self.whole else f"{value:.6g}"

    def spelled(self) -> str:
        if self.listed:
            return ",".join(self.values)
        return f"{'log ' if self.log else ''}interval({self.low:g},{self.high:g})"


def read(overrides: Sequence[str], over: Mapping[str, Any]) -> tuple[list[Axis], list[str]]:
    """The axes among the overrides and those of `sweep.over`, which overrides replace; and the other overrides.

    Hydra's composition must be open, since `glob(*)` asks which files a group has.

    Raises:
        UserError: an override that cannot be read, or an axis without values.
    """
    typed = [f"{key}={_joined(values)}" for key, values in over.items()]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    try:
        ours, theirs = parser.parse_overrides(typed), parser.parse_overrides(list(overrides))
    except Exception as error:
        raise UserError(explain(error)) from error
    given = {o.get_key_element() for o in theirs}
    every = [*(o for o in ours if o.get_key_element() not in given), *theirs]
    axes = {o.get_key_element(): _axis(o) for o in every if o.is_sweep_override()}
    return list(axes.values()), [str(o.input_line) for o in every if not o.is_sweep_override()]


def _joined(values: Any) -> str:
    """`[a, [b, c]]` of a YAML list as `a,[b,c]`; text as it is."""
    if isinstance(values, list):
        return ",".join(f"[{_joined(v)}]" if isinstance(v, list) else _joined(v) for v in values)
    return "null" if values is None else str(values)


def _axis(override: Override) -> Axis:
    key = override.get_key_element()
    if override.is_interval_sweep():
        ends = override.value()
        whole = re.search(r"interval\(\s*-?\d+\s*,\s*-?\d+\s*\)", str(override.input_line)) is not None
        low, high, log = float(ends.start), float(ends.end), "log" in ends.tags
        if not low < high or (log and low <= 0):
            raise UserError(
                f"{key}=interval({low:g},{high:g}) does not work; the first end must be below the second"
                f"{', and above 0 on a log scale' if log else ''}."
            )
        return Axis(key, low=low, high=high, log=log, whole=whole)
    values = tuple(dict.fromkeys(override.sweep_string_iterator()))  # each once, in the order given
    if not values:
        raise UserError(f"{override.input_line} has no values.")
    return Axis(key, values)


def grid(axes: Sequence[Axis]) -> list[Point]:
    """Every combination; the seeds vary slowest, so that a part of the study is a smaller study.

    Raises:
        UserError: an axis that is an interval.
    """
    unlisted = [axis for axis in axes if not axis.listed]
    if unlisted:
        raise UserError(
            f"{unlisted[0].key}={unlisted[0].spelled()} has no end of values for a grid; list some, or add "
            "sweep=random or sweep=optuna."
        )
    ordered = sorted(axes, key=lambda axis: axis.key not in REPLICATES)
    points = (
        dict(zip((a.key for a in ordered), values, strict=True)) for values in product(*(a.values for a in ordered))
    )
    return [{axis.key: point[axis.key] for axis in axes} for point in points]


def size(axes: Sequence[Axis]) -> int:
    """Number of combinations of listed values."""
    n = 1
    for axis in axes:
        n *= max(1, len(axis.values))
    return n


def draws(axes: Sequence[Axis], samples: int, seed: int) -> Iterator[Point]:
    """`samples` random combinations, the same for the same seed."""
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        yield {axis.key: axis.draw(rng) for axis in axes}


def label(point: Mapping[str, str]) -> str:
    """`simclr_lr-0.1_seed-0`: a point as a folder's name, that needs no quotes in a shell or an override."""
    parts = []
    for key, value in point.items():
        name = re.sub(r"[^A-Za-z0-9.+-]+", "-", value.rstrip("/").rpartition("/")[2]).strip("-") or "null"
        if "," in value:
            name = re.sub(r"[^A-Za-z0-9.+-]+", "+", value).strip("+")
        key = re.sub(r"[^A-Za-z0-9_]+", "", key.rpartition(".")[2])
        parts.append(name if key in ("method", "data") else f"{key}-{name}")
    text = "_".join(parts) or "run"
    return text if len(text) <= 120 else f"{text[:110]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
