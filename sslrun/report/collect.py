"""Run folders and sweeps to plain records: quick, and never stopped by a folder that is damaged."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sslrun.errors import UserError
from sslrun.record.folder import boot_id
from sslrun.record.origin import flat

UNFINISHED = ("running", "interrupted", "failed")
SCORED = ("finished", "collapsed")  # a collapsed run has its numbers: leaving it out would be choosing by result

WORDS = (
    "method",
    "data",
    "seed",
    "split_seed",
    "labels",
    "primary",
    "precision",
    "split_hash",
    "harm",
    "threads",
    "world",
)
NUMBERS = ("wall_s", "training_s", "samples_per_s", "peak_rss_mb")


@dataclass(frozen=True)
class Run:
    """One run folder, or one job of a sweep that has none yet (`waiting`).

    `name` is the folder as the user would write it, `written` the time of its last result in seconds since 1970,
    `cells` the places in its sweep that the run fills (none: it belongs to no sweep).
    """

    path: Path
    name: str
    status: str
    reason: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    written: float = 0.0
    cells: tuple[Mapping[str, str], ...] = ()
    sweep: str = ""

    @property
    def scored(self) -> bool:
        return self.status in SCORED

    @property
    def method(self) -> str:
        named = {key.split(".")[1]: None for key in self.settings if key.startswith("method.")}
        return str(self.metrics.get("method") or "+".join(named) or "none")

    @property
    def data(self) -> str:
        target = str(self.settings.get("data._target_") or "?")
        return str(self.metrics.get("data") or target.rpartition(".")[2])

    @property
    def seed(self) -> tuple[Any, Any]:
        """What runs are paired by: the seed, and that of the split."""
        return tuple(self.metrics.get(key, self.settings.get(key)) for key in ("seed", "split_seed"))

    def results(self, *names: str) -> Iterator[tuple[str, Mapping[str, float]]]:
        """Subjects of these names with their metrics, in this order, plain ones before `name:variant`."""
        found = self.metrics.get("results", {})
        for name in names:
            for subject in sorted((s for s in found if s.split(":")[0] == name), key=lambda s: (":" in s, s)):
                yield subject, found[subject]


@dataclass(frozen=True)
class Sweep:
    """A sweep's own account: what was asked for, and the command that asks for it again."""

    path: Path
    name: str
    command: str
    axes: Mapping[str, Sequence[str]]


@dataclass
class Found:
    """Everything under the folders: runs, sweeps, and folders that cannot be read, each with its reason."""

    runs: list[Run] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)
    damaged: list[tuple[str, str]] = field(default_factory=list)


def collect(folders: Sequence[Path]) -> Found:
    """Reads all run folders and sweeps below these folders.

    Raises:
        UserError: a folder does not exist, or there is no run at all.
    """
    found, jobs, seen = Found(), {}, set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; name one that holds runs, outputs for instance.")
        for path, files in _walk(folder, found.damaged):
            real = os.path.realpath(path)
            if real in seen:  # folders given twice, or one inside the other
                continue
            seen.add(real)
            if "sweep.json" in files:
                jobs |= _sweep(path, found)
            else:
                _run(path, files, found)
    _join(found, jobs)
    if not found.runs and not found.damaged:
        raise UserError(
            f"{', '.join(map(str, folders))} holds no runs; run an experiment first, or name another folder."
        )
    return found


