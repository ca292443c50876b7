"""`sslrun methods [NAME]`: the grid of methods, or one of them with its keys, defaults and paper."""

from __future__ import annotations

import difflib
import inspect

from rich.table import Table

from sslrun.catalogue import locate, methods
from sslrun.contracts import UserError
from sslrun.record.summary import console


def main(argv: list[str]) -> None:
    found = methods()
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
        near = difflib.get_close_matches(name, found, 3, 0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise UserError(f"method={name} is unknown; {hint}known: {', '.join(found)}.")
    entry = dict(found[name])
    cls = locate(entry.pop("_target_"))
    out = console()
    out.print(f"[bold]{name}[/bold]  {inspect.getdoc(cls)}\n", markup=True)
    out.print(f"reads    {', '.join(cls.streams)}; {', '.join(cls.modalities) or 'any'} data")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("key")
    table.add_column("default")
    for key, value in entry.items():
        table.add_row(f"method.{name}.{key}", str(value))
    out.print(table)
    out.print(f"\nsslrun method={name} data=...", highlight=False)
