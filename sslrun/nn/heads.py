"""Heads that several methods put on an encoder."""

from __future__ import annotations

from torch import nn


def mlp_head(
    dim_in: int, hidden: int, dim_out: int, layers: int = 2, batch_norm: bool = True, last_norm: bool = False
) -> nn.Sequential:
    """A perceptron (B, dim_in) -> (B, dim_out) of `layers` linear layers with ReLU between them.

    `batch_norm` normalises the hidden layers; `last_norm` the output, without scale and shift, as in SimSiam (Chen and
    He 2021). One layer is linear and has no hidden part.
    """
    parts: list[nn.Module] = []
    for _ in range(layers - 1):
        parts.append(nn.Linear(dim_in, hidden, bias=not batch_norm))
        parts += [nn.BatchNorm1d(hidden)] if batch_norm else []
        parts.append(nn.ReLU(inplace=True))
        dim_in = hidden
    parts.append(nn.Linear(dim_in, dim_out, bias=not last_norm))
    parts += [nn.BatchNorm1d(dim_out, affine=False)] if last_norm else []
    return nn.Sequential(*parts)
