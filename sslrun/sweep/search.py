"""Which jobs a study has: all known from the start, or proposed one after the other by what became of the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sslrun.errors import UserError
from sslrun.sweep.axes import Axis, Point, draws, grid, size
from sslrun.sweep.screen import Row
from sslrun.sweep.study import Job, Planner, Study


class Search:
    """How the points of a study are chosen; this one knows them all from the start, and hears what it does not need.

    `name` is the study's folder under outputs/sweeps (null: made of the overrides); `limit` is how many jobs are let
    through; `over` are axes that an experiment brings along, read before the search is made; `measures` are metrics
    that its end shows beside each other.
    """

    def __init__(
        self,
        name: str | None = None,
        limit: int = 1000,
        over: dict[str, Any] | None = None,
        measures: Sequence[str] = (),
    ):
        self.name, self.limit, self.measures = name, limit, measures

    def points(self, axes: Sequence[Axis]) -> list[Point]:
        """The points that are known from the start.

        Raises:
            UserError: axes that this search cannot take, or more points than `limit`.
        """
        raise NotImplementedError

    def open(self, points: Sequence[Point], planner: Planner, study: Study) -> None:
        """Adds the jobs that are known by now to the study."""
        study.add(planner.jobs(points))

    def next(self) -> Job | None:
        """A job that the study did not have yet; None where there is none, for now or for good."""
        return None

    def waiting(self) -> int:
        """How many jobs may still be proposed."""
        return 0

    def prune(self, row: Row) -> bool:
        """Whether the search wants no more of this job."""
        return False

    def told(self, row: Row) -> None:
        """Hears what became of a job, in this call or in an earlier one."""

    def best(self) -> tuple[str, Point] | None:
        """The best job in words, and its point; None where none is chosen."""
        return None

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
