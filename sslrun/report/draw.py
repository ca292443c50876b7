"""The figures of a report, each only where there is something to draw."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from sslrun.report import canvas
from sslrun.report.canvas import COLOURS, MARKERS, spread
from sslrun.report.collect import Run
from sslrun.report.compare import Comparison
from sslrun.report.grid import Grid
from sslrun.report.lines import heads
from sslrun.report.measure import MEANING
from sslrun.report.series import (
    CURVES,
    Series,
    by_labels,
    curve,
    of_one_budget,
    references_by_labels,
    series,
    validation,
)
from sslrun.report.words import measure, order, percent

GREYS = {
    "supervised": ("0.25", "--"),
    "random": ("0.45", ":"),
    "raw": ("0.6", "-."),
    "isolation_forest": ("0.35", (0, (1, 1))),
    "lof": ("0.55", (0, (5, 1))),
}
PANELS, BARS, SEEDS = 6, 30, 10  # of one figure; curves read for each line
THUMBNAILS, SIDE = 24, 340  # of the contact sheet; pixels
Drawn = tuple[str, bytes] | None


def draw(comparison: Comparison) -> dict[str, tuple[str, bytes]]:
    """Captions and PNG files by name."""
    lines = series(comparison)
    drawn = {name: make(comparison, lines) for name, make in NAMES.items()} if lines else {}
    return {name: found for name, found in drawn.items() if found}


def label_efficiency(comparison: Comparison, lines: Sequence[Series]) -> Drawn:
    panels = {}
    every = "labels" in comparison.columns and any("null" in column for g in comparison.grids for column in g.columns)
    for data, mine in _by_data(lines).items():
        points = {line.name: found for line in mine if (found := by_labels(line, every))}
        if any(len(p) > 1 for p in points.values()):
            panels[data] = points, references_by_labels([run for line in mine for run in line.runs], every)
    panels, more = _first(panels, PANELS, "data sets")
    if not panels:
        return None
    figure, axes = canvas.new(len(panels))
    styles = canvas.styles((points for points, _ in panels.values()), [line.name for line in lines])
    for ax, style, (data, (points, references)) in zip(axes, styles, panels.items(), strict=True):
        for subject, values in references.items():
            colour, dashes = GREYS[subject]
            means = [100 * statistics.fmean(v) for v in values.values()]
            ax.plot(list(values), means, dashes, c=colour, label=f"{subject} (reference)")
        for name, i in style.items():
            canvas.band(ax, [(n, *spread(v)) for n, v in points[name].items()], i, name, share=True)
        ticks = sorted({n for p in (*points.values(), *references.values()) for n in p})
        ax.set_xscale("log")
        ax.set_xticks(ticks, [f"all {n:,}" if every and n == ticks[-1] else str(n) for n in ticks])
        ax.minorticks_off()
        ax.set(title=data, xlabel="labels (log scale)", ylabel="test accuracy (%)")
    canvas.legend(figure)
    grey = "; ".join(f"{s}: {MEANING[s]}" for s in GREYS if any(s in r for _, r in panels.values()))
    caption = "Test accuracy by number of labels: mean over seeds, band one standard deviation."
    caption += f" In grey {grey}." if grey else ""
    return caption + more + _dropped([p for p, _ in panels.values()], styles), canvas.png(figure)


def learning_curves(comparison: Comparison, lines: Sequence[Series]) -> Drawn:
    lines, chosen = _of_one_budget(lines)
    by_data, more = _first(_by_data(lines), PANELS, "data sets")
    named = canvas.styles(([line.name for line in mine] for mine in by_data.values()), [line.name for line in lines])
    panels, styles, without = {}, [], []
    for style, (data, mine) in zip(named, by_data.items(), strict=True):
        drawn = [line for line in mine if line.name in style]  # the files of no other run are read
        read = {line.name: [validation(run.path / "metrics.csv") for run in line.runs[:SEEDS]] for line in drawn}
        have = {c: [name for name, runs in read.items() if any(c in run for run in runs)] for c in CURVES}
        # Losses of different methods have no common scale: accuracies first, where half of the lines have them.
        name = next((c for c in CURVES if 2 * len(have[c]) >= len(drawn)), max(CURVES, key=lambda c: len(have[c])))
        if have[name]:
            panels[data] = name, {line: read[line] for line in have[name]}
            styles.append(style)
            without += [f"{line} on {data}" for line in read if line not in have[name]]
    if not panels:
        return None
    figure, axes = canvas.new(len(panels))
    for ax, style, (data, (name, read)) in zip(axes, styles, panels.items(), strict=True):
        share = "accuracy" in name
        for line, runs in read.items():
            points = curve(runs, name)
            canvas.band(ax, points, style[line], line, share, marks=len(points) < 30)
        what = name.replace("_", " ").replace("knn", "kNN").replace("classify", "classifier's")
        ax.set(title=data, xlabel="training steps", ylabel=f"validation {what}{' (%)' if share else ''}")
        ax.set_xlim(left=0)
    canvas.legend(figure)
    caption = (
        "Validation during training: mean over seeds, band one standard deviation; the test part is not read." + chosen
    )
    caption += f" Not measured: {', '.join(without)}." if without else ""
    return caption + more + _dropped([[line.name for line in mine] for mine in by_data.values()], named), canvas.png(
        figure
    )


def accuracy_vs_time(comparison: Comparison, lines: Sequence[Series]) -> Drawn:
    panels = {}
    for grid in comparison.grids:
        titles = dict(zip(grid.columns, heads(comparison, grid), strict=True))
        # Of numbers of labels the middle one: training took as long for all of them.
        only = comparison.columns == ["labels"]
        for column in [grid.columns[len(grid.columns) // 2]] if only else grid.columns:
            kind, points = _clouds(grid, column)
            if points:
                words = (grid.title, titles[column] if comparison.columns else "")
                panels[", ".join(w for w in words if w)] = kind, points
    panels, more = _first(panels, PANELS, "columns")
    if not panels:
        return None
    figure, axes = canvas.new(len(panels))
    styles = canvas.styles((points for _, points in panels.values()), [line.name for line in lines])
    for ax, style, (title, (kind, points)) in zip(axes, styles, panels.items(), strict=True):
        scale = 100 if percent(kind[0]) else 1
        for name, i in style.items():
            seconds, values = points[name]
            x, (y, sd) = statistics.fmean(seconds), spread(values)
            reach = [[x - min(seconds)], [max(seconds) - x]]
            ax.errorbar(
                x, scale * y, scale * sd, reach, fmt=MARKERS[i], c=COLOURS[i], capsize=2, ms=7, lw=1, label=name
            )
        canvas.log_seconds(ax, [s for seconds, _ in points.values() for s in seconds])
        unit = " (%)" if scale > 1 else ""
        ax.set(title=title, xlabel="training time (s, log scale)", ylabel=f"test {measure(kind)}{unit}")
    canvas.legend(figure)
    caption = (
        "Test result against the wall-clock time of training, on the machines of these runs: means over seeds; "
        "upright one standard deviation, across the fastest and the slowest seed."
    )
    return caption + more + _dropped([p for _, p in panels.values()], styles), canvas.png(figure)


def _clouds(grid: Grid, column: tuple[str, ...]) -> tuple[tuple[str, str], dict[str, tuple[list, list]]]:
    """Seconds and results of each row, of the kind of number that most rows of the column have."""
    there = [(r, r.cells[column]) for r in grid.rows if not r.reference and column in r.cells]
    kinds = [shown.kind for _, shown in there if shown.numbers]
    kind = max(kinds, key=kinds.count, default=("", ""))
    points = {}
    for row, shown in there:
        seconds = [s for n in shown.numbers if (s := training_s(n.run))]
        if seconds and shown.kind == kind:
            name = " · ".join(word for word in (*row.labels, row.note) if word) or shown.numbers[0].run.method
            points[name] = seconds, list(shown.values.values())
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
    lines, chosen = _of_one_budget(lines)
    several = len({line.data for line in lines}) > 1
    shown, more = _first({f"{x.name}, {x.data}" if several else x.name: x for x in lines}, BARS, "lines")
    found = {m: [[v for run in x.runs if (v := read(run))] for x in shown.values()] for m, read in measures.items()}
    found = {m: values for m, values in found.items() if any(values)}
    if not found:
        return None
    figure, axes = canvas.new(len(found), height=0.8 + 0.34 * len(shown), columns=3)
    for first, ax, (title, values) in zip((True, False, False), axes, found.items(), strict=False):
        spreads = [spread(v) if v else (0.0, 0.0) for v in values]
        means, sds = zip(*spreads, strict=True)
        ax.barh(range(len(shown)), means, xerr=sds, color=COLOURS[0], ecolor="0.3", capsize=2, height=0.65)
        for y, (mean, sd) in enumerate(spreads):
            text = f" {mean:,.0f}" if mean >= 10 else f" {mean:.2g}" if mean else " not measured"
            ax.text(mean + sd, y, text, va="center", size=8)
        ax.set_yticks(range(len(shown)), [n[:48] for n in shown] if first else [""] * len(shown))
        ax.invert_yaxis()
        ax.set_xlim(0, 1.35 * max(mean + sd for mean, sd in spreads))
        ax.set(xlabel=title)
        ax.locator_params(axis="x", nbins=4)
        ax.grid(axis="y", visible=False)
    caption = "Cost of training: mean and standard deviation over seeds, on the machines of these runs." + chosen
    return caption + more, canvas.png(figure)


def tsne(comparison: Comparison, lines: Sequence[Series]) -> Drawn:
    """One picture of each line, of its first seed that has one."""
    from PIL import Image, ImageDraw, ImageFont

    paths = {f"{x.name}, {x.data}": [run.path / "figures/tsne.png" for run in x.runs] for x in lines}
    have = {name: there for name, files in paths.items() if (there := [p for p in files if p.is_file()])}
    have, more = _first(have, THUMBNAILS, "lines")
    shots = {name: p for name, files in have.items() if (p := next(filter(None, map(_opened, files)), None))}
    if not shots:
        return None
    columns, height = min(4, len(shots)), 24 + max(p.height for p in shots.values())
    sheet = Image.new("RGB", (columns * SIDE, -(-len(shots) // columns) * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for i, (name, picture) in enumerate(shots.items()):
        x, y = i % columns * SIDE, i // columns * height
        pen.text((x + 6, y + 4), name[:44], fill="black", font=font)
        sheet.paste(picture, (x, y + 24))
    caption = "t-SNE of each trained encoder's features, one seed of each; colours are classes."
    return caption + more, canvas.compact(sheet)


def _opened(path: Path) -> Any:
    """The picture as a thumbnail, or None where it is cut off or no picture."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    picture.thumbnail((SIDE - 8, SIDE), Image.Resampling.LANCZOS)
    return picture


