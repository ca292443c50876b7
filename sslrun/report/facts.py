"""What a reader needs to trust and repeat the numbers: protocols, versions, machines, commands."""

from __future__ import annotations

import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence

from sslrun.report.cells import protocol
from sslrun.report.collect import Run
from sslrun.report.compare import Comparison
from sslrun.report.measure import MEANING
from sslrun.report.words import order, word

SUBJECTS = {
    **MEANING,
    "ema": "the method's own predictions on test samples, by the averaged weights",
    "model": "the method's own predictions on test samples, by the last weights",
    "trained": "the trained encoder",
}


def protocols(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Data, metric, whose it is, and how it was measured, of each kind of number in the tables."""
    found: dict[tuple[str, str, str, str], None] = {}
    for grid in comparison.grids:
        for row in grid.rows:
            for shown in row.cells.values():
                for n in shown.numbers:
                    how = protocol(n)
                    split = "scored once on the test part, after training"
                    found[
                        n.run.data,
                        n.metric,
                        f"{n.subject}: {SUBJECTS.get(n.subject.split(':')[0], '')}",
                        "; ".join(t for t in (how, split) if t),
                    ] = None
    return sorted(found)


def rules(comparison: Comparison) -> list[str]:
    """How to read the tables, as far as they contain it."""
    rows = [r for g in comparison.grids for r in g.rows]
    shown = [c for r in rows for c in r.cells.values() if c.numbers]
    told = [
        "Mean ± sample standard deviation (n − 1) over seeds; accuracies in per cent.",
        "A method that predicts classes is judged by its own predictions, of the averaged weights (ema) where it keeps "
        "them; any other by a linear probe of its encoder on as many labels, and beside it by fine-tuning where it was "
        "fine-tuned. No rule looks at a test result.",
    ]
    if any(c.difference for c in shown):
        told.append(
            f"Differences are against {comparison.baseline}, paired by seed, with 95 % intervals by Student's t; "
            "seeds that one side lacks, or split otherwise, are left out."
        )
    told.append("Bold: the best of its column, where the paired interval against the runner-up excludes zero.")
    names = [s for s in MEANING if any(r.reference == s for r in rows)]
    if names:
        told.append(
            f"Harm: the interval against the best of {', '.join(names)} on the same seeds lies wholly below zero. "
            + "; ".join(f"{s}: {MEANING[s]}" for s in names)
            + ", measured inside the same runs."
        )
    return told


def machines(runs: Sequence[Run]) -> list[tuple[str, str, int]]:
    """Each version and machine-relevant setting, its values, and how many runs have them."""
    found: dict[str, Counter] = defaultdict(Counter)
    for run in runs:
        if run.scored:
            for name, version in (run.metrics.get("versions") or {}).items():
                found[name][str(version)] += 1
            for key in ("precision", "threads", "world"):
                found[{"world": "processes"}.get(key, key)][word(run.metrics.get(key))] += 1
    return [(name, value, n) for name, values in found.items() for value, n in sorted(values.items())]


def commands(comparison: Comparison) -> list[tuple[str, str]]:
    """Commands that repeat the runs, each with a remark; runs that differ in their seed alone share one."""
    sweeps = {str(s.path): s for s in comparison.found.sweeps if s.command}
    used = {run.sweep for run in comparison.runs}
    out = [(s.command, f"sweep {s.name}") for path, s in sweeps.items() if path in used]
    seeds: dict[tuple[tuple[str, ...], str], set[str]] = defaultdict(set)
    for run in comparison.runs:
        if run.sweep not in sweeps and run.status != "waiting":
            words, remark = _overrides(run), ""
            if words is None:
                words, remark = _rebuilt(run), "put together from its settings; config.yaml has all of them"
            plain = tuple(w for w in words if not re.match(r"\+*seed=", w))
            seeds[plain, remark] |= {w.partition("=")[2] for w in words if re.match(r"\+*seed=", w)}
    for (plain, remark), found in seeds.items():
        many = "-m " if len(found) > 1 else ""
        seed = f" seed={','.join(order(found))}" if found else ""
        out.append((f"sslrun {many}{shlex.join(plain)}{seed}".rstrip(), remark))
    return out


def _overrides(run: Run) -> list[str] | None:
    """What was typed, as Hydra wrote it down."""
    import yaml

    try:
        told = yaml.load(
            (run.path / ".hydra/overrides.yaml").read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (OSError, yaml.YAMLError):
        return None
    return [str(w) for w in told] if isinstance(told, list) else None


def _rebuilt(run: Run) -> list[str]:
    kept = ("labels", "epochs", "steps", "batch_size", "lr")
    method = run.method.split("+")
    words = [f"method={method[0] if len(method) == 1 else '[' + ','.join(method) + ']'}", f"data={run.data}"]
    words += [f"{k}={word(run.settings[k])}" for k in kept if run.settings.get(k) is not None]
    seed, split = run.seed
    return words + [f"seed={seed}"] + ([f"split_seed={split}"] if split not in (None, seed) else [])
