"""Which job comes next: those of a list, or what a search proposes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sslrun.errors import UserError
from sslrun.sweep.axes import Axis, Point, draws, grid, size


class Search:
    """How the points of a study are chosen; this one knows them all from the start.

    `name` is the study's folder under outputs/sweeps (null: made of the overrides); `limit` is how many jobs are let
    through; `over` are axes that an experiment brings along, read before the search is made.
    """

    def __init__(self, name: str | None = None, limit: int = 1000, over: dict[str, Any] | None = None):
        self.name, self.limit = name, limit

    def points(self, axes: Sequence[Axis]) -> list[Point]:
        """The points to run.

        Raises:
            UserError: axes that this search cannot take, or more points than `limit`.
        """
        raise NotImplementedError

    def _refuse_many(self, n: int) -> None:
        if n > self.limit:
            raise UserError(f"this sweep has {n:,} jobs; say sweep.limit={n} if you mean it, or shorten an axis.")


class Grid(Search):
    """Every combination."""

    def points(self, axes: Sequence[Axis]) -> list[Point]:
        if all(axis.listed for axis in axes):
            self._refuse_many(size(axes))
        return grid(axes)


class Random(Search):
    """`samples` combinations at random, of lists and intervals, the same ones for the same `seed`."""

    def __init__(self, samples: int = 20, seed: int = 0, **common: Any):
        super().__init__(**common)
        self.samples, self.seed = samples, seed

    def points(self, axes: Sequence[Axis]) -> list[Point]:
        self._refuse_many(self.samples)
        return list(draws(axes, self.samples, self.seed))
