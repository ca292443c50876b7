"""The report as one HTML file that needs nothing else: styles, script and pictures are inside."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path

from sslrun import __version__
from sslrun.report import facts, lines
from sslrun.report.axes import Entry
from sslrun.report.collect import Run
from sslrun.report.compare import Comparison, described, versus
from sslrun.report.grid import Grid, Row, Shown
from sslrun.report.words import listed, measure, number

HERE = Path(__file__).parent


def page(comparison: Comparison, title: str, pictures: dict[str, tuple[str, bytes]]) -> str:
    """The whole page; every word that a user chose is escaped."""
    parts = [
        f"<header><h1>{escape(title)}</h1><p>{_summary(comparison)}</p></header>",
        '<p class="filter"><label>Show rows with <input id="filter" type="search" autocomplete="off" '
        'placeholder="a method, a status, …"></label> <span id="count" role="status"></span></p>',
        _section("Comparison", _grids(comparison) + _list(facts.rules(comparison))),
        _section("Remarks", _list(comparison.notes)) if comparison.notes else "",
        *(_figure(name, caption, png) for name, (caption, png) in pictures.items()),
        _section("Runs", _runs(comparison)),
        _section("Protocol of each number", _table(("data", "metric", "of", "how"), facts.protocols(comparison))),
        _section("Versions and machines", _table(("", "value", "runs"), facts.machines(comparison.runs))),
        _section("Commands that repeat it", _commands(comparison)),
    ]
    if comparison.found.damaged:
        text = "<p>These folders could not be read, and no number above is theirs.</p>"
        parts.append(_section("Damaged folders", text + _table(("folder", "why"), comparison.found.damaged)))
    style, script = (HERE / "page.css").read_text(), (HERE / "page.js").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>\n{style}</style></head>\n<body><main>\n"
        + "\n".join(p for p in parts if p)
        + f"\n</main><script>\n{script}</script></body></html>\n"
    )


def _summary(comparison: Comparison) -> str:
    seeds = sorted({str(run.seed[0]) for run in comparison.runs if run.scored}, key=lambda s: (len(s), s))
    unread = len(comparison.found.damaged)
    counts = comparison.statuses | ({"unreadable": unread} if unread else {})
    told = [f"{len(comparison.runs) + unread} runs ({escape(listed(counts))})"]
    if seeds:
        told.append(
            f"seed{'s' if len(seeds) > 1 else ''} {escape(', '.join(seeds[:12]))}{' …' if len(seeds) > 12 else ''}"
        )
    told.append(escape(described(comparison)))
    if comparison.baseline:
        told.append(f"differences against <strong>{escape(versus(comparison))}</strong>")
    written = datetime.now().astimezone().isoformat(" ", "minutes")
    return "; ".join(told) + f". Written {written} by sslrun {escape(__version__)}."


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _grids(comparison: Comparison) -> str:
    out = []
    for grid in comparison.grids:
        heads = lines.heads(comparison, grid)
        first = ", ".join(comparison.rows) or "runs"
        body = "".join(
            ('<tr class="reference">' if row.reference else "<tr>")
            + _name(row)
            + "".join(_cell(grid, row, column) for column in grid.columns)
            + "</tr>"
            for row in grid.rows
        )
        title = f"<h3>{escape(grid.title)}</h3>" if grid.title else ""
        out.append(title + _sortable([first, *heads], body, grid.title or "Comparison", "cells"))
    return "".join(out)


def _name(row: Row) -> str:
    note = f'<span class="small">{escape(row.note)}</span>' if row.note else ""
    return f'<th scope="row" data-value="{escape(lines.name(row))}">{escape(lines.name(row))}{note}</th>'


def _cell(grid: Grid, row: Row, column: tuple[str, ...]) -> str:
    shown = row.cells.get(column)
    if shown is None or not shown.numbers:
        return f'<td class="missing">{escape(lines.value(shown) if shown else "–")}</td>'
    value = f"<strong>{lines.value(shown)}</strong>" if shown.best else lines.value(shown)
    out = [f'<span class="value">{value}</span>']
    if len(lines.kinds_of(grid, column)) > 1:
        out.append(f'<span class="small">{escape(measure(shown.kind))}</span>')
    if shown.difference:
        out.append(f'<span class="small">{escape(lines.difference(shown))}</span>')
    out.append(f'<span class="small">n = {shown.n}</span>')
    out += [
        f'<span class="{"harm" if f.startswith("harm") else "flag"}">{escape(f)}</span>' for f in lines.flags(shown)
    ]
    return f'<td data-value="{shown.mean!r}" title="{escape(_each(shown))}">{"".join(out)}</td>'


def _each(shown: Shown) -> str:
    """Every seed's value, for a pointer that rests there."""
    told = [f"seed {seed}: {number(v, shown.metric)}" for (seed, *_), v in shown.values.items()]
    return f"{shown.numbers[0].subject} {shown.metric}; {', '.join(told[:20])}"


def _sortable(heads: Sequence[str], body: str, label: str, kind: str = "") -> str:
    cells = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(head) or "&nbsp;"}</button></th>'
        for head in heads
    )
    return (
        f'<div class="scroll {kind}" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<table class="sortable"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def _runs(comparison: Comparison) -> str:
    keys = [k for k in comparison.axes if k not in ("method", "data", "labels", "seed")]
    heads = [
        "run",
        "status",
        "method",
        "data",
        "labels",
        "seed",
        *keys,
        "primary",
        "value",
        "harm",
        "training (s)",
        "samples/s",
    ]
    body = "".join(f"<tr>{_run(run, keys)}</tr>" for run in comparison.runs)
    return _sortable(heads, body, "Runs", "tall")


def _run(run: Run, keys: Sequence[str]) -> str:
    m, at = run.metrics, Entry(run, run.cells[0] if run.cells else {})
    status = run.status + (f": {run.reason}" if run.reason else "")
    primary = m.get("primary") or ""
    found = next((found[primary] for _, found in run.results("ema", "model", "trained") if primary in found), None)
    numbers = [
        (found, "" if found is None else number(found, primary)),
        (None, str(m.get("harm", ""))),
        *((v, "" if v is None else f"{v:,.1f}") for v in (m.get("training_s"), m.get("samples_per_s"))),
    ]
    labels = m.get("labels", run.settings.get("labels"))
    plain = [status, at.value("method"), at.value("data"), "" if labels is None else str(labels), str(run.seed[0])]
    cells = [f'<th scope="row">{escape(run.name)}</th>']
    cells += [f"<td>{escape(text)}</td>" for text in (*plain, *(at.value(k) for k in keys), primary)]
    cells += [f'<td data-value="{"" if v is None else repr(v)}">{escape(text)}</td>' for v, text in numbers]
    return "".join(cells)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{escape(str(c))}</td>" for c in row) + "</tr>" for row in rows)
    return _sortable(heads, body, heads[-1], "told")


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def _commands(comparison: Comparison) -> str:
    found = facts.commands(comparison)
    text = "\n".join(command + (f"  # {remark}" if remark else "") for command, remark in found)
    return f'<pre tabindex="0">{escape(text)}</pre>'


def _figure(name: str, caption: str, png: bytes) -> str:
    source = base64.b64encode(png).decode()
    title = {"tsne": "t-SNE"}.get(name, name.replace("_", " ").capitalize())
    picture = f'<img src="data:image/png;base64,{source}" alt="{escape(caption)}">'
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{title}">{picture}</div>'
    return _section(title, f"<figure>{scroll}<figcaption>{escape(caption)}</figcaption></figure>")
