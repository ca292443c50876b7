"""What methods there are, read from the configuration groups: the file list is the registry."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sslrun.schema import conf_dir

OURS = ("augment", "data", "encoders", "evaluate", "methods", "nn")  # packages that hold what a configuration may name
LOGGERS = "lightning.pytorch.loggers"

FOLDERS = "SSLRUN_CONFIG_DIR"  # the environment takes a user's folders to further ranks and workers


def add_folder(folder: Path | str) -> None:
    """Makes a user's configuration folder known, and importable the Python files in it and beside it.

    Raises:
        UserError: it is not there.
    """
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        from sslrun.errors import UserError

        raise UserError(f"--config-dir={folder} is not a folder; it holds method/NAME.yaml or data/NAME.yaml.")
    if str(path) not in own_folders():
        os.environ[FOLDERS] = os.pathsep.join([*own_folders(), str(path)])
    places = [str(path.parent), str(path)]
    sys.path += [p for p in places if p not in sys.path]
    known = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    os.environ["PYTHONPATH"] = os.pathsep.join([*known, *(p for p in places if p not in known)])


def take_folders(argv: list[str]) -> list[str]:
    """The arguments without `--config-dir DIR` or `--config-dir=DIR`, whose folders are added."""
    rest: list[str] = []
    items = iter(argv)
    for item in items:
        if item == "--config-dir" or item.startswith("--config-dir="):
            add_folder(item.partition("=")[2] or next(items, ""))
        else:
            rest.append(item)
    return rest


def own_folders() -> list[str]:
    """The user's own configuration folders."""
    return [folder for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]


def folders() -> tuple[str, ...]:
    """The configuration folders of sslrun and of the user."""
    return (conf_dir(), *own_folders())


def files() -> dict[str, Path]:
    """The YAML file of every method by name; a user's own wins."""
    return {path.stem: path for folder in folders() for path in sorted(Path(folder).glob("method/*.yaml"))}


def methods() -> dict[str, dict[str, Any]]:
    """Every method's own keys by name."""
    found = {}
    for name, path in files().items():
        node = OmegaConf.to_container(OmegaConf.load(path), resolve=False) or {}
        entry = (node.get("method") or {}).get(name)
        if entry and "_target_" in entry:
            found[name] = entry
    return found


def locate(target: str) -> Any:
    """The class or function that a `_target_` names.

    Raises:
        UserError: there is none.
    """
    module, _, name = target.rpartition(".")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        from sslrun.errors import UserError

        raise UserError(f"_target_={target} cannot be imported ({error}).") from error


def fitting(modality: str) -> list[str]:
    """The methods that work on a modality."""
    names = []
    for name, entry in methods().items():
        accepted = locate(entry["_target_"]).modalities
        if not accepted or modality in accepted:
            names.append(name)
    return names


def targets(node: Any) -> Iterator[str]:
    """Every `_target_` in a configuration."""
    if isinstance(node, Mapping):
        if node.get("_target_"):
            yield str(node["_target_"])
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from targets(value)


def trusted(target: str, packages: tuple[str, ...] = OURS) -> bool:
    """Whether a saved `_target_` may be called: it is defined in one of sslrun's packages, or the user's own folder
    names it. An attribute path that leads out of sslrun (`sslrun.data.image.np.load`) is not defined there."""
    module, _, name = target.rpartition(".")
    if module == LOGGERS and packages == OURS:
        return name.endswith("Logger")
    if re.fullmatch(rf"sslrun\.({'|'.join(packages)})(\.\w+)+", module):
        return getattr(locate(target), "__module__", None) == module
    return target in named()


def named() -> set[str]:
    """Every `_target_` that the user's own folders name."""
    found: set[str] = set()
    for folder in own_folders():
        for path in Path(folder).rglob("*.yaml"):
            found |= set(targets(OmegaConf.to_container(OmegaConf.load(path), resolve=False)))
    return found


def refuse_strangers(plain: Mapping[str, Any], run: Any, started_with: list[str]) -> list[str]:
    """Refuses a saved configuration that names what is not sslrun's; returns what the user's own folders allowed.

    Raises:
        UserError: names the first class or function that nobody vouches for.
    """
    known = sorted(set(targets(plain)))
    stranger = next((target for target in known if not trusted(target)), None)
    if stranger:
        from sslrun.errors import UserError

        origin = f" (the run was started with {', '.join(started_with)})" if started_with else ""
        raise UserError(
            f"{run} names {stranger}, which is not part of sslrun; if you trust it, add --config-dir DIR, the folder "
            f"whose YAML names it{origin}."
        )
    return [target for target in known if target in named()]
