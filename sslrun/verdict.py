"""Which number a run is judged by, and whether the method did harm by it."""

from __future__ import annotations

import math

JUDGED = ("ema", "model", "trained")  # what a method is judged by: the first that has the number, whichever is better
MEDIAN, BEST = ":median20", ":best"  # subjects told by another step than the last, which is the plain one


def primary_of(results: dict[str, dict[str, float]], budgets: list[int]) -> str | None:
    """A classifier's accuracy; else a probe at the middle budget, since few labels are the point; else kNN.

    Of probes the last layer's counts, and that of the best layer where every layer was probed alone.
    """
    at = f"@{budgets[len(budgets) // 2]}" if budgets else ""
    probes = [f"linear{at}/accuracy", "linear/accuracy", f"layers{at}/best/accuracy", "layers/best/accuracy"]
    wanted = (
        "classify/accuracy",
        *probes,
        "knn/accuracy",
        "proxy/auroc",
        "anomaly/auroc",
        "cluster/nmi",
        "mixture/nmi",
        "task/skill",
    )
    judged = {k for s, found in results.items() if s.split(":")[0] in ("model", "trained") and last(s) for k in found}
    better_high = sorted(k for k in judged if not k.endswith(("loss", "inertia")))
    return next((k for k in wanted if k in judged), next(iter(better_high), None))


def harm_of(
    results: dict[str, dict[str, float]], primary: str | None, labels: int | None, rows: int
) -> bool | str | None:
    """Whether the method falls below the best row that needs no pretraining, by more than one seed's noise.

    None where no other row has such a number. A classifier is judged by its averaged weights where it keeps them, which
    are what it hands on, and held against the linear probes with as many labels as it had; a fine-tuned copy against
    the network trained on the same labels from the start. `rows` is the number of test samples behind each number;
    where numbers come with intervals, half of the wider of the two is the noise.
    """
    rivals = [primary]
    if primary == "classify/accuracy":
        rivals.append(f"linear@{labels}/accuracy" if labels else "linear/accuracy")
    elif primary and primary.startswith("finetune"):
        rivals.append(primary.replace("finetune", "classify", 1))
    by_subject = [(s.split(":")[0], found) for s, found in results.items() if last(s)]
    own = [(found[primary], found) for kind in JUDGED for s, found in by_subject if s == kind and primary in found]
    others = [
        (found[m], found)
        for s, found in by_subject
        if s in ("random", "raw", "supervised")
        for m in rivals
        if m in found
    ]
    if not own or not others or not rows:
        return None
    (ours, mine), (best, theirs) = own[0], max(others, key=lambda pair: pair[0])
    noise = 2 * math.sqrt((_spread(ours, rows) + _spread(best, rows)) / rows)
    if f"{primary}_low" in mine.keys() & theirs.keys():
        noise = max(found[f"{primary}_high"] - found[f"{primary}_low"] for found in (mine, theirs)) / 2
    return "unknown" if abs(ours - best) <= noise else ours < best


def _spread(rate: float, rows: int) -> float:
    """The variance of one sample behind a rate of so many, taken two hits and two misses nearer to one half.

    Agresti and Coull 1998: without these, a rate of 0 or 1 would have no noise.
    """
    share = (min(max(rate, 0.0), 1.0) * rows + 2) / (rows + 4)
    return share * (1 - share)


def last(subject: str) -> bool:
    """Whether it is told by the last step of training: the only one that no result has chosen."""
    return not subject.endswith((MEDIAN, BEST))
