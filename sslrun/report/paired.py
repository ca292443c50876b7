"""Means over seeds, and differences between two sides of the same seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Paired:
    """The mean difference over `n` seeds, and its 95 % interval by Student's t; none from a single pair."""

    n: int
    mean: float
    low: float | None = None
    high: float | None = None

    @property
    def above(self) -> bool:
        return self.low is not None and self.low > 0

    @property
    def below(self) -> bool:
        return self.high is not None and self.high < 0


def spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1); of a single value there is none."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def paired(ours: Mapping[Hashable, float], theirs: Mapping[Hashable, float]) -> Paired | None:
    """Ours minus theirs over the seeds that both have; None where they share none."""
    differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
    if not differences:
        return None
    mean, sd = spread(differences)
    n = len(differences)
    if sd is None:
        return Paired(n, mean)
    from scipy.special import stdtrit  # the t quantile, without the second that scipy.stats takes to load

    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(n)
    return Paired(n, mean, mean - half, mean + half)
