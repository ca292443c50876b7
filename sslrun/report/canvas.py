"""What all figures share: colours, axes, bands over seeds, one legend, and small files."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

# Okabe and Ito's colours, told apart with any kind of colour vision; the yellow is left out, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D31")
MARKERS = "osD^vP*X"


def styles(panels: Iterable[Iterable[str]], names: Iterable[str]) -> list[dict[str, int]]:
    """Which colour each name has in each panel: by its place among `names` in all figures, while colours last."""
    panels = [list(p) for p in panels]
    every = list(dict.fromkeys([*names, *(name for p in panels for name in p)]))
    if len(every) <= len(COLOURS):
        return [{name: every.index(name) for name in p} for p in panels]
    return [{name: i for i, name in enumerate(p[: len(COLOURS)])} for p in panels]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def new(panels: int, height: float = 3.4, columns: int = 2) -> tuple[Any, list[Any]]:
    """A figure with this many panels, `height` inches each."""
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure((10.5 if columns > 1 else 6.8, rows * height + 0.4), dpi=140, layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def band(
    ax: Any, points: Sequence[tuple[float, float, float]], i: int, name: str, share: bool, marks: bool = True
) -> None:
    """A line through (x, mean, sd) with its band; a share of one is drawn in per cent, which no band leaves."""
    scale, limit = (100.0, 100.0) if share else (1.0, float("inf"))
    x, y, sd = zip(*((x, scale * mean, scale * sd) for x, mean, sd in points), strict=True)
    low = [max(a - b, 0.0 if share else -limit) for a, b in zip(y, sd, strict=True)]
    high = [min(a + b, limit) for a, b in zip(y, sd, strict=True)]
    ax.plot(x, y, MARKERS[i] + "-" if marks else "-", c=COLOURS[i], label=name, ms=4.5, lw=1.6)
    ax.fill_between(x, low, high, color=COLOURS[i], alpha=0.18, lw=0)


def legend(figure: Any) -> None:
    """One legend for all panels, beside none of the lines."""
    shown = {label: handle for ax in figure.axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    if shown:
        inches = 0.55 + 0.08 * max(map(len, shown))  # of the widest entry: its line, and letters of nine points
        columns = min(len(shown), 4, max(1, int(figure.get_figwidth() / inches)))
        figure.legend(
            shown.values(), shown.keys(), loc="outside lower center", ncols=columns, fontsize=9, frameon=False
        )


def log_seconds(ax: Any, seconds: Sequence[float]) -> None:
    """A logarithmic axis of seconds with whole numbers beside its ticks."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(seconds) / 1.5, max(seconds) * 1.5
    ticks = [m * 10.0**e for e in range(-3, 8) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    ax.set_xscale("log")
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator(ticks[:: 1 + len(ticks) // 7]))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def png(figure: Any) -> bytes:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return compact(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def compact(picture: Any) -> bytes:
    """PNG with a palette of 256 colours: a third of the bytes, and no visible difference in charts."""
    out = io.BytesIO()
    picture.quantize(256, dither=0).save(out, "PNG", optimize=True)
    return out.getvalue()
