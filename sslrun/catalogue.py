"""What methods there are, read from the configuration groups: the file list is the registry."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sslrun.cli import conf_dir


def methods(folders: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    """Every method's configuration by name: of sslrun, and of a user's own folders."""
    found = {}
    for folder in (conf_dir(), *folders):
        for path in sorted(Path(folder).glob("method/*.yaml")):
            node = OmegaConf.to_container(OmegaConf.load(path), resolve=False) or {}
            entry = (node.get("method") or {}).get(path.stem)
            if entry and "_target_" in entry:
                found[path.stem] = entry
    return found


def locate(target: str) -> Any:
    """The class or function that a `_target_` names."""
    module, _, name = target.rpartition(".")
    return getattr(import_module(module), name)


def fitting(modality: str) -> list[str]:
    """The methods that work on a modality."""
    names = []
    for name, entry in methods().items():
        accepted = locate(entry["_target_"]).modalities
        if not accepted or modality in accepted:
            names.append(name)
    return names
