"""Fine-tuning: a copy of the encoder is trained on, with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Split
from sslrun.evaluate.linear import parts
from sslrun.evaluate.scores import scores


def finetune(
    train: Split,
    val: Split | None,
    test: Split,
    spec: DataSpec,
    *,
    tune: Callable[[int | None], Tensor],
    budgets: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Test scores of copies of the encoder trained on all labels and on each of `budgets` (all that train has: None).

    `tune(n)` trains a copy on n labels (all: None) and returns probabilities (N, K) for the test rows, in their order;
    a row of zeros means unknown, and is wrong.
    """
    found: dict[str, Any] = {"protocol": {}}
    for prefix, rows in parts(train, spec):
        n = int(prefix[1:]) if prefix else None
        if n is not None and budgets is not None and n not in budgets:
            continue
        share = tune(n).cpu()  # (N, K)
        predicted = torch.where(share.sum(1) > 0, share.argmax(1), -1)
        values = scores(predicted, test.labels.cpu(), spec.num_classes)
        found |= {f"{prefix}/{name}".removeprefix("/"): value for name, value in values.items()}
        labels = train.labels if rows is None else train.labels[rows]
        found["protocol"][prefix] = {"rows": int((labels >= 0).sum()), "trained": "a copy of the encoder and a head"}
    return found if len(found) > 1 else {}


finetune.needs = ("tune",)