def _of_one_budget(lines: Sequence[Series]) -> tuple[list[Series], str]:
    kept = [of_one_budget(line.runs) for line in lines]
    chosen = order({labels for _, labels in kept if labels})
    named = f" Methods trained on labels: those with {' or '.join(chosen)} labels." if chosen else ""
    return [Series(line.name, line.data, runs) for line, (runs, _) in zip(lines, kept, strict=True)], named


def _by_data(lines: Sequence[Series]) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = {}
    for line in lines:
        found.setdefault(line.data, []).append(line)
    return found


def _first(found: dict[str, Any], most: int, what: str) -> tuple[dict[str, Any], str]:
    """As many as a figure holds, and a sentence if there are more."""
    more = f" The first {most} of {len(found)} {what} are shown." if len(found) > most else ""
    return dict(list(found.items())[:most]), more


def _dropped(panels: Iterable[Sequence[str]], styles: Sequence[dict[str, int]]) -> str:
    """A sentence where there are more lines than colours."""
    many = max((len(p) for p, style in zip(panels, styles, strict=True) if len(p) > len(style)), default=0)
    return f" The first {len(COLOURS)} of {many} lines are shown." if many else ""


NAMES: dict[str, Callable[[Comparison, Sequence[Series]], Drawn]] = {
    "label_efficiency": label_efficiency,
    "learning_curves": learning_curves,
    "accuracy_vs_time": accuracy_vs_time,
    "cost": cost,
    "tsne": tsne,
}
