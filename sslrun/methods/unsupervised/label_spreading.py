"""Label spreading: labels spread over a normalised graph, and those that were given may yield (Zhou et al. 2004)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.graph import Graph, Solution, spread
from sslrun.nn.transductive import Transductive


class LabelSpreading(Transductive):
    """The values that F <- a D^-1/2 W D^-1/2 F + (1 - a) Y ends in, solved for directly.

    Zhou, Bousquet, Lal, Weston and Schoelkopf 2004, "Learning with local and global consistency".

    Args:
        k: neighbours of each row, before the graph is made symmetric.
        alpha: how much a row believes its neighbours rather than its own label, in (0, 1).
        prior: the classes' expected shares: `labelled`, those of the labelled rows; or numbers; null: masses stay as
            they come.
        tol: largest relative residual of the solution.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        k: int = 7,
        alpha: float = 0.99,
        prior: str | Sequence[float] | None = "labelled",
        tol: float = 1e-10,
    ):
        super().__init__(encoder, spec, k, prior, tol)
        if not 0 < alpha < 1:
            raise ValueError(f"alpha={alpha} must lie between 0 and 1, for example 0.99")
        self.alpha = alpha

    def solve(self, graph: Graph, y: np.ndarray, known: np.ndarray) -> Solution:
        return spread(graph, y, self.alpha, self.tol)
