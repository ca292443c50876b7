"""The training rows as features, for methods that start from many of them at once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import Encoder, UserError

SAMPLE = 20_000  # training rows that starts and scales are taken from


def encoded(encoder: Encoder, part: Any, rows: Tensor, device: torch.device | str = "cpu") -> Tensor:
    """Features of rows (N,) of a part, (N, D) float64, by the encoder in eval mode.

    Raises:
        UserError: some are not finite; says how many and where.
    """
    encoder.eval()
    found, infinite, at = [], [], 0
    with torch.no_grad():
        for some in rows.split(1024):
            x = part.inputs(some, device)
            if torch.is_tensor(x):  # NaN is a missing value, which encoders know of
                infinite.append(x.flatten(1).isinf().nonzero() + torch.tensor([at, 0], device=x.device))
            at += len(some)
            found.append(encoder(x).double())
    if infinite:
        _refuse(torch.cat(infinite), part.index[rows], "numbers")
    x = torch.cat(found)
    refuse_infinite(x, part.index[rows])
    return x


def refuse_infinite(x: Tensor, index: Tensor) -> None:
    """Raises UserError where features (N, D) are not finite: how many, and where; `index` (N,) names the rows."""
    if not bool(x.sum().isfinite()):
        _refuse((~x.isfinite()).nonzero(), index, "features")


def _refuse(places: Tensor, index: Tensor, what: str) -> None:
    """Says which of the rows (N,) have something that is not finite: `places` are rows and columns, (n, 2)."""
    if len(places):
        rows, columns = (values.unique().tolist() for values in places.T)
        raise UserError(
            f"{len(rows)} of {len(index)} samples have NaN or infinity among their {what}: the first is sample "
            f"{int(index[rows[0]])}, in {what} {', '.join(map(str, columns[:5]))}"
            f"{' and more' if len(columns) > 5 else ''}; mend the data, or the run that the encoder comes from."
        )


def refuse_more_clusters(x: Tensor, k: int, key: str) -> None:
    """Raises UserError where fewer rows (N, D) than k differ; `key` is what the user typed."""
    distinct = len(torch.unique(x, dim=0))
    if distinct < k:
        raise UserError(f"{key} is above the {distinct} distinct samples; use {distinct} or fewer.")


def range_of(value: Any, key: str) -> range:
    """The numbers of clusters from the first to the last of two, such as [2, 10].

    Raises:
        UserError: there is no number of 2 or more between them.
    """
    ends = list(value) if isinstance(value, list | tuple) else []
    if len(ends) != 2 or not all(isinstance(n, int) for n in ends) or not 2 <= ends[0] <= ends[1]:
        raise UserError(f"{key}={value} has no number of clusters in it; give the least and the most, such as [2, 10].")
    return range(ends[0], ends[1] + 1)
