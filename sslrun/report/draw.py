"""The figures of a report, each only where there is something to draw."""

from __future__ import annotations

import io
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sslrun.report.collect import Run
from sslrun.report.compare import Comparison, Grid
from sslrun.report.lines import heads
from sslrun.report.measure import MEANING
from sslrun.report.series import CURVES, Series, by_labels, curve, references_by_labels, series, validation
from sslrun.report.words import measure, percent

# Okabe and Ito's colours, told apart with any kind of colour vision; the yellow is left out, too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D31")
MARKERS = "osD^vP*X"
GREYS = {"supervised": ("0.25", "--"), "random": ("0.45", ":"), "raw": ("0.6", "-.")}
SEEDS = 10  # curves read for each line
THUMBNAILS, SIDE = 24, 340  # of the contact sheet; pixels
Drawn = tuple[str, bytes] | None


def draw(comparison: Comparison) -> dict[str, tuple[str, bytes]]:
    """Captions and PNG files by name."""
    lines = series(comparison)
    out = {}
    for name, make in NAMES.items():
        drawn = make(comparison, lines) if lines else None
        if drawn:
            out[name] = drawn
    return out


def _panels(lines: Sequence[Series]) -> dict[str, list[Series]]:
    """Lines by data set, of each as many as there are colours."""
    found: dict[str, list[Series]] = {}
    for line in lines:
        found.setdefault(line.data, []).append(line)
    return dict(list(found.items())[:6])


def _left_out(lines: Sequence[Series]) -> str:
    many = max(sum(1 for other in lines if other.data == line.data) for line in lines)
    return f" The first {len(COLOURS)} of {many} are shown." if many > len(COLOURS) else ""


def label_efficiency(comparison: Comparison, lines: Sequence[Series]) -> Drawn:
    panels = {}
    for data, mine in _panels(lines).items():
        points = {line.name: by_labels(line.runs) for line in mine[: len(COLOURS)]}
        if any(len(p) > 1 for p in points.values()):
            panels[data] = points, references_by_labels([run for line in mine for run in line.runs])
    if not panels:
        return None
    figure, axes = _figure(len(panels))
    for ax, (data, (points, references)) in zip(axes, panels.items(), strict=True):
        ticks = sorted({n for p in (*points.values(), *references.values()) for n in p})
        for subject, values in references.items():
            colour, style = GREYS[subject]
            ax.plot(list(values), [100 * statistics.fmean(v) for v in values.values()], style, c=colour, label=subject)
        for i, (name, values) in enumerate(points.items()):
            if values:
                _band(ax, [(n, *(100 * x for x in _spread(v))) for n, v in values.items()], i, name)
        ax.set_xscale("log")
        ax.set_xticks(ticks, map(str, ticks))
        ax.minorticks_off()
        ax.set(title=data, xlabel="labels (log scale)", ylabel="test accuracy (%)")
        _legend(ax)
    caption = "Test accuracy by number of labels: mean over seeds, band one standard deviation; grey: " + ", ".join(
        f"{s} ({MEANING[s]})" for s in GREYS if any(s in r for _, r in panels.values())
    )
    return caption + "." + _left_out(lines), _png(figure)


def learning_curves(comparison: Comparison, lines: Sequence[Series]) -> Drawn:
    panels = {}
    for data, mine in _panels(lines).items():
        read = {
            line.name: [validation(r.path / "metrics.csv") for r in line.runs[:SEEDS]] for line in mine[: len(COLOURS)]
        }
        # The scalar that most lines have: losses of different methods are no common scale.
        have = {c: sum(any(c in run for run in runs) for runs in read.values()) for c in CURVES}
        name = max(CURVES, key=lambda c: have[c])
        if have[name]:
            panels[data] = name, read
    if not panels:
        return None
    figure, axes = _figure(len(panels))
    for ax, (data, (name, read)) in zip(axes, panels.items(), strict=True):
        share = "accuracy" in name
        for i, (line, runs) in enumerate(read.items()):
            points = curve(runs, name)
            if points:
                scale = 100 if share else 1
                _band(ax, [(x, scale * y, scale * sd) for x, y, sd in points], i, line, marks=len(points) < 30)
        what = name.replace("_", " ").replace("knn", "kNN").replace("classify", "classifier's")
        ax.set(title=data, xlabel="training steps", ylabel=f"validation {what}{' (%)' if share else ''}")
        ax.set_xlim(left=0)
        _legend(ax)
    caption = (
        "Validation during training: mean over seeds, band one standard deviation; the test part is not read here."
    )
    return caption + _left_out(lines), _png(figure)


