"""Which number a run is judged by, and whether the method did harm by it."""

from __future__ import annotations

import math


def primary_of(results: dict[str, dict[str, float]], budgets: list[int]) -> str | None:
    """A classifier's accuracy; else a probe at the middle budget, since few labels are the point; else kNN.

    Of probes the last layer's counts, and that of the best layer where every layer was probed alone.
    """
    at = f"@{budgets[len(budgets) // 2]}" if budgets else ""
    probes = [f"linear{at}/accuracy", "linear/accuracy", f"layers{at}/best/accuracy", "layers/best/accuracy"]
    wanted = ("classify/accuracy", *probes, "knn/accuracy", "proxy/auroc", "cluster/nmi", "task/skill")
    judged = {k for s, found in results.items() if s.split(":")[0] in ("model", "trained") for k in found}
    better_high = sorted(k for k in judged if not k.endswith(("loss", "inertia")))
    return next((k for k in wanted if k in judged), next(iter(better_high), None))


def harm_of(results: dict[str, dict[str, float]], primary: str | None, labels: int | None, rows: int) -> bool | str:
    """Whether the method falls below the best row that needs no pretraining, by more than one seed's noise.

    A classifier is held against the linear probes with as many labels as it had, a fine-tuned copy against the network
    trained on the same labels from the start. `rows` is the number of test samples behind each number; where numbers
    come with an interval, half of the widest is the noise.
    """
    rivals = [primary]
    if primary == "classify/accuracy":
        rivals.append(f"linear@{labels}/accuracy" if labels else "linear/accuracy")
    elif primary and primary.startswith("finetune"):
        rivals.append(primary.replace("finetune", "classify", 1))
    by_subject = [(s.split(":")[0], found) for s, found in results.items()]
    own = [found[primary] for s, found in by_subject if s in ("model", "ema", "trained") and primary in found]
    others = [found[m] for s, found in by_subject if s in ("random", "raw", "supervised") for m in rivals if m in found]
    if not own or not others:
        return "unknown"
    best, gap = max(others), max(own) - max(others)
    low, high = f"{primary}_low", f"{primary}_high"
    widths = [found[high] - found[low] for _, found in by_subject if low in found]
    noise = max(widths) / 2 if widths else 2 * math.sqrt(max(best * (1 - best), 1e-4) / rows)
    return "unknown" if abs(gap) <= noise else gap < 0
