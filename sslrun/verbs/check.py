"""`sslrun check [method=NAME ...]`: whether each method's loss is its paper's, and alive."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rich.table import Table

from sslrun.catalogue import methods
from sslrun.errors import UserError
from sslrun.explain import nearest
from sslrun.record.summary import console

if TYPE_CHECKING:
    from sslrun.check import Finding


def main(argv: list[str]) -> None:
    chosen = names(argv)
    import torch  # seconds, which a mistyped name should not cost

    from sslrun.check import examine

    torch.set_num_threads(1)  # of small tensors, which several threads only slow down
    out, found, seconds = console(), [], {}
    with out.status("") as status:
        for name in chosen:
            status.update(f"checking {name}")
            began = time.perf_counter()
            found += examine(name)
            seconds[name] = time.perf_counter() - began
    out.print(table(found, seconds))
    done = sum(f.missing is None for f in found)
    wrong = sorted({f.method for f in found if f.complaint})
    if wrong:
        bad = sum(f.complaint is not None for f in found)
        raise UserError(f"{bad} of {done} checks failed, in {', '.join(wrong)}; the table says why.")
    out.print(f"\n{done} checks of {len(chosen)} methods hold, in {sum(seconds.values()):.0f} s.")


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


def table(found: list[Finding], seconds: dict[str, float]) -> Table:
    """One line for each check."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("method", "check", "result", "of"):
        shown.add_column(column, overflow="fold")
    before = None
    for f in found:
        head = f"{f.method} ({seconds[f.method]:.1f} s)" if before is None or f.method != before.method else ""
        about = f.about if head or f.about != before.about else ""
        result = f.complaint or (f"not checked: {f.missing}" if f.missing else "ok")
        shown.add_row(head, f.check, result, about, style="red" if f.complaint else "")
        before = f
    return shown
