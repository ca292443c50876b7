"""What a person reads on the terminal: what is about to run, and what came out of it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sslrun.multitask import settled
from sslrun.progress import duration
from sslrun.verdict import BEST, MEDIAN

DETAIL = re.compile(
    r"balanced_accuracy|macro_f1|/stage\d+/|inertia|silhouette|_auroc|auroc_|graph\S*/(transductive|unreached)"
)  # left to metrics.json
ROWS = ("trained", "random", "raw", "supervised", "isolation_forest", "lof", "model", "ema", "trivial")
MEANING = {
    "trained": "the trained encoder",
    "random": "the same encoder, untrained",
    "raw": "the inputs themselves",
    "supervised": "the same network, labels only",
    "isolation_forest": "isolation forest of the inputs",
    "lof": "local outlier factor of the inputs",
    "model": "the method's own predictions",
    "ema": "the same, averaged weights",
    "trivial": "no learning",
}
FEW = 30  # labelled test samples below which two good methods can hardly be told apart
TELLING, CLUSTERS = 3, 12  # columns of a cluster, and clusters, that the terminal shows
CHOSEN = {MEDIAN: "median of the last 20 evaluations", BEST: "at the best step on validation labels"}


def console() -> Console:
    wide = None if sys.stdout.isatty() else 160
    return Console(width=wide, highlight=False)


def show(experiment: Any, forecast: tuple[float, float] | None = None) -> None:
    """A few lines before training: data, encoder, what is trained for how long, and where the folder is.

    `forecast` is the time of training in seconds and its memory in bytes.
    """
    data, built, device, out = experiment.built.data, experiment.built, experiment.device, console()
    sizes = {"train": data.train, "validation": data.val, "test": data.open_test()}
    parts = ", ".join(f"{len(p):,} {name}" for name, p in sizes.items() if p is not None)
    labels = f"{data.spec.num_classes} classes" if data.spec.num_classes else "no labels"
    if len(data.labelled) < len(data.train) and data.spec.num_classes:
        labels += f", {len(data.labelled):,} labels shown"
    parameters = sum(p.numel() for p in built.encoder.parameters())
    shape = " x ".join(map(str, data.spec.shape))
    out.print(f"data     {data.name}: {shape}, {parts}; {labels}")
    for note in [*data.notes, *_few(sizes["test"], data.spec.num_classes)]:
        out.print(f"         {note}")
    name = built.encoder_config["_target_"].rpartition(".")[2]
    out.print(f"encoder  {name}, {parameters / 1e6:.2f} M parameters, {built.encoder.dim} features")
    if experiment.plan is not None:
        trains = any(o.trains for o in built.objectives.values())
        rate = f", learning rate {experiment.lr:.2g}" if trains else ""
        where = f"{device.world} x {device.accelerator}" if device.world > 1 else device.accelerator
        out.print(
            f"train    {' + '.join(built.objectives)}: {experiment.plan.steps:,} steps{rate}, "
            f"{device.precision} on {where}"
        )
        differing = settled(experiment.plain)
        if differing:
            out.print(f"         {'; '.join(differing)}", markup=False)
        if forecast is not None:
            out.print(
                f"         about {duration(forecast[0])} of training, "
                f"{forecast[1] / 1e9:.2g} GB of memory beside the data"
            )
    out.print(f"folder   {short(experiment.folder.path)} (views in figures/views.png)")


def _few(test: Any, classes: int) -> list[str]:
    """A word where the test part has so few labels that it can hardly tell methods apart."""
    known = int((test.labels >= 0).sum()) if test is not None and classes else FEW
    return [f"only {known} test samples have labels, too few to tell methods apart"] if 0 < known < FEW else []


def short(path: Path) -> str:
    """A path as it is typed here: relative where it is below the working directory."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def table(metrics: dict[str, Any], folder: Any) -> None:
    """Subjects by metrics, in per cent; the primary metric is marked."""
    results, out = metrics["results"], console()
    subjects = [s for s in results if s.split(":")[0] in ROWS]
    columns = [c for c in _columns(results) if any(c in results[s] for s in subjects)]
    columns = columns or sorted({c for s in subjects for c in results[s] if c.endswith("/silhouette")})
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column("", no_wrap=True)
    for column in columns:
        name = column.removesuffix("/accuracy").removesuffix("_accuracy").replace("/", " ")
        grid.add_column(name + (" *" if column == metrics["primary"] else ""), justify="right")
    grid.add_column("", no_wrap=True)
    for subject in sorted(subjects, key=lambda s: ROWS.index(s.split(":")[0])):
        cells = [_cell(column, results[subject]) for column in columns]
        grid.add_row(subject, *cells, _meaning(subject, metrics), style="bold" if subject == "trained" else None)
    out.print()
    if columns:
        out.print(grid)
    verdict = {
        True: "it is below the best row without pretraining: no gain here",
        False: "it beats every row without pretraining",
        None: "no other row has it",
    }.get(metrics["harm"], "one seed cannot tell whether it helped")
    if (metrics["primary"] or "").endswith("silhouette"):
        verdict = (
            "how well clusters are apart, each row's own in its own features; no label says whether they are right"
        )
    if metrics["primary"]:
        out.print(f"\n* primary, on test samples: {verdict}")
    for remark in metrics["remarks"]:
        out.print(f"note: {remark}", markup=False)
    seen = " (segments in figures/segments.png)" if (folder / "figures/segments.png").exists() else ""
    speed = f", {metrics['samples_per_s']:,.0f} samples/s" if metrics["samples_per_s"] else ""
    out.print(f"{metrics['status']} after {metrics['wall_s']:.0f} s{speed}; results in {short(folder.path)}{seen}")


