"""`sslrun methods [NAME]`: the grid of methods, or one of them with its keys, defaults and paper."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from omegaconf import OmegaConf
from rich.table import Table

from sslrun.catalogue import files, locate, methods
from sslrun.contracts import UserError
from sslrun.explain import nearest
from sslrun.record.origin import flat
from sslrun.record.summary import console


def main(argv: list[str]) -> None:
    found = methods()
    argv = [a for a in argv if a != "traceback=true"]
    if len(argv) > 1:
        raise UserError(f"methods takes one name, not {' '.join(argv)}.")
    if argv:
        show(argv[0], found)
    else:
        grid(found)


def grid(found: dict) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("method", "family", "data", "reads", "what it does"):
        table.add_column(column)
    for name, entry in found.items():
        cls = locate(entry["_target_"])
        family = entry["_target_"].split(".")[2] if entry["_target_"].startswith("sslrun.methods.") else "yours"
        text = (inspect.getdoc(inspect.getmodule(cls)) or "").split("\n")[0]
        table.add_row(name, family, ", ".join(cls.modalities) or "any", ", ".join(cls.streams), text)
    console().print(table)


def show(name: str, found: dict) -> None:
    if name not in found:
        raise UserError(f"method={name} is unknown; {nearest(name, found)}known: {', '.join(found)}.")
    entry = dict(found[name])
    cls = locate(entry.pop("_target_"))
    path = files()[name]
    about, remarks = notes(path)
    out = console()
    out.print(f"[bold]{name}[/bold]  {' '.join(about)}\n", markup=True)
    out.print(f"reads    {', '.join(cls.streams)}; {', '.join(cls.modalities) or 'any'} data")
    node = OmegaConf.to_container(OmegaConf.load(path))
    chosen = {k: v for item in node.pop("defaults", []) if isinstance(item, dict) for k, v in item.items()}
    node.pop("method")
    also = {k.rpartition("/")[2]: v for k, v in chosen.items()} | (flat(node) if node else {})
    also = {k: v for k, v in also.items() if not str(v).startswith("${")}  # depends on the other methods of a run
    if also:
        out.print(f"sets     {' '.join(f'{k}={v}' for k, v in also.items())}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("key", "default", ""):
        table.add_column(column)
    for key, value in entry.items():
        said = remarks.get(key) or ("of its loss, among several methods" if key == "weight" else "")
        table.add_row(f"method.{name}.{key}", "null" if value is None else str(value), said)
    out.print()
    out.print(table)
    out.print(f"\n{inspect.getdoc(cls)}", markup=False)
    out.print(f"\nsslrun method={name} data=...")


def notes(path: Path) -> tuple[list[str], dict[str, str]]:
    """The comment lines at the top of a YAML file, and the comment after each key."""
    about, remarks = [], {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") and not remarks and not line.startswith("# @package"):
            about.append(line.lstrip("# "))
        found = re.match(r"\s*(\w+):[^#]*?(?:#\s*(.*))?$", line)
        if found:
            remarks[found[1]] = found[2] or ""
    return about, remarks
