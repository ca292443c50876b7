"""A case of a method's loss worked out by hand: data that a method's file holds, and `sslrun check` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sslrun.contracts import Batch, Objective

Rows = tuple[tuple[float, ...], ...]  # (B, K)


@dataclass(frozen=True)
class Example:
    """What a network answers for a small batch, and what the paper makes of it.

    Args:
        title: what the paper has, in one sentence.
        streams: of each stream its views, each with the class probabilities (B, K), above 0, that the network answers
            there; beside them `y`, and `index` where the rows are not the first ones of the data.
        expected: values of what `forward` returns, computed by hand from the paper's formula.
        learns: the rows of each `stream.view` that the gradient of `term` reaches; it reaches no others.
        settings: arguments of the constructor.
        term: the entry of what `forward` returns whose gradient `learns` tells of.
        earlier: batches, like `streams`, that the method has seen before.
        done: share of training that is over.
        averaged: what averaged copies of the network multiply their logits by, to tell them from the network.
        rule: what numbers cannot say: a function of the objective and the batch that returns a complaint, or None.
    """

    title: str
    streams: Mapping[str, Mapping[str, Any]]
    expected: Mapping[str, float] = field(default_factory=dict)
    learns: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    term: str = "loss_unlabelled"
    earlier: tuple[Mapping[str, Mapping[str, Any]], ...] = ()
    done: float = 1.0
    averaged: float = 1.0
    rule: Callable[[Objective, Batch], str | None] | None = None
