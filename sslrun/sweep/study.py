"""The definition of a study: its jobs, known by the hash of what their results depend on, and its folder."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sslrun import __version__
from sslrun.build import resolved
from sslrun.catalogue import locate
from sslrun.errors import UserError
from sslrun.explain import explain
from sslrun.outcome import UNHASHED
from sslrun.record.folder import Lock, RunFolder, write_json
from sslrun.schema import Config
from sslrun.sweep.axes import Point, label

SIMPLE = {k for k, f in Config.__dataclass_fields__.items() if f.type != "Any"}  # keys that choose no other file
DONE = ("finished", "collapsed")


@dataclass
class Job:
    """One run of a study: its configuration, its folder, and the cells of the study's table that it fills."""

    id: str
    plain: dict[str, Any]
    overrides: list[str]
    cells: list[Point]
    folder: Path = Path()

    @property
    def name(self) -> str:
        return self.folder.name

    def done(self) -> bool:
        """Whether its results are there."""
        return state_of(self.folder) in DONE and results_of(self.folder) is not None


def state_of(folder: Path) -> str | None:
    return RunFolder(folder).status().get("status")


def results_of(folder: Path) -> dict[str, Any] | None:
    """What its metrics.json holds; None where it is not there or not whole."""
    try:
        return json.loads((folder / "metrics.json").read_text())
    except (OSError, ValueError):
        return None


