"""A search by optuna: asks for one trial after the other, tells what the validation part said, ends hopeless ones."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from sslrun.errors import UserError
from sslrun.record.folder import RunFolder
from sslrun.sweep.axes import REPLICATES, Axis, Point, draws
from sslrun.sweep.screen import Row
from sslrun.sweep.search import Search
from sslrun.sweep.study import Job, Planner, Study

NAME = "sweep"  # of optuna's study in the store


class Optuna(Search):
    """Asks optuna's TPE sampler for `trials` points, by the metric that chooses the best checkpoint of a run.

    A trial is told the last value of that metric on the validation part, because the weights of the last step are
    those that a run scores and exports; its best look would reward the luckiest one. Looks are reported by epoch, in
    which trials of different batch sizes agree. What tests say is never read.

    The store `optuna.db` is made when the first job says which way is better; until then points are drawn at random,
    as TPE itself begins. Every trial's sampler has a seed of its own, so that a search that was killed goes on as if
    nothing had happened. The trial of a failed job stays open in the store: the sampler keeps away from it, and the
    same command tries it again.
    """

    def __init__(self, trials: int = 20, seed: int = 0, pruner: str = "median", **common: Any):
        super().__init__(**common)
        self.trials, self.seed, self.pruner = trials, seed, pruner
        self._store: Any = None  # optuna's study
        self._points: list[Point] = []  # one for each trial, in their order
        self._numbers: dict[str, list[int]] = {}  # optuna's numbers of the trials that a job answers
        self._live: dict[int, Any] = {}  # optuna's trials by number, those that report
        self._ended: dict[str, Row] = {}

    def points(self, axes: Sequence[Axis]) -> list[Point]:
        try:
            import optuna
        except ImportError as error:
            raise UserError("sweep=optuna needs the extra: pip install 'sslrun[optuna]'") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        pruners = {"median": optuna.pruners.MedianPruner, "none": optuna.pruners.NopPruner}
        if self.pruner not in pruners:
            raise UserError(f"sweep.pruner={self.pruner} is unknown; choose one of {', '.join(pruners)}.")
        if not axes:
            raise UserError("sweep=optuna has nothing to search; list values or give an interval: lr=interval(0.01,1).")
        for axis in axes:
            if axis.key in REPLICATES:
                raise UserError(
                    f"{axis.key}={axis.spelled()} cannot be searched, since the luckiest one would win; search with "
                    f"one {axis.key}, then run the best settings with several by -m without sweep=optuna."
                )
        self._refuse_many(self.trials)
        self._pruner, self._axes = pruners[self.pruner](), {axis.key: axis for axis in axes}
        self._draws = list(draws(axes, self.trials, self.seed))
        return []

    def open(self, points: Sequence[Point], planner: Planner, study: Study) -> None:
        """Adds the jobs of all trials that earlier calls began."""
        from optuna.trial import TrialState

        self._planner, self._study, self._path = planner, study, study.path / "optuna.db"
        jobs: dict[str, Job] = {}
        if self._path.exists():
            self._store = self._load(self._path)
            for trial in self._store.get_trials():
                if trial.params.keys() == self._axes.keys():
                    self._take(self._point(trial.params), trial.number, jobs)
                elif trial.state == TrialState.RUNNING:  # the driver was killed while it asked
                    self._store.tell(trial.number, state=TrialState.FAIL)
        else:
            for number, point in enumerate(takewhile(lambda p: study.knows(self._job(p)), self._draws)):
                self._take(point, number, jobs)
        study.add(jobs.values())

    def waiting(self) -> int:
        return max(0, self.trials - len(self._points))

    def next(self) -> Job | None:
        while self.waiting():
            point, number = self._ask()
            job, new = self._take(point, number, {job.id: job for job in self._study.jobs})
            if new:
                self._study.add([job])
                return job
            self._study.save()
            if job.id in self._ended:
                self.told(self._ended[job.id])
        return None

    def prune(self, row: Row) -> bool:
        from optuna.trial import TrialState

        if not self._judged(row.job):
            return False
        for trial in self._trials(row.job):
            if trial.state == TrialState.PRUNED or (trial.state == TrialState.RUNNING and self._hopeless(trial, row)):
                return True
        return False

    def told(self, row: Row) -> None:
        from optuna.trial import TrialState

        self._ended[row.job.id] = row
        if row.state not in ("finished", "pruned"):
            return
        values = [value for _, value in curve(row.job.folder, self._metric)] if self._judged(row.job) else []
        if not values:
            raise UserError(
                f"{row.job.name} says nothing of the validation part, by which sweep=optuna chooses; "
                "data.val_fraction and eval.looks must be above 0, and a method must train."
            )
        for trial in self._trials(row.job):
            if trial.state == TrialState.RUNNING:
                self._hopeless(trial, row)
                pruned = row.state == "pruned"
                self._store.tell(trial.number, **({"state": TrialState.PRUNED} if pruned else {"values": values[-1]}))

    def best(self) -> tuple[str, Point] | None:
        from optuna.trial import TrialState

        if self._store is None or not self._store.get_trials(states=(TrialState.COMPLETE,)):
            return None
        trial = self._store.best_trial
        name = next(job.name for job in self._study.jobs if trial.number in self._numbers[job.id])
        return f"{name}: {self._metric} {trial.value:.4g}", self._point(trial.params)

    def _ask(self) -> tuple[Point, int]:
        """The next trial's point and number."""
        import optuna

        n = len(self._points)
        if self._store is None:
            return self._draws[n], n
        seed = int(np.random.SeedSequence([self.seed, n]).generate_state(1)[0])
        self._store.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self._store.ask({key: _distribution(axis) for key, axis in self._axes.items()})
        return self._point(trial.params), trial.number

    def _take(self, point: Point, number: int, jobs: dict[str, Job]) -> tuple[Job, bool]:
        """Notes a trial; returns its job, and whether it is none of these jobs, to which it is added."""
        job = self._job(point)
        self._points.append(point)
        self._numbers.setdefault(job.id, []).append(number)
        new = job.id not in jobs
        job = jobs.setdefault(job.id, job)
        if point not in job.cells:
            job.cells.append(point)
        return job, new

    def _job(self, point: Point) -> Job:
        (job,) = self._planner.jobs([point])
        if not job.plain["eval"]["looks"]:
            raise UserError("eval.looks=0 never looks at the validation part, by which sweep=optuna chooses; raise it.")
        return job

    def _trials(self, job: Job) -> list[Any]:
        every = self._store.get_trials(deepcopy=False)
        return [every[number] for number in self._numbers[job.id]]

    def _hopeless(self, trial: Any, row: Row) -> bool:
        """Reports the looks since the last time; whether the pruner gives the trial up after one of them."""
        from optuna.trial import Trial

        first = trial.number not in self._live
        if first:
            self._live[trial.number] = Trial(self._store, trial._trial_id)
        live, reported = self._live[trial.number], set(trial.intermediate_values)
        for epoch, value in curve(row.job.folder, self._metric):
            if epoch not in reported:
                live.report(value, epoch)
                if live.should_prune():
                    return True
        return first and bool(reported) and live.should_prune()  # a driver may have been killed before it could act

    @property
    def _metric(self) -> str:
        return self._store.user_attrs["metric"]

    def _judged(self, job: Job) -> bool:
        """Whether it is known by what trials are judged; makes the store as soon as a job says it."""
        said = RunFolder(job.folder).status().get("judged")
        if said and self._store is None:
            self._make(said["metric"], said["larger"])
        if said and said["metric"] != self._metric:
            raise UserError(
                f"{job.name} is judged by {said['metric']}, and trials before it by {self._metric}; sweep=optuna "
                "compares one metric, so search within one method and one kind of data."
            )
        return self._store is not None

    def _make(self, metric: str, larger: bool) -> None:
        """Makes the store, with all trials drawn so far in it, beside its name, and renames it."""
        import optuna

        beside = self._path.with_suffix(".tmp")
        beside.unlink(missing_ok=True)
        storage = optuna.storages.RDBStorage(f"sqlite:///{beside}")
        store = optuna.create_study(storage=storage, study_name=NAME, direction="maximize" if larger else "minimize")
        store.set_user_attr("metric", metric)
        kinds = {key: _distribution(axis) for key, axis in self._axes.items()}
        for point in self._points:
            params = {key: _number(self._axes[key], text) for key, text in point.items()}
            state = optuna.trial.TrialState.RUNNING
            store.add_trial(optuna.trial.create_trial(state=state, params=params, distributions=kinds))
        storage.engine.dispose()
        os.replace(beside, self._path)
        self._store = self._load(self._path)

    def _load(self, path: Path) -> Any:
        import optuna

        try:
            return optuna.load_study(study_name=NAME, storage=f"sqlite:///{path}", pruner=self._pruner)
        except Exception as error:
            raise UserError(f"{path} cannot be read ({error}); choose another sweep.name.") from error

    def _point(self, params: dict[str, Any]) -> Point:
        return {k: params[k] if axis.listed else axis.text(params[k]) for k, axis in self._axes.items()}


def curve(folder: Path, metric: str) -> Iterator[tuple[int, float]]:
    """The epoch and the value of each look, from a metrics.csv that may be being written."""
    try:
        text = (folder / "metrics.csv").read_text()
    except FileNotFoundError:
        return
    for row in csv.reader(text[: text.rfind("\n") + 1].splitlines()):
        if len(row) == 4 and row[2] == metric and math.isfinite(float(row[3])):
            yield int(row[0]), float(row[3])


def _distribution(axis: Axis) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.listed:
        return CategoricalDistribution(axis.values)
    if axis.whole:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(axis.low, axis.high, log=axis.log)


def _number(axis: Axis, text: str) -> str | int | float:
    """A point's value as optuna keeps it; six digits may lie beyond an end."""
    if axis.listed:
        return text
    value = min(max(float(text), axis.low), axis.high)
    return round(value) if axis.whole else value
