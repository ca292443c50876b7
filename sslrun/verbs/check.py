"""`sslrun check [method=NAME ...]`: whether each method's loss is its paper's, and alive."""

from __future__ import annotations

import time

import torch
from rich.table import Table

from sslrun.catalogue import methods
from sslrun.check import Finding, examine
from sslrun.contracts import UserError
from sslrun.explain import nearest
from sslrun.record.summary import console


def main(argv: list[str]) -> None:
    chosen = names(argv)
    torch.set_num_threads(1)  # of small tensors, which several threads only slow down
    out, found, seconds = console(), [], {}
    with out.status("") as status:
        for name in chosen:
            status.update(f"checking {name}")
            began = time.perf_counter()
            found += examine(name)
            seconds[name] = time.perf_counter() - began
    out.print(table(chosen, found, seconds))
    wrong = sorted({f.method for f in found if f.complaint})
    if wrong:
        bad = sum(f.complaint is not None for f in found)
        raise UserError(f"{bad} of {len(found)} checks failed, of method={','.join(wrong)}.")
    out.print(f"\n{len(found)} checks of {len(chosen)} methods hold, in {sum(seconds.values()):.0f} s.")


def names(argv: list[str]) -> list[str]:
    """The methods that the arguments name: all, if none.

    Raises:
        UserError: an unknown method or another argument.
    """
    known, chosen = methods(), []
    for item in argv:
        key, _, value = item.partition("=")
        if item == "traceback=true":
            continue
        if key != "method" or not value:
            raise UserError(f"check takes method=NAME, not {item}.")
        chosen += [name.strip() for name in value.strip("[]").split(",")]
    for name in chosen:
        if name not in known:
            raise UserError(f"method={name} is unknown; {nearest(name, known)}known: {', '.join(known)}.")
    return list(dict.fromkeys(chosen)) or list(known)


def table(chosen: list[str], found: list[Finding], seconds: dict[str, float]) -> Table:
    """One line for each check, and one for a method that was not held against numbers."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("method", "check", "of", "result"):
        shown.add_column(column, overflow="fold")
    for name in chosen:
        lines = [f for f in found if f.method == name]
        head = f"{name} ({seconds[name]:.1f} s)"
        if not any(f.check == "numbers" for f in lines):
            shown.add_row(head, "numbers", "", "not checked: no example computed by hand")
            head = ""
        for line in lines:
            shown.add_row(head, line.check, line.about, line.complaint or "ok", style="red" if line.complaint else "")
            head = ""
    return shown