def accuracy_vs_time(comparison: Comparison, lines: Sequence[Series]) -> Drawn:
    panels = [
        (grid, c, kind, points)
        for grid in comparison.grids
        for c in _columns(comparison, grid)
        for kind, points in [_clouds(comparison, grid, c)]
        if points
    ][:6]
    if not panels:
        return None
    figure, axes = _figure(len(panels))
    for ax, (grid, column, kind, points) in zip(axes, panels, strict=True):
        metric = kind[0]
        scale = 100 if percent(metric) else 1
        for i, (name, seconds, values) in enumerate(points[: len(COLOURS)]):
            (x, dx), (y, dy) = _spread(seconds), _spread(values)
            ax.errorbar(x, scale * y, scale * dy, dx, fmt=MARKERS[i], c=COLOURS[i], capsize=2, ms=7, label=name)
        ax.set_xscale("log")
        _plain_seconds(ax, [s for _, seconds, _ in points for s in seconds])
        head = dict(zip(grid.columns, heads(comparison, grid), strict=True))[column]
        title = ", ".join(t for t in (grid.title, head if comparison.columns else "") if t)
        ax.set(
            title=title,
            xlabel="training time (s, log scale)",
            ylabel=f"test {measure(kind)}{' (%)' if scale > 1 else ''}",
        )
        _legend(ax)
    return (
        "Test result against the wall-clock time of training, on the machines of these runs: mean and standard "
        "deviation over seeds." + _left_out(lines),
        _png(figure),
    )


