"""Named parts and nested label budgets that depend on (data, split seed, row) and on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np


def order(data: str, seed: int, rows: Sequence[int], purpose: str = "split") -> np.ndarray:
    """`rows` sorted by SHA-256 of (data, seed, purpose, row): the same on every machine and for every caller."""
    head = f"{data}|{seed}|{purpose}|".encode()
    digests = [hashlib.sha256(head + str(int(row)).encode()).digest() for row in rows]
    return np.asarray(rows, dtype=np.int64)[sorted(range(len(digests)), key=digests.__getitem__)]


def cut(data: str, seed: int, labels: np.ndarray, rows: np.ndarray, fraction: float, purpose: str, groups=None):
    """Cuts a share of `rows` off and returns (kept, cut), both ascending.

    Each class gives its share (at least one row of a class that has two); unlabelled rows are never cut, since they
    could not be scored, unless nothing is labelled. With `groups` (one name per row of the part), whole groups are
    taken until the share is reached.
    """
    if groups is not None:
        names = np.asarray(groups)[rows]
        taken: list[np.ndarray] = []
        keys = sorted(set(names.tolist()))
        for i in order(data, seed, range(len(keys)), purpose + "-groups"):
            member = rows[names == keys[i]]
            if sum(map(len, taken)) + len(member) / 2 <= fraction * len(rows) or not taken:
                taken.append(member)
        chosen = np.concatenate(taken)
    else:
        y = labels[rows]
        parts = []
        classes = [c for c in np.unique(y) if c >= 0] or [-1]
        for c in classes:
            member = order(data, seed, rows[y == c], purpose)
            count = round(fraction * len(member))
            parts.append(member[: min(max(count, 1 if fraction > 0 else 0), len(member) - 1)])
        chosen = np.concatenate(parts)
    return np.setdiff1d(rows, chosen), np.sort(chosen)


def label_sequence(data: str, seed: int, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Labelled rows in the order in which budgets take them: the first n are the budget of n labels.

    Classes take turns, so each prefix is as balanced as the classes allow, and every budget contains the smaller ones.
    """
    y = labels[rows]
    queues = [list(order(data, seed, rows[y == c], "labels")) for c in np.unique(y[y >= 0])]
    sequence, turn = [], 0
    while any(queues):
        for i in order(data, seed + turn, range(len(queues)), "turn"):
            if queues[i]:
                sequence.append(queues[i].pop(0))
        turn += 1
    return np.asarray(sequence, dtype=np.int64)


def digest(rows: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows, dtype="<i8").tobytes()).hexdigest()[:16]
