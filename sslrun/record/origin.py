"""What a run was started as: kept beside its checkpoints, so that an edited configuration is noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from sslrun import __version__
from sslrun.catalogue import own_folders, refuse_strangers
from sslrun.errors import UserError
from sslrun.record.folder import RunFolder, write_atomically, write_json

CHANGEABLE = ("epochs", "steps", "max_time", "save_every", "traceback")  # what a resumed run may have otherwise
ORIGIN = "checkpoints/origin.json"


def keep(folder: RunFolder, plain: Mapping[str, Any]) -> None:
    """Writes config.yaml, and what is needed to tell later whether it is still the same."""
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(plain)).encode())
    write_json(folder / ORIGIN, {"sslrun": __version__, "config_dirs": own_folders(), "config": plain})


def saved(folder: RunFolder) -> tuple[DictConfig, list[str]]:
    """The configuration of a run, and the classes in it that the user's own folders vouch for.

    Raises:
        UserError: it cannot be read, or names what neither sslrun nor the user's own folders have.
    """
    path = folder / "config.yaml"
    try:
        cfg = OmegaConf.load(path)
        plain = OmegaConf.to_container(cfg)
        if not isinstance(plain, dict) or not {"data", "encoder", "method"} <= set(plain):
            raise ValueError("it has no data, encoder and method")
    except (YAMLError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no configuration of a run ({' '.join(str(error).split())}).") from error
    return cfg, refuse_strangers(plain, folder.path, _origin(folder).get("config_dirs", []))


def refuse_edited(folder: RunFolder, cfg: DictConfig) -> None:
    """Refuses to go on with a run of another version, or whose config.yaml was changed where results depend on it.

    Raises:
        UserError: names each changed key, its old and its new value.
    """
    origin = _origin(folder)
    if not origin:
        if (folder / "checkpoints/last.ckpt").exists():
            raise UserError(
                f"{folder.path} has no {ORIGIN} that says what it was started as, so it cannot go on; "
                f"start a new run with weights={folder.path}."
            )
        return
    theirs = str(origin["sslrun"])
    if theirs.split(".")[:2] != __version__.split(".")[:2]:
        raise UserError(
            f"{folder.path} was started by sslrun {theirs}, and this is {__version__}, which may compute other "
            f"numbers; resume with that version, or start a new run with weights={folder.path}."
        )
    old, new = flat(origin["config"]), flat(json.loads(json.dumps(OmegaConf.to_container(cfg))))
    changed = [k for k in {**old, **new} if k not in CHANGEABLE and old.get(k, MISSING) != new.get(k, MISSING)]
    if changed:
        shown = "; ".join(f"{k}: {old.get(k, MISSING)} -> {new.get(k, MISSING)}" for k in changed[:8])
        more = f" and {len(changed) - 8} more" if len(changed) > 8 else ""
        raise UserError(
            f"{folder / 'config.yaml'} was edited since the run was started ({shown}{more}), and it would no longer be "
            f"the same run; undo that, or start a new run with weights={folder.path}."
        )


MISSING = "nothing"


def flat(node: Any, key: str = "") -> dict[str, Any]:
    """Leaves by dotted key; an empty group is a leaf."""
    if isinstance(node, Mapping) and node:
        return {k: v for name, child in node.items() for k, v in flat(child, f"{key}.{name}" if key else name).items()}
    return {key: dict(node) if isinstance(node, Mapping) else node}


def _origin(folder: RunFolder) -> dict[str, Any]:
    try:
        return json.loads(Path(folder / ORIGIN).read_text())
    except (OSError, ValueError):
        return {}
