"""The comparison report: run folders to a page, Markdown, CSV and figures. Loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sslrun.report.compare import Comparison, compare
from sslrun.report.terminal import table

__all__ = ["Report", "compare", "table", "write"]


@dataclass(frozen=True)
class Report:
    """What was written: the page, and the comparison that it shows (`table(comparison)` prints it)."""

    page: Path
    comparison: Comparison


def write(
    folders: Sequence[Path],
    out: Path,
    *,
    rows: Sequence[str] = (),
    columns: Sequence[str] = (),
    where: Sequence[tuple[str, str]] = (),
    metric: str | None = None,
    baseline: str | None = None,
) -> Report:
    """Compares all runs below `folders`, and writes index.html, report.md, two CSV files and figures to `out`.

    Raises:
        UserError: there are no runs, or a key, value, metric or baseline that they do not have, or `out` is a file.
    """
    from sslrun.report.output import save

    comparison = compare(folders, rows, columns, where, metric, baseline)
    return Report(save(comparison, folders, out), comparison)
