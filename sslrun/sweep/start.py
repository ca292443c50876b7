"""`sslrun -m ...`: reads what varies, makes the study's jobs, runs them, and ends in its report."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from sslrun.bounds import refuse_out_of_bounds
from sslrun.build import SWEEP_KEYS, make
from sslrun.catalogue import own_folders
from sslrun.errors import UserError
from sslrun.outcome import UNHASHED
from sslrun.record.summary import console, short
from sslrun.report import table, write
from sslrun.report.beside import beside
from sslrun.sweep.axes import Axis, Point, read
from sslrun.sweep.drive import Driver
from sslrun.sweep.screen import Row
from sslrun.sweep.study import Planner, Study

KEPT = (
    "name",
    "limit",
    "over",
    "trials",
    "measures",
    "_target_",
)  # of the search, what does not say which points it takes first


def sweep(overrides: Sequence[str], composed: Callable[[Sequence[str]], DictConfig]) -> None:
    """Runs a study, or goes on with it; writes its report.

    Raises:
        UserError: what it varies or how cannot work, another process drives it, or jobs failed.
        KeyboardInterrupt: it was interrupted, after the running jobs have saved.
    """
    cfg, axes, fixed = _read(overrides, composed)
    search, launcher = make(_plain(cfg.sweep), "sweep"), make(_plain(cfg.launcher), "launcher")
    definition = _definition(cfg, axes, fixed)
    points = search.points(axes)
    study = Study(
        Path("outputs/sweeps").absolute() / (search.name or _name(definition)), _command(overrides), definition
    )
    shared = launcher.share(cfg)
    study.claim()
    try:
        study.machine = study.machine or shared  # a study goes on with what its first jobs had
        launcher.prepare(study.machine["threads"])
        planner = Planner(composed, fixed, study.machine["threads"], study.machine["precision"])
        search.open(points, planner, study)
        jobs = len(study.jobs) + search.waiting()
        console().print(f"sweep    {jobs} jobs, {launcher.slots} at a time, in {short(study.path)}")
        try:
            rows = Driver(study.jobs, launcher, cfg.on_error == "stop", search).run()
        except KeyboardInterrupt:
            done = sum(job.done() for job in study.jobs)
            raise KeyboardInterrupt(f"{done} of {jobs} jobs are done; the same command goes on.") from None
        _report(study, search.measures)
        _tell_best(search.best(), fixed)
        _refuse_failures(rows)
    finally:
        study.release()


def _read(
    overrides: Sequence[str], composed: Callable[[Sequence[str]], DictConfig]
) -> tuple[DictConfig, list[Axis], list[str]]:
    """The configuration that all jobs share, the axes, and the overrides that are none."""
    theirs = next((o for o in overrides if o.lstrip("+~").startswith(("hydra.", "hydra/"))), None)
    if theirs:
        raise UserError(f"{theirs} does nothing in a sweep; sweep.name=NAME names its folder in outputs/sweeps.")
    cfg = composed(read(overrides, {})[1])
    refuse_out_of_bounds(OmegaConf.create({k: v for k, v in cfg.items() if k != "hydra"}))
    over = OmegaConf.to_container(cfg.sweep).get("over") or {}
    return cfg, *read(overrides, over)


def _plain(node: Any) -> dict[str, Any]:
    return OmegaConf.to_container(node, resolve=True)


def _definition(cfg: DictConfig, axes: Sequence[Axis], fixed: Sequence[str]) -> dict[str, Any]:
    """What makes a study this one: the axes, the other overrides, and the search's own settings."""
    given = dict(o.partition("=")[::2] for o in fixed)
    mine = {k: v for k, v in given.items() if k.split(".")[0] not in (*UNHASHED, *SWEEP_KEYS)}
    search = {"sweep": cfg.sweep._target_.rpartition(".")[2].lower()}
    search |= {f"sweep.{k}": v for k, v in _plain(cfg.sweep).items() if k not in KEPT}
    return {"axes": {a.key: list(a.values) if a.listed else a.spelled() for a in axes}, "fixed": mine, "search": search}


def _name(definition: Mapping[str, Any]) -> str:
    fixed = definition["fixed"]
    words = [fixed[k] for k in ("experiment", "method", "data") if k in fixed] + list(definition["axes"])
    text = "_".join("".join(c if c.isalnum() or c in "_-." else "+" for c in word).strip("+") for word in words)
    digest = hashlib.sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:8]
    return f"{text[:60] or 'sweep'}-{digest}"


def _command(overrides: Sequence[str], flags: Sequence[str] = ("-m",)) -> str:
    folders = [f"--config-dir={folder}" for folder in own_folders()]
    return shlex.join(["sslrun", *folders, *flags, *overrides])


def _report(study: Study, measures: Sequence[str]) -> None:
    if any(job.done() for job in study.jobs):
        done = write([study.path], study.path / "report")
        console().print(table(done.comparison))
        if measures and (several := beside(study.path, measures)) is not None:
            console().print(several)
        console().print(f"\n{short(done.page)}", soft_wrap=True, markup=False)


def _tell_best(best: tuple[str, Point] | None, fixed: Sequence[str]) -> None:
    """The best trial, and the command of a run with its settings."""
    if best is not None:
        mine = [o for o in fixed if o.lstrip("+~").split("=")[0].split(".")[0] not in SWEEP_KEYS]
        command = _command([*mine, *(f"{key}={value}" for key, value in best[1].items())], [])
        console().print(f"best     {best[0]}\ncommand  {command}", soft_wrap=True, markup=False)


def _refuse_failures(rows: Sequence[Row]) -> None:
    if rows and all(row.state == "left out" for row in rows):
        raise UserError(f"no job of the sweep can work: {rows[0].note}.")
    failed = [row for row in rows if row.state in ("failed", "interrupted")]
    if failed:
        told = "; ".join(f"{row.job.name}: {row.note}" for row in failed[:5])
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise UserError(
            f"{len(failed)} of {len(rows)} jobs did not finish ({told}{more}); each folder's log.txt says more, and "
            "the same command tries them again."
        )