def _columns(comparison: Comparison, grid: Grid) -> list[tuple[str, ...]]:
    """Of labels the middle one alone: time does not depend on a probe's labels."""
    return [grid.columns[len(grid.columns) // 2]] if comparison.columns == ["labels"] else grid.columns


def _clouds(comparison: Comparison, grid: Grid, column: tuple[str, ...]) -> tuple[tuple[str, str], list[tuple]]:
    rows = [
        (r, r.cells[column]) for r in grid.rows if not r.reference and r.cells.get(column) and r.cells[column].numbers
    ]
    kinds = [c.kind for _, c in rows]
    kind = max(kinds, key=kinds.count, default=("", ""))
    points = []
    for row, shown in rows:
        seconds = [s for n in shown.numbers if (s := training_s(n.run))]
        if shown.kind == kind and seconds:
            points.append(
                (" · ".join((*row.labels, *([row.note] if row.note else []))), seconds, list(shown.values.values()))
            )
    return kind, points


def training_s(run: Run) -> float | None:
    """Seconds of training alone: evaluating and training the references is part of the whole, `wall_s`."""
    return _positive(run, "training_s") or _positive(run, "wall_s")


def _positive(run: Run, key: str) -> float | None:
    value = run.metrics.get(key)
    return float(value) if isinstance(value, int | float) and value > 0 else None


def cost(comparison: Comparison, lines: Sequence[Series]) -> Drawn:
    measures: dict[str, Callable[[Run], float | None]] = {
        "training time (s)": training_s,
        "peak memory (MB)": lambda run: _positive(run, "peak_rss_mb"),
        "throughput (samples/s)": lambda run: _positive(run, "samples_per_s"),
    }
    several = len({line.data for line in lines}) > 1
    shown = list(lines)[:30]
    names = [f"{line.name}, {line.data}" if several else line.name for line in shown]
    found = {m: [[v for run in line.runs if (v := read(run))] for line in shown] for m, read in measures.items()}
    found = {m: values for m, values in found.items() if any(values)}
    if not found:
        return None
    figure, axes = _figure(len(found), height=1.0 + 0.34 * len(shown), columns=3)
    for i, (ax, (title, values)) in enumerate(zip(axes, found.items(), strict=True)):
        spreads = [_spread(v) if v else (0.0, 0.0) for v in values]
        means, sds = zip(*spreads, strict=True)
        ax.barh(range(len(shown)), means, xerr=sds, color=COLOURS[0], ecolor="0.3", capsize=2, height=0.65)
        for y, ((mean, sd), v) in enumerate(zip(spreads, values, strict=True)):
            ax.text(
                mean + sd,
                y,
                f" {mean:,.0f}" if mean >= 10 else f" {mean:.2g}" if v else " not measured",
                va="center",
                size=8,
            )
        ax.set_yticks(range(len(shown)), names if i % 3 == 0 else [""] * len(shown))
        ax.invert_yaxis()
        ax.set_xlim(0, 1.3 * max(m + s for m, s in spreads) or 1)
        ax.set(xlabel=title)
        ax.locator_params(axis="x", nbins=4)
        ax.grid(axis="y", visible=False)
    more = f" The first {len(shown)} of {len(lines)} are shown." if len(lines) > len(shown) else ""
    return "Cost of training: mean and standard deviation over seeds, on the machines of these runs." + more, _png(
        figure
    )


def tsne(comparison: Comparison, lines: Sequence[Series]) -> Drawn:
    """One picture of each line, of its first seed that has one."""
    from PIL import Image, ImageDraw, ImageFont

    shots = []
    for line in lines:
        picture = next((p for run in line.runs if (p := _opened(run.path / "figures/tsne.png", Image))), None)
        if picture:
            shots.append((f"{line.name}, {line.data}", picture))
        if len(shots) == THUMBNAILS:
            break
    if not shots:
        return None
    columns = min(4, len(shots))
    height = max(p.height for _, p in shots)
    sheet = Image.new("RGB", (columns * SIDE, -(-len(shots) // columns) * (height + 24)), "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for i, (name, picture) in enumerate(shots):
        x, y = i % columns * SIDE, i // columns * (height + 24)
        canvas.text((x + 6, y + 4), name[:44], fill="black", font=font)
        sheet.paste(picture, (x, y + 24))
    some = f" The first {THUMBNAILS} are shown." if len(shots) == THUMBNAILS else ""
    return "t-SNE of each trained encoder's features, one seed of each; colours are classes." + some, _compact(sheet)


def _opened(path: Path, image: Any) -> Any:
    try:
        with image.open(path) as picture:
            picture = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError):  # missing, cut off or no picture
        return None
    picture.thumbnail((SIDE - 8, SIDE))
    return picture


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _band(ax: Any, points: Sequence[tuple[float, float, float]], i: int, name: str, marks: bool = True) -> None:
    x, y, sd = zip(*points, strict=True)
    low, high = [a - b for a, b in zip(y, sd, strict=True)], [a + b for a, b in zip(y, sd, strict=True)]
    ax.plot(x, y, MARKERS[i] + "-" if marks else "-", c=COLOURS[i], label=name, ms=4, lw=1.6)
    ax.fill_between(x, low, high, color=COLOURS[i], alpha=0.18, lw=0)


def _legend(ax: Any) -> None:
    if ax.get_legend_handles_labels()[1]:
        ax.legend(fontsize=8, frameon=False)


def _plain_seconds(ax: Any, seconds: Sequence[float]) -> None:
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(seconds) / 1.5, max(seconds) * 1.5
    ticks = [m * 10.0**e for e in range(-3, 8) for m in (1, 2, 5) if low <= m * 10.0**e <= high]
    ticks = ticks[:: 1 + len(ticks) // 7]
    ax.set_xlim(low, high)
    ax.xaxis.set_major_locator(FixedLocator(ticks))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))


def _figure(panels: int, height: float = 3.6, columns: int = 2) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure((10.5 if columns > 1 else 6.8, rows * height), dpi=140, layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(panels)]
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return _compact(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3]))


def _compact(picture: Any) -> bytes:
    """A palette of 256 colours: a third of the bytes, and no visible difference in charts."""
    out = io.BytesIO()
    picture.quantize(256, dither=0).save(out, "PNG", optimize=True)
    return out.getvalue()


NAMES: dict[str, Callable[[Comparison, Sequence[Series]], Drawn]] = {
    "label_efficiency": label_efficiency,
    "learning_curves": learning_curves,
    "accuracy_vs_time": accuracy_vs_time,
    "cost": cost,
    "tsne": tsne,
}
