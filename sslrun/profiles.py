"""What sets the clusters of a table apart: the size of each, and how far each of its columns lies from all rows'."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.catalogue import fitting, locate, methods
from sslrun.contracts import DataSpec, Field, UserError
from sslrun.evaluate.judge import Judge
from sslrun.evaluate.scores import guesses


@dataclass
class Profile:
    """The clusters that have rows, K of them, by the D columns of a table.

    `names` and `sizes` (K,) are the clusters' numbers and rows. `value` (K, D) is a column's mean in its own units, or
    the code of its most frequent category, whose share of the cluster is in `share` (K, D); NaN where there is none.
    `deviation` (K, D) is the distance of that mean, or share, from the one of all rows, in their standard deviations.
    """

    names: list[int]
    sizes: list[int]
    fields: tuple[Field, ...]
    value: Tensor
    share: Tensor
    deviation: Tensor

    def telling(self, cluster: int) -> list[int]:
        """The columns of the cluster in this place, those that set it apart most first."""
        return self.deviation[cluster].abs().nan_to_num(-1.0).argsort(descending=True, stable=True).tolist()

    def word(self, cluster: int, column: int) -> str:
        """A cell as a person reads it: `1,115`, `0.39` or `Paris 83 %`."""
        value = float(self.value[cluster, column])
        if math.isnan(value):
            return "-"
        if self.fields[column].kind == "categorical":
            return f"{self.fields[column].values[int(value) - 1]} {100 * float(self.share[cluster, column]):.0f} %"
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"

    def rows(self) -> Iterator[dict[str, Any]]:
        """A line for each cluster and column, as the CSV file has them."""
        for i, (name, size) in enumerate(zip(self.names, self.sizes, strict=True)):
            for j in self.telling(i):
                column, value = self.fields[j], float(self.value[i, j])
                category = column.kind == "categorical" and not math.isnan(value)
                yield {
                    "cluster": name,
                    "size": size,
                    "share_of_rows": _digits(size / sum(self.sizes)),
                    "column": column.name,
                    "value": column.values[int(value) - 1] if category else _digits(value),
                    "share_of_cluster": _digits(float(self.share[i, j])),
                    "deviation": _digits(float(self.deviation[i, j])),
                }


def profile(x: Tensor, groups: Tensor, fields: Sequence[Field]) -> Profile:
    """The profile of rows (N, D) in clusters (N,); -1, unknown, is in none. Missing cells do not count."""
    x, groups = x.double()[groups >= 0], groups[groups >= 0]
    names, groups, sizes = groups.unique(return_inverse=True, return_counts=True)
    member = F.one_hot(groups, len(names)).double()  # (N, K)
    value, share, deviation = (torch.full((len(names), len(fields)), torch.nan).double() for _ in range(3))
    for j, column in enumerate(fields):
        if column.kind == "categorical":
            cells, known = F.one_hot(x[:, j].long(), column.size)[:, 1:].double(), x[:, j] > 0
        else:
            cells, known = x[:, j : j + 1].nan_to_num(0.0), ~x[:, j].isnan()
        counts = member[known].sum(0)
        means = (member[known].T @ cells[known]) / counts.unsqueeze(1)  # (K, 1), or the share of each category
        mean, std = cells[known].mean(0), cells[known].std(0, correction=0)
        away = (means - mean) / torch.where(std > 1e-9 * (mean.abs() + 1), std, torch.inf)  # constant: nothing to tell
        best = means.argmax(1, keepdim=True)
        deviation[:, j] = away.gather(1, best).squeeze(1)
        top = means.gather(1, best).squeeze(1)
        if column.kind == "categorical":
            value[:, j] = torch.where(counts > 0, best.squeeze(1) + 1.0, torch.nan)
            share[:, j] = top
        else:
            value[:, j] = top
    return Profile(names.tolist(), sizes.tolist(), tuple(fields), value, share, deviation)


def profiles(objectives: Mapping[str, Any], encoder: Any, judge: Judge) -> dict[str, Profile]:
    """The profile of each method that makes clusters, of all rows of a table: every part of it has been opened."""
    clustering = {n: o for n, o in objectives.items() if o.predict is not None and o.predicts == "cluster"}
    if judge.spec.modality != "table" or not clustering:
        return {}
    parts = [part for part in judge.parts.values() if part is not None]
    x = torch.cat([part.inputs(torch.arange(len(part))) for part in parts]) * judge.spec.scale
    found = {}
    for name, objective in clustering.items():
        p = [judge.probabilities(lambda x, predict=objective.predict: predict(encoder, x), part) for part in parts]
        found[name] = profile(x, guesses(torch.cat(p)), judge.spec.fields)
    return found


def refuse_profile(spec: DataSpec, objectives: Mapping[str, Any]) -> None:
    """Says before training that there would be no clusters of a table, where a profile of them is asked for.

    Raises:
        UserError: the data are no table, or no method makes clusters.
    """
    if spec.modality != "table":
        raise UserError(
            f"profile=true (as in experiment=customer_segments) describes clusters by the columns of a table, and "
            f"data={spec.name} is {spec.modality} data; use data=csv data.path=table.csv, or data=wine."
        )
    if not any(o.predicts == "cluster" for o in objectives.values()):
        names = "+".join(objectives) or "none"
        able = [n for n in fitting("table") if locate(methods()[n]["_target_"]).predicts == "cluster"]
        raise UserError(
            f"profile=true (as in experiment=customer_segments) describes clusters, and method={names} makes none; "
            f"these do: {', '.join(able)}."
        )


def _digits(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
