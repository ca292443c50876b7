"""`sslrun resume RUN [epochs=400]`: goes on with an interrupted run, or further with a finished one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sslrun.errors import UserError
from sslrun.explain import explain
from sslrun.record.folder import open_run
from sslrun.record.origin import CHANGEABLE, refuse_edited, saved
from sslrun.record.summary import console
from sslrun.schema import Config


def main(argv: list[str]) -> None:
    if not argv:
        raise UserError("resume needs a run folder: sslrun resume outputs/simclr/digits/DATE_TIME")
    resume(argv[0], argv[1:])


def resume(path: str | Path, overrides: list[str] | None = None) -> dict:
    """Continues a run in its folder from its last checkpoint and returns its metrics.

    Raises:
        UserError: it is not a run, it is in use, it has nothing left to do, its configuration was edited, or an
            override would change its results.
    """
    folder = open_run(path)
    cfg, vouched = saved(folder)
    refuse_edited(folder, cfg)
    changes = _changes(list(overrides or []), cfg, path)
    status = folder.status()
    length = {k: v for k, v in changes.items() if k in ("epochs", "steps")}
    if status.get("status") in ("finished", "collapsed"):
        if not length:
            raise UserError(f"{path} is finished at step {status.get('step')}; extend it with epochs=N or steps=N.")
        for key, value in length.items():
            if cfg[key] is not None and value is not None and value <= cfg[key]:
                raise UserError(f"{path} is finished with {key}={cfg[key]}; {key}={value} leaves nothing to do.")
    for key, value in changes.items():
        cfg[key] = value
    if "epochs" in changes and "steps" not in changes:
        cfg.steps = None
    if vouched:
        console().print(f"trusting {', '.join(vouched)}, which --config-dir named")
    from sslrun.run import run

    return run(cfg, folder.path, resume=True)


def _changes(overrides: list[str], cfg: Any, path: Any) -> dict[str, Any]:
    """Overrides by key, of the type the schema gives them."""
    typed, changes, wrong = OmegaConf.structured(Config), {}, []
    for item in overrides:
        key, equals, value = item.partition("=")
        if not equals:
            raise UserError(f"resume takes RUN and then KEY=VALUE, not {item}; it can change {', '.join(CHANGEABLE)}.")
        if key not in CHANGEABLE:
            wrong.append(f"{key}: {OmegaConf.select(cfg, key)} -> {value}")
            continue
        try:
            typed[key] = OmegaConf.create(f"value: {value}").value
        except OmegaConfBaseException as error:
            raise UserError(explain(error)) from error
        changes[key] = typed[key]
    if wrong:
        raise UserError(
            f"resume cannot change {'; '.join(wrong)}: the run would no longer be the one that was started. It "
            f"can change {', '.join(CHANGEABLE)}; start a new run with weights={path} for the rest."
        )
    return changes
