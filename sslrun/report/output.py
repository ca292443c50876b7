"""Writes a comparison in all its forms."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sslrun.errors import UserError
from sslrun.report import draw, markdown, page, sheets
from sslrun.report.compare import Comparison


def save(comparison: Comparison, folders: Sequence[Path], out: Path) -> Path:
    """Writes the report's files to `out`; returns the page.

    Raises:
        UserError: `out` cannot be written.
    """
    names = {s.name for s in comparison.found.sweeps} or {str(f) for f in folders}
    title = f"Comparison of {', '.join(sorted(names))}"
    pictures = draw.draw(comparison)
    captions = {name: caption for name, (caption, _) in pictures.items()}
    files: dict[str, bytes] = {
        "index.html": page.page(comparison, title, pictures).encode(errors="replace"),
        "report.md": markdown.markdown(comparison, title, captions).encode(errors="replace"),
        "runs.csv": sheets.runs(comparison).encode(errors="replace"),
        "comparison.csv": sheets.comparison(comparison).encode(errors="replace"),
        **{f"figures/{name}.png": png for name, (_, png) in pictures.items()},
    }
    try:
        (out / "figures").mkdir(parents=True, exist_ok=True)
        for name in draw.NAMES:  # of an earlier report, which this one may have no data for
            (out / f"figures/{name}.png").unlink(missing_ok=True)
        for name, data in files.items():
            (out / name).write_bytes(data)
    except OSError as error:
        raise UserError(f"--out {out} cannot be written ({error.strerror}); name another folder.") from error
    return out / "index.html"