class Planner:
    """Turns points of the axes into jobs; jobs whose results cannot differ are one.

    `composed` makes a configuration of overrides, `fixed` are those of all jobs; `threads` and `precision` are each
    job's, so that what a job computes does not depend on how many run beside it.
    """

    def __init__(
        self, composed: Callable[[Sequence[str]], DictConfig], fixed: Sequence[str], threads: int, precision: str
    ):
        self.composed, self.fixed, self.threads, self.precision = composed, list(fixed), threads, precision
        self._bases: dict[tuple[str, ...], DictConfig] = {}

    def jobs(self, points: Iterable[Point]) -> list[Job]:
        """The jobs of these points, each with every cell that it fills.

        Raises:
            UserError: names the first point whose configuration cannot work.
        """
        groups: dict[str, Job] = {}
        for point in points:
            overrides = [f"{key}={value}" for key, value in point.items()]
            plain = self._plain(point, overrides)
            shown = plain["labels"]
            if not reads_labels(plain):
                plain["labels"] = None
            key = self._hash(plain)
            job = groups.setdefault(key, Job(key, plain, overrides, []))
            job.cells.append(point)
            if plain["labels"] is None and shown is not None:  # the probes have to answer for each of these cells
                job.plain["eval"]["budgets"] = sorted({*job.plain["eval"]["budgets"], shown})
        for job in groups.values():
            job.id = self._hash(job.plain)
            job.overrides = [f"{k}={v}" for k, v in common(job.cells).items()]
        return list(groups.values())

    def _plain(self, point: Point, overrides: list[str]) -> dict[str, Any]:
        try:
            cfg = resolved(self._composed(point), [*self.fixed, *overrides])
        except UserError as error:
            named = str(error).startswith(tuple(overrides))
            raise UserError(str(error) if named else f"{' '.join(overrides)}: {error}") from error
        if cfg.device.threads is None:
            cfg.device.threads = self.threads
        if cfg.precision == "auto":
            cfg.precision = self.precision
        plain = OmegaConf.to_container(cfg)
        assert isinstance(plain, dict)
        return plain

    def _composed(self, point: Point) -> DictConfig:
        """As all overrides together would compose it: files are read once for each choice of files."""
        simple = {k: v for k, v in point.items() if k in SIMPLE}
        chosen = tuple(f"{k}={v}" for k, v in point.items() if k not in SIMPLE)
        if chosen not in self._bases:
            self._bases[chosen] = self.composed([*self.fixed, *chosen])
        cfg = copy.deepcopy(self._bases[chosen])
        for key, value in simple.items():
            try:
                cfg[key] = OmegaConf.create(f"value: {value}").value
            except OmegaConfBaseException as error:
                raise UserError(explain(error)) from error
        return cfg

    @staticmethod
    def _hash(plain: Mapping[str, Any]) -> str:
        kept = {k: v for k, v in plain.items() if k not in UNHASHED}
        text = json.dumps([kept, __version__], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def reads_labels(plain: Mapping[str, Any]) -> bool:
    """Whether training depends on which labels are shown."""
    streams = {stream for node in plain["method"].values() for stream in locate(node["_target_"]).streams}
    return "labelled" in streams or ("unlabelled" in streams and plain["data"]["exclude_labelled"])


def common(cells: Sequence[Point]) -> Point:
    """What all these cells have in common."""
    return {k: v for k, v in cells[0].items() if all(cell[k] == v for cell in cells)}


@dataclass
class Study:
    """A study's folder: sweep.json says what it is, and which job has which folder; one living driver owns it."""

    path: Path
    command: str
    definition: dict[str, Any]
    machine: dict[str, Any] = field(default_factory=dict)  # threads and precision of each job
    jobs: list[Job] = field(default_factory=list)
    _known: dict[str, str] = field(default_factory=dict)  # folder name by job
    _created: str = ""

    def claim(self) -> None:
        """Takes the study's lock, and reads what an earlier call has written.

        Raises:
            UserError: another process drives it, it cannot be written, or it is of another definition.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(self.path / ".lock")
        if not self._lock.take():
            raise UserError(f"the sweep {self.path} is driven by another process; wait for it or stop it first.")
        try:
            old = json.loads((self.path / "sweep.json").read_text())
        except FileNotFoundError:
            self._created = datetime.now().isoformat(timespec="seconds")
            return
        except ValueError as error:
            raise UserError(
                f"{self.path / 'sweep.json'} cannot be read ({error}); choose another sweep.name."
            ) from error
        differs = "; ".join(differences(grown(old["definition"], self.definition), self.definition))
        if differs:
            raise UserError(f"the sweep {self.path} has another definition ({differs}); choose another sweep.name.")
        self._created, self.machine = old["created"], old["machine"]
        self._known = {job["id"]: job["folder"] for job in old["jobs"]}

    def release(self) -> None:
        self._lock.release()

    def knows(self, job: Job) -> bool:
        """Whether an earlier call had it."""
        return job.id in self._known

    def add(self, jobs: Iterable[Job]) -> None:
        """Gives each job its folder: the one it had, or a new one; nothing of another job is overwritten."""
        for job in jobs:
            if job.id not in self._known:
                name, taken = label(common(job.cells)), set(self._known.values())
                free = name not in taken and not (self.path / name).exists()
                self._known[job.id] = name if free else f"{name}-{job.id[:8]}"
            job.folder = self.path / self._known[job.id]
            self.jobs.append(job)
        self.save()

    def save(self) -> None:
        entries = [{"id": j.id, "folder": j.name, "overrides": j.overrides, "cells": j.cells} for j in self.jobs]
        write_json(
            self.path / "sweep.json",
            {
                "name": self.path.name,
                "command": self.command,
                "created": self._created,
                "sslrun": __version__,
                "axes": self.definition["axes"],
                "definition": self.definition,
                "machine": self.machine,
                "jobs": entries,
            },
        )


def grown(old: Mapping[str, Any], new: Mapping[str, Any]) -> Mapping[str, Any]:
    """The old definition, its axes those of the new one where a grid only gained values: more seeds, another method.

    A search that draws would draw other points.
    """
    mine, theirs = old["axes"], new["axes"]
    gained = (
        old["search"] == new["search"] == {"sweep": "grid"}
        and mine.keys() == theirs.keys()
        and all(set(mine[k]) <= set(theirs[k]) for k in mine)
    )
    return {**old, "axes": theirs} if gained else old


def differences(old: Mapping[str, Any], new: Mapping[str, Any], key: str = "") -> list[str]:
    """`key: old -> new` of each leaf that differs."""
    found = []
    for name in dict.fromkeys([*old, *new]):
        a, b, where = old.get(name), new.get(name), f"{key}{name}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, "" if not key and name in ("axes", "fixed") else f"{where}.")
        elif a != b:
            found.append(f"{where}: {_short(a)} -> {_short(b)}")
    return found


def _short(value: Any) -> str:
    return "nothing" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)
