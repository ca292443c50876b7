"""`sslrun resume RUN [epochs=400]`: goes on with an interrupted run, or further with a finished one."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

from sslrun.contracts import UserError
from sslrun.record.folder import open_run

EXTENDABLE = ("epochs", "steps", "max_time", "save_every", "traceback")


def main(argv: list[str]) -> None:
    if not argv:
        raise UserError("resume needs a run folder: sslrun resume outputs/simclr/digits/DATE_TIME")
    resume(argv[0], argv[1:])


def resume(path: str | Path, overrides: list[str] | None = None) -> dict:
    """Continues a run in its folder from its last checkpoint and returns its metrics.

    Raises:
        UserError: it is not a run, it is in use, it has nothing left to do, or an override would change its results.
    """
    folder = open_run(path)
    cfg = OmegaConf.load(folder / "config.yaml")
    changes = OmegaConf.from_dotlist(list(overrides or []))
    wrong = [f"{k}: {OmegaConf.select(cfg, k)} -> {v}" for k, v in changes.items() if k not in EXTENDABLE]
    if wrong:
        raise UserError(
            f"resume cannot change {'; '.join(wrong)}: the run would no longer be the one that was started. It "
            f"can change {', '.join(EXTENDABLE)}; start a new run with weights={path} for the rest."
        )
    status = folder.status()
    if status.get("status") in ("finished", "collapsed") and not changes:
        raise UserError(f"{path} is finished at step {status.get('step')}; extend it with epochs=N or steps=N.")
    for key, value in changes.items():
        cfg[key] = value
    if "epochs" in changes and cfg.steps is not None:
        cfg.steps = None
    from sslrun.run import run

    return run(cfg, folder.path, resume=True)