def _walk(top: Path, damaged: list[tuple[str, str]]) -> Iterator[tuple[Path, set[str]]]:
    """Folders of runs and sweeps with the names in them; runs are not entered, links not followed."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                names = {e.name: e.is_dir(follow_symlinks=False) for e in entries}
        except OSError as error:
            damaged.append((str(folder), f"it cannot be read ({error.strerror})"))
            continue
        files = set(names)
        begun = "config.yaml" in files and ".hydra" in files  # Hydra writes before the run does
        is_run = bool({"status.json", "metrics.json"} & files) or begun
        if is_run or "sweep.json" in files:
            yield folder, files
        if not is_run:
            inner = sorted(n for n, is_dir in names.items() if is_dir and not n.startswith("."))
            waiting += [folder / n for n in reversed(inner)]


def _sweep(path: Path, found: Found) -> dict[str, tuple[str, list[dict[str, str]]]]:
    """Notes a sweep; returns its jobs' places by the real path of their folder."""
    try:
        told = _object(path / "sweep.json")
        # An axis that is searched has an interval for its values, not a list.
        axes = {str(k): [str(v) for v in vs] if isinstance(vs, list) else [] for k, vs in told["axes"].items()}
        jobs = {
            os.path.realpath(path / job["folder"]): (
                str(path / job["folder"]),
                [{str(k): str(v) for k, v in cell.items()} for cell in job["cells"]],
            )
            for job in told["jobs"]
        }
        name = str(told.get("name") or path.name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found.damaged.append((str(path), f"sweep.json cannot be read ({_brief(error)}); its runs are taken as loose"))
        return {}
    found.sweeps.append(Sweep(path, name, str(told.get("command") or ""), axes))
    return {real: (str(path), *rest) for real, rest in jobs.items()}


def _join(found: Found, jobs: Mapping[str, tuple]) -> None:
    """Tells runs of sweeps their places, and adds the jobs that have no folder yet."""
    for i, run in enumerate(found.runs):
        job = jobs.get(os.path.realpath(run.path))
        if job:
            found.runs[i] = replace(run, cells=tuple(job[2]), sweep=job[0])
    known = {os.path.realpath(run.path) for run in found.runs}
    broken = {os.path.realpath(name) for name, _ in found.damaged}
    for real, (sweep, name, cells) in jobs.items():
        if real not in known:
            status = "damaged" if real in broken else "waiting"
            found.runs.append(Run(Path(name), name, status, cells=tuple(cells), sweep=sweep))


def _run(path: Path, files: set[str], found: Found) -> None:
    try:
        found.runs.append(_read(path, files))
    except _Damaged as error:
        found.damaged.append((str(path), str(error)))


class _Damaged(ValueError):
    """Why a folder cannot be read as a run."""


def _read(path: Path, files: set[str]) -> Run:
    if "status.json" not in files:
        raise _Damaged("there is no status.json: the run ended before it began, or the folder was copied in part")
    told = _told(path / "status.json")
    status, reason = str(told.get("status", "")), str(told.get("reason") or "")
    if status not in UNFINISHED + SCORED:
        raise _Damaged(f"status.json says {status or 'nothing'}, which is no status")
    if status in UNFINISHED:
        if status == "running" and _ended(told):
            status, reason = "interrupted", "its process has ended without a word"
        elif reason.startswith("Unfit: "):
            status = "left out"
        settings = _settings(path, files)
        return Run(path, str(path), status, reason, settings=settings, written=_time(path / "status.json"))
    if "metrics.json" not in files:
        raise _Damaged(f"status.json says {status}, but there is no metrics.json")
    metrics = _told(path / "metrics.json")
    metrics["results"] = _results(metrics.get("results"))
    _refuse_odd(metrics)
    settings = metrics.get("settings")
    if not isinstance(settings, dict):
        settings = _settings(path, files)
    return Run(path, str(path), status, reason, metrics, settings, _time(path / "metrics.json"))


def _results(told: Any) -> dict[str, dict[str, float]]:
    if not isinstance(told, dict) or not all(isinstance(found, dict) for found in told.values()):
        raise _Damaged("metrics.json has no results")
    return {
        subject: {k: float(v) for k, v in found.items() if isinstance(v, int | float) and v == v}
        for subject, found in told.items()
    }


def _refuse_odd(metrics: Mapping[str, Any]) -> None:
    """So that whoever reads a run afterwards finds what they expect under these keys, or nothing."""
    nested = [metrics.get("versions") or {}, metrics.get("protocol") or {}]
    for told in list(nested[1].values()) if isinstance(nested[1], dict) else ():
        subjects = told.get("subjects") or {} if isinstance(told, dict) else {}
        nested += [told, subjects, *(subjects.values() if isinstance(subjects, dict) else ())]
    odd = [key for key in WORDS if isinstance(metrics.get(key), list | dict)]
    odd += [key for key in NUMBERS if not isinstance(metrics.get(key), int | float | None)]
    if odd or not all(isinstance(node, dict) for node in nested):
        raise _Damaged(f"metrics.json has odd {' and '.join(odd) or 'versions or protocol'}")


def _settings(path: Path, files: set[str]) -> dict[str, Any]:
    """config.yaml, flat: of runs whose metrics.json does not have it (YAML takes a hundred times as long as JSON)."""
    import yaml

    if "config.yaml" not in files:
        raise _Damaged("there is no config.yaml")
    try:
        told = yaml.load((path / "config.yaml").read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError) as error:
        raise _Damaged(f"config.yaml cannot be read ({_brief(error)})") from error
    if not isinstance(told, dict):
        raise _Damaged("config.yaml is no configuration")
    return flat(told)


def _ended(told: Mapping[str, Any]) -> bool:
    """Whether the process that says it runs here is gone."""
    if told.get("host") != socket.gethostname() or not isinstance(told.get("pid"), int):
        return False
    if told.get("boot") != boot_id():
        return True
    try:
        os.kill(told["pid"], 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        return False
    return False


def _told(path: Path) -> dict[str, Any]:
    try:
        return _object(path)
    except (OSError, ValueError) as error:
        raise _Damaged(f"{path.name} cannot be read ({_brief(error)})") from error


def _object(path: Path) -> dict[str, Any]:
    told = json.loads(path.read_bytes())
    if not isinstance(told, dict):
        raise ValueError("it is no JSON object")
    return told


def _time(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _brief(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(str(text).split())[:120] or type(error).__name__