def profile(name: str, found: Any) -> None:
    """A few lines about each cluster of a method: its size and the columns that set it apart most."""
    grid = Table(box=None, pad_edge=False, header_style="bold")
    grid.add_column(f"{name} cluster", justify="right")
    grid.add_column("rows", justify="right")
    grid.add_column("", justify="right")
    for i in range(TELLING):
        grid.add_column("what sets it apart" * (i == 0))
    largest = sorted(range(len(found.names)), key=lambda i: -found.sizes[i])[:CLUSTERS]
    for i in sorted(largest):
        share = f"{100 * found.sizes[i] / sum(found.sizes):.0f} %"
        told = [(found.fields[j].name, found.word(i, j), found.deviation[i, j]) for j in found.telling(i)]
        cells = [escape(f"{column} {word} ({away:+.1f})") for column, word, away in told if abs(away) >= 0.05][:TELLING]
        grid.add_row(str(found.names[i]), f"{found.sizes[i]:,}", share, *cells)
    out = console()
    out.print()
    out.print(grid)
    rest = len(found.names) - len(largest)
    more = f", {rest} smaller clusters" if rest else ""
    out.print(
        f"in brackets: standard deviations from the mean of all rows; every column{more}: profile_{name}.csv, "
        f"figures/profile_{name}.png"
    )


def _columns(results: dict[str, dict[str, float]]) -> list[str]:
    """Accuracies first, in the order evaluators gave them; variants of the same number stay in metrics.json."""
    found: list[str] = []
    for subject, metrics in results.items():
        if subject == "supervised" and found:
            metrics = {k: v for k, v in metrics.items() if k in found}  # its own heads stay in metrics.json
        found += [k for k in metrics if k not in found and not DETAIL.search(k)]
    kinds = (
        "classify",
        "knn",
        "linear",
        "layers",
        "finetune",
        "graph",
        "proxy",
        "anomaly",
        "cluster",
        "mixture",
        "task",
    )
    order = {k: i for i, k in enumerate(kinds)}
    return sorted(found, key=lambda k: order.get(k.split("/")[0].split("@")[0], len(kinds)))


def _cell(column: str, found: dict[str, float]) -> str:
    value = found.get(column)
    if value is None:
        return "-"
    ends = [found.get(f"{column}_{end}") for end in ("low", "high")]
    between = f" [{ends[0]:.2f}, {ends[1]:.2f}]" if None not in ends else ""
    plain = column.endswith(("loss", "inertia", "skill", "silhouette", "nmi", "ari", "auroc", "average_precision"))
    return (f"{value:.3f}" if plain else f"{100 * value:.1f}") + between


def _meaning(subject: str, metrics: dict[str, Any]) -> str:
    """What a row is, and which score it is where the best of several was chosen."""
    kind, found = subject.split(":")[0], metrics["results"][subject]
    how = metrics["protocol"].get("proxy", {}).get("subjects", {}).get(subject, {})
    if kind == "raw" and "scores" in how:
        return f"{MEANING[kind]}: {how['score']}, the best naive score on validation"
    if kind == "raw" and "anomaly/auroc" in found:
        return f"{MEANING[kind]}: distance to the mean"
    if any(k.startswith(("proxy", "anomaly")) for k in found):
        rest = any(k.startswith(("classify", "cluster", "knn", "linear", "layers")) for k in found)
        own = {"random": "the same, untrained", "model": f"the method's own score{' and predictions' * rest}"}
        return own.get(kind, MEANING[kind])
    return next((meaning for suffix, meaning in CHOSEN.items() if subject.endswith(suffix)), MEANING[kind])
