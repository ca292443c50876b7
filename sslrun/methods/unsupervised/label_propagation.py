"""Label propagation: labelled rows stay, others are the mean of their neighbours (Zhu & Ghahramani 2002)."""

from __future__ import annotations

import numpy as np

from sslrun.nn.graph import Graph, Solution, propagate
from sslrun.nn.transductive import Transductive


class LabelPropagation(Transductive):
    """The values that F <- D^-1 W F ends in while labelled rows are clamped, solved for directly.

    Zhu and Ghahramani 2002, "Learning from labeled and unlabeled data with label propagation"; the harmonic function of
    Zhu, Ghahramani and Lafferty 2003.

    Args:
        k: neighbours of each row, before the graph is made symmetric.
        prior: the classes' expected shares: `labelled`, those of the labelled rows; or numbers; null: masses stay as
            they come.
        tol: largest relative residual of the solution.
    """

    def solve(self, graph: Graph, y: np.ndarray, known: np.ndarray) -> Solution:
        return propagate(graph, y, known, self.tol)
