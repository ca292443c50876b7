"""Where configurations are, and the top-level keys they have: their types and defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    on_error: str = "continue"
    traceback: bool = False
    encoder: Any = field(default_factory=dict)
    augmentation: Any = field(default_factory=dict)
    optimizer: Any = field(default_factory=dict)
    data: Any = field(default_factory=dict)
    method: Any = field(default_factory=dict)
    device: Any = field(default_factory=dict)
    eval: Any = field(default_factory=dict)
    logger: Any = field(default_factory=dict)
    sweep: Any = field(default_factory=dict)
    launcher: Any = field(default_factory=dict)
    image: str | None = None
    reference: bool | None = True
    profile: bool | None = None
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
    OmegaConf.register_new_resolver("join", joined, replace=True)
    OmegaConf.register_new_resolver("chosen", chosen, replace=True)
    OmegaConf.register_new_resolver("unless_alone", lambda names: True if len(names) > 1 else None, replace=True)


def chosen(methods: Mapping[str, Any]) -> list[str]:
    """The names of the run's methods, sorted: an experiment may bring along settings of methods that are not chosen."""
    return sorted(name for name, node in methods.items() if "_target_" in node)


def joined(methods: Iterable[str]) -> str:
    """Several methods as one word, whatever their order."""
    return "+".join(sorted(methods)) or "none"
