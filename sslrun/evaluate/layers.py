"""Linear probes of every stage of the encoder: the last layer knows the pretext task best, and is not always best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate.linear import STRENGTHS, parts, probe


def layers(
    train: Split, val: Split | None, test: Split, spec: DataSpec, *, strengths: Sequence[float] = STRENGTHS
) -> dict[str, Any]:
    """Test scores of a linear probe on each stage (`stage1`, ...) and on the best one (`best`).

    The best stage is the one whose probe did best where its own strength was chosen: on validation with all labels,
    by cross-validation inside a budget. Of equal ones, and where nothing can be chosen, the last counts.
    """
    found: dict[str, Any] = {"protocol": {}}
    for prefix, rows in parts(train, spec):
        names = [f"stage{i}" for i in range(1, len(test.stages) + 1)]
        values, protocol = {}, {}
        for i, name in enumerate(names):
            at = [split and replace(split, features=split.stages[i]) for split in (train, val, test)]
            at[1] = at[1] if prefix == "" else None
            values[name], protocol[name] = probe(*at, spec, rows, strengths)
        best = max(reversed(names), key=lambda name: protocol[name]["selected_score"] or ())
        values["best"] = values[best]
        protocol["best"] = {"stage": best, "selected_on": protocol[best]["selected_on"]}
        for name, results in values.items():
            found |= {f"{prefix}/{name}/{metric}".removeprefix("/"): value for metric, value in results.items()}
        found["protocol"][prefix] = protocol
    return found if len(found) > 1 else {}


layers.needs = ("stages",)
