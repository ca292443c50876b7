"""Composes a configuration outside the command line: for notebooks, verbs and sweeps; and runs one from Python."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from sslrun.catalogue import own_folders
from sslrun.errors import UserError
from sslrun.explain import explain
from sslrun.schema import chosen, conf_dir, joined, register


@contextmanager
def composer() -> Iterator[Callable[[Sequence[str]], DictConfig]]:
    """`overrides -> configuration`, as the command line would make it; raises UserError for what cannot be composed."""
    register()
    GlobalHydra.instance().clear()
    found = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in own_folders())}]"] if own_folders() else []

    def composed(overrides: Sequence[str]) -> DictConfig:
        try:
            return hydra_compose("config", overrides=[*found, *overrides])
        except Exception as error:
            raise UserError(explain(error)) from error

    with initialize_config_dir(conf_dir(), version_base="1.3"):
        yield composed


def compose(overrides: Sequence[str]) -> tuple[DictConfig, Path]:
    """The configuration of these overrides, and a fresh run folder's path.

    Raises:
        UserError: an unknown key, value or group.
    """
    with composer() as composed:
        cfg = composed(overrides)
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")
    return cfg, Path("outputs") / joined(chosen(cfg.method)) / cfg.data._target_.rpartition(".")[2] / stamp


class Runnable(types.ModuleType):
    """Lets `sslrun.run([...])` call the module `sslrun.run`, which Python binds to that name."""

    def __call__(self, overrides: Sequence[str] = (), folder: Path | str | None = None) -> dict[str, Any]:
        """Runs one experiment from Python and returns its metrics.json.

        Raises:
            UserError: the overrides or what they ask for cannot work.
        """
        cfg, default = compose(overrides)
        return self.run(cfg, folder or default, overrides=overrides)
