"""The command line: a verb, or Hydra overrides. Imports neither torch nor lightning, and alone decides to exit."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

VERBS = ("resume", "methods", "embed", "predict", "export", "board")


@dataclass
class Config:
    """Top-level keys and their types; groups fill the dictionaries."""

    epochs: int = 100
    steps: int | None = None
    batch_size: int = 256
    mu: int = 1
    lr: float | None = None
    labels: int | None = None
    seed: int = 0
    split_seed: int = 0
    weights: str | None = None
    teacher: str | None = None
    precision: str = "auto"
    compile: bool = False
    accumulate: int = 1
    clip: float | None = None
    max_time: str | None = None
    save_every: float = 60.0
    traceback: bool = False
    encoder: Any = field(default_factory=dict)
    augmentation: Any = field(default_factory=dict)
    optimizer: Any = field(default_factory=dict)
    data: Any = field(default_factory=dict)
    method: Any = field(default_factory=dict)
    device: Any = field(default_factory=dict)
    eval: Any = field(default_factory=dict)
    logger: Any = field(default_factory=dict)
    reference: bool | None = True
    supervision: Any = field(default_factory=dict)


def conf_dir() -> str:
    """The folder of the configuration groups: inside an installed package, or beside it in a checkout."""
    here = Path(__file__).resolve().parent
    found = next(p for p in (here / "conf", here.parent / "conf") if (p / "config.yaml").exists())
    return str(found)


def register() -> None:
    """Makes the schema and the resolvers known to Hydra."""
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("join", lambda names: "+".join(names) or "none", replace=True)


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra's errors reach us, and are reworded below
    show = "traceback=true" in argv
    try:
        if argv and argv[0] in VERBS:
            import_module(f"sslrun.verbs.{argv[0]}").main(argv[1:])
        else:
            _hydra(argv)
    except KeyboardInterrupt:
        print("sslrun: interrupted; what was trained is saved, `sslrun resume RUN` goes on.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if show:
            raise
        from sslrun.explain import explain

        print(f"sslrun: {explain(error)}", file=sys.stderr)
        sys.exit(1)


def _hydra(argv: list[str]) -> None:
    import hydra

    register()

    @hydra.main(config_path=conf_dir(), config_name="config", version_base="1.3")
    def task(cfg: Any) -> None:
        from hydra.core.hydra_config import HydraConfig

        from sslrun.run import run

        run(cfg, Path(HydraConfig.get().runtime.output_dir), overrides=list(HydraConfig.get().overrides.task))

    old, sys.argv = sys.argv, [sys.argv[0], *argv]
    try:
        task()
    finally:
        sys.argv = old
