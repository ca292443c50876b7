"""What one step reads, before it is read."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import Tensor

VALIDATION = -1  # the epoch of plans that walk through a part in its own order


@dataclasses.dataclass
class Share:
    """This rank's positions of a stream, and where they stand in the global batch."""

    positions: Tensor
    total: int
    rows: slice
    ready: Any = None  # () -> samples that a worker has decoded meanwhile
    first: int | None = None  # where draws depend on the sample: the place of the first one in its part


@dataclasses.dataclass
class Plan:
    """What one step reads; a function of (seed, epoch, step) alone."""

    epoch: int
    step: int
    streams: dict[str, Share]
