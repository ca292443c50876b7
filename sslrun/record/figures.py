"""Drawing: numbers to pictures, each an array (H, W, 3) of bytes, without a screen and without global state."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

Picture = np.ndarray  # (H, W, 3) uint8

CELL = 64  # pixels that a small picture is enlarged to
WIDE = 960  # that a small picture and its segments are together enlarged to
PANELS = 18  # of curves
LABELS = 20  # classes that colours and axes can still tell apart


def png(picture: Picture) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", optimize=True)
    return out.getvalue()


def grid(rows: dict[str, Tensor], captions: Sequence[str] = (), heading: str = "") -> Picture:
    """Rows of pictures (N, C, H, W) in [0, 1], each row named at its left, each column with a caption if there is one.

    `heading` says at the left what the captions are.
    Small pictures are enlarged by whole numbers, so that their pixels stay visible.
    """
    cells = {name: [enlarge(rgb(x)) for x in values] for name, values in rows.items()}
    side = max(max(c.shape[0], c.shape[1]) for row in cells.values() for c in row)
    text, gap = 8 * max(map(len, [*cells, heading])) + 8, 3
    columns = max(map(len, cells.values()))
    wide = max(side, 6 * max(map(len, captions), default=0) + 4)  # of a column
    top = 14 if captions else 0
    out = np.full((top + len(cells) * (side + gap), text + columns * (wide + gap), 3), 255, np.uint8)
    canvas = Image.fromarray(out)
    draw = ImageDraw.Draw(canvas)
    for i, (name, row) in enumerate(cells.items()):
        y = top + i * (side + gap)
        draw.text((4, y + side // 2 - 6), name, fill="black")
        for j, cell in enumerate(row):
            canvas.paste(Image.fromarray(cell), (text + j * (wide + gap), y))
    draw.text((4, 1), heading, fill="black")
    for j, caption in enumerate(captions):
        draw.text((text + j * (wide + gap) + 2, 1), caption, fill="black")
    return np.asarray(canvas)


def rgb(x: Tensor) -> Picture:
    """(C, H, W) in [0, 1]: grey and colour as they are, of more channels the first three, of two a black third."""
    x = x.detach().float().cpu().nan_to_num(0.0).clamp(0, 1)
    x = x.expand(3, -1, -1) if len(x) == 1 else torch.cat([x, torch.zeros_like(x[:1])])[:3]
    return (x.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()


def segments(picture: np.ndarray, segment: np.ndarray) -> Picture:
    """A picture (H, W, 3) in [0, 1], its segments (H, W), -1: unknown, in their mean colours, and in distinct ones."""
    names, place = np.unique(segment, return_inverse=True)
    place = place.reshape(segment.shape)
    count = np.bincount(place.ravel(), minlength=len(names))
    mean = np.stack([np.bincount(place.ravel(), picture[..., c].ravel(), len(names)) / count for c in range(3)], 1)
    colours = np.array(
        [_palette(len(names))[n % 20 % len(_palette(len(names)))] if n >= 0 else (0, 0, 0) for n in names]
    )
    gap = np.ones((len(picture), 4, 3))
    whole = np.concatenate([picture, gap, mean[place], gap, colours[place]], 1)
    return enlarge((whole.clip(0, 1) * 255).round().astype(np.uint8), WIDE)


def enlarge(picture: Picture, cell: int = CELL) -> Picture:
    times = max(1, cell // max(picture.shape[:2]))
    return picture.repeat(times, 0).repeat(times, 1)


def heat(panels: dict[str, Tensor]) -> Picture:
    """Tables (N, D) side by side on one colour scale, missing cells grey."""
    figure = _figure(3.2 * len(panels), 3.2)
    values = {name: x.detach().float().cpu().flatten(1).numpy() for name, x in panels.items()}
    limit = max(np.nanmax(np.abs(x), initial=1e-6) for x in values.values())
    for i, (name, x) in enumerate(values.items(), 1):
        axes = figure.add_subplot(1, len(values), i)
        axes.set_facecolor("0.6")
        axes.imshow(x, cmap="coolwarm", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("column", fontsize=8)
        axes.tick_params(labelsize=7)
    return _array(figure)


def profile(cells: Tensor, words: list[list[str]], rows: Sequence[str], columns: Sequence[str], title: str) -> Picture:
    """Deviations (K, D) of clusters by columns as colours, with a word in every cell where there is room for it."""
    values = cells.numpy()
    limit = max(np.nanmax(np.abs(values), initial=1e-6), 1.0)
    figure = _figure(min(24, 2.5 + 0.62 * len(columns)), min(24, 2.2 + 0.36 * len(rows)))
    axes = figure.add_subplot()
    axes.set_facecolor("0.6")
    shown = axes.imshow(values, cmap="coolwarm", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(columns)), [c[:24] for c in columns], rotation=90, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_title(title, fontsize=9)
    for i, line in enumerate(words if len(rows) <= LABELS else ()):
        for j, word in enumerate(line):
            shade = "white" if abs(values[i, j]) > 0.7 * limit else "black"
            word = word.replace(" %", "%").replace(" ", "\n")
            axes.text(j, i, word, ha="center", va="center", color=shade, fontsize=6)
    figure.colorbar(shown).ax.tick_params(labelsize=7)
    return _array(figure)


def confusion(predicted: Tensor, labels: Tensor, classes: Sequence[str], title: str) -> Picture:
    """Truth by prediction, each row as shares of its class; -1 is left out."""
    known = (labels >= 0) & (predicted >= 0)
    k = len(classes)
    cells = torch.bincount(labels[known] * k + predicted[known], minlength=k * k).view(k, k).double()
    share = (cells / cells.sum(1, keepdim=True).clamp_min(1)).numpy()
    side = min(12, max(4.5, 0.45 * k + 2))
    figure = _figure(side, side)
    axes = figure.add_subplot()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true", title=title)
    if k <= LABELS:
        names = [c[:12] for c in classes]
        axes.set_xticks(range(k), names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=8)
        axes.set_yticks(range(k), names, fontsize=8)
        for i, j in np.argwhere(share >= 0.005):
            shade = "white" if share[i, j] > 0.6 else "black"
            axes.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", color=shade, fontsize=7)
    return _array(figure)


def beliefs(
    shares: Tensor, prior: Tensor, confidence: Tensor, bins: tuple[Tensor, Tensor, Tensor], classes: Sequence[str]
) -> Picture:
    """Shares of guessed classes (K,) against the prior (K,), how sure guesses (N,) are, and accuracy by confidence.

    `bins` are rows, mean confidence and accuracy of bins of confidence. Without a guess the first two are left out.
    """
    count, confident, right = (x.numpy() for x in bins)
    panels = (2 if len(confidence) else 0) + (1 if count.sum() else 0)
    figure = _figure(4.2 * max(panels, 1), 3.2)
    if len(confidence):
        axes = figure.add_subplot(1, panels, 1)
        axes.bar(range(len(shares)), shares.numpy(), color="tab:blue", label="guessed")
        axes.step([i - 0.5 for i in range(len(prior) + 1)], [*prior.tolist(), float(prior[-1])], where="post",
                  color="black", lw=1, label="among the labels")  # fmt: skip
        if len(classes) <= LABELS:
            names = [c[:12] for c in classes]
            axes.set_xticks(range(len(classes)), names, rotation=90 if max(map(len, names)) > 2 else 0, fontsize=7)
        axes.set_ylim(top=1.25 * float(max(shares.max(), prior.max())))  # room for the legend
        axes.set_title("classes guessed of unlabelled samples", fontsize=9)
        axes.legend(fontsize=7)
        axes = figure.add_subplot(1, panels, 2)
        axes.hist(confidence.numpy(), bins=20, range=(0, 1), color="tab:blue")
        axes.set_title("confidence of these guesses", fontsize=9)
    if count.sum():
        axes = figure.add_subplot(1, panels, panels)
        there = count > 0
        error = (count * abs(confident - right)).sum() / count.sum()
        axes.plot([0, 1], [0, 1], color="0.7", lw=1)
        axes.scatter(confident[there], right[there], s=8 + 150 * count[there] / count.sum(), color="tab:blue")
        axes.set_title(f"validation: accuracy by confidence (error {error:.3f})", fontsize=9)
        axes.set(xlim=(0, 1.03), ylim=(0, 1.03))
    for axes in figure.axes:
        axes.tick_params(labelsize=7)
    return _array(figure)


def scatter(points: np.ndarray, labels: Tensor, classes: Sequence[str], title: str) -> Picture:
    """Points (N, 2), coloured by class; unlabelled ones (-1) grey."""
    return scatters(points, {title: (labels, classes)})


def scatters(
    points: np.ndarray,
    panels: dict[str, tuple[Tensor, Sequence[str]]],
    title: str = "",
    axes_names: Sequence[str] = ("", ""),
) -> Picture:
    """The same points (N, 2) side by side, coloured by class, -1 grey, or by numbers, which have no classes."""
    figure = _figure(6.4 * len(panels), 5.2)
    for i, (name, (values, classes)) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), i)
        y = values.numpy()
        if values.is_floating_point():
            shown = axes.scatter(*points.T, s=8, c=y, cmap="viridis")
            figure.colorbar(shown)
        elif len(classes) <= LABELS:
            axes.scatter(*points[y < 0].T, s=5, color="0.7", label="none" if (y < 0).any() and len(classes) else None)
            colours = _palette(len(classes))
            for c, word in enumerate(classes):
                axes.scatter(*points[y == c].T, s=8, color=colours[c], label=word[:16])
            if len(classes):
                axes.legend(fontsize=7, markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        else:
            axes.scatter(*points[y < 0].T, s=5, color="0.7")
            shown = axes.scatter(*points[y >= 0].T, s=8, c=y[y >= 0], cmap="turbo")
            figure.colorbar(shown)
        axes.set(xticks=[], yticks=[], title=name, xlabel=axes_names[0], ylabel=axes_names[1])
    figure.suptitle(title or None, fontsize=11)
    return _array(figure)


def curves(path: Path) -> Picture | None:
    """The scalars of a metrics.csv: one panel for each measure, training and validation in the same one."""
    lines: dict[str, dict[str, list[tuple[int, float]]]] = {}
    with open(path, newline="") as f:
        for row in csv.DictReader(f):
            phase, _, name = row["name"].partition("/")
            value = float(row["value"])
            if math.isfinite(value):
                lines.setdefault(name, {}).setdefault(phase, []).append((int(row["step"]), value))
    if not lines:
        return None
    first = ("loss", "accuracy", "knn_accuracy", "classify_accuracy", "lr", "effective_rank", "feature_std")
    order = {name: i for i, name in enumerate(first)}
    names = sorted(lines, key=lambda n: (order.get(n, len(order)), "/" not in n, n))[:PANELS]  # tasks before speed
    return _panels({name: lines[name] for name in names})


def panels(lines: dict[str, dict[float, float]]) -> Picture | None:
    """Curves {x: y}, each in a panel of its own name."""
    return _panels({name: {"": list(values.items())} for name, values in lines.items()}) if lines else None


def _panels(lines: dict[str, dict[str, list[tuple[float, float]]]]) -> Picture:
    columns = min(3, len(lines))
    figure = _figure(3.4 * columns, 2.4 * math.ceil(len(lines) / columns))
    for i, (name, phases) in enumerate(lines.items(), 1):
        axes = figure.add_subplot(math.ceil(len(lines) / columns), columns, i)
        for phase, values in phases.items():
            style = "o-" if len(values) < 30 else "-"
            axes.plot(*zip(*values, strict=True), style, ms=3, lw=1.2, label=phase)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if len(phases) > 1:
            axes.legend(fontsize=7)
    return _array(figure)


def _palette(n: int) -> Any:
    from matplotlib import colormaps

    return colormaps["tab10" if n <= 10 else "tab20"].colors


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=110, layout="constrained")


def _array(figure: Any) -> Picture:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
