"""A graph of nearest neighbours, and labels that spread over its edges."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import csgraph
from torch import Tensor

from sslrun.contracts import UserError
from sslrun.nn.gather import gather, rank, world

CELLS = 2**24  # distances in memory at a time
GROUP = 32  # columns that a first look at the distances takes together
SPARE = 8  # neighbours more than asked for that rough distances name, and exact ones choose among
FAINT = 1e-12  # least weight of an edge: the farthest outlier still hangs on its nearest rows
ROUNDING = 2.0**-19  # of a product in float32, as a share of the lengths in it
MOST = 10_000  # iterations of a solver


@dataclass
class Graph:
    """A symmetric graph without self-loops: weights (N, N) in float64, and the squared distance that they scale by."""

    weights: sparse.csr_matrix
    scale: float

    def components(self) -> tuple[int, np.ndarray]:
        """How many parts are not connected with each other, and the part of each row (N,)."""
        return csgraph.connected_components(self.weights, directed=False)


@dataclass
class Solution:
    """Values (N, K) of a linear system, how many iterations they took, and the largest relative residual left."""

    values: np.ndarray
    iterations: int
    residual: float


def knn_graph(x: Tensor, k: int) -> Graph:
    """The symmetric k-nearest-neighbour graph of rows x (N, D), by W = max(W, W^T).

    An edge weighs exp(-d^2 / s), where s is the mean squared distance of a row to its k-th neighbour. All processes
    share the search and get the same graph.
    """
    blocks = torch.arange(len(x), device=x.device).split(_rows_at_once(len(x)))
    share = -(-len(blocks) // world())
    mine = blocks[rank() * share : (rank() + 1) * share]  # whole blocks, so that rounding is that of one process
    rows = torch.cat([x.new_zeros(0, dtype=torch.long), *mine])
    distance, neighbour = (gather(found) for found in nearest(x, k, rows=rows))  # (N, k) each
    scale = float(distance[:, -1].mean()) or 1.0
    weight = kernel(distance, scale).flatten().cpu().numpy()
    start = np.repeat(np.arange(len(x)), k)
    directed = sparse.csr_matrix((weight, (start, neighbour.flatten().cpu().numpy())), shape=(len(x), len(x)))
    return Graph(directed.maximum(directed.T).tocsr(), scale)


def kernel(distance: Tensor, scale: float | Tensor) -> Tensor:
    """Weights of squared distances, in (0, 1]."""
    return (-distance / scale).exp().clamp_min(FAINT)


def nearest(bank: Tensor, k: int, x: Tensor | None = None, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest in bank (M, D) of each of x (N, D), or of the bank's own `rows` (N,), which are not their own.

    Squared distances in float64 and places, (N, k) each, of equally near rows the first in the bank. Exact: a matrix
    product in float32 names a few candidates more than asked for, and differences in float64 decide among these, or
    among all where rounding leaves open whether one was missed.
    """
    few = min(k + SPARE, len(bank) - (rows is not None))
    middle = bank.mean(0, dtype=torch.float64).to(bank.dtype)
    centred = (bank - middle).float()  # or the product would lose the digits that tell rows apart
    length = centred.square().sum(1)
    places = torch.arange(len(x), device=bank.device) if rows is None else rows
    distances, neighbours = bank.new_zeros(len(places), k, dtype=torch.float64), places.new_zeros(len(places), k)
    for block in torch.arange(len(places), device=bank.device).split(_rows_at_once(len(bank))):
        part = places[block]
        asked = bank[part] if x is None else x[part]
        moved = (asked - middle).float()
        with _full_single(bank.device):
            rough = torch.addmm(length, moved, centred.T, alpha=-2)  # (B, M), without the row's own length
        if rows is not None:
            rough.scatter_(1, part.unsqueeze(1), torch.inf)
        place = smallest(rough, few)
        edge = rough.gather(1, place).amax(1) + moved.square().sum(1)  # no row that was left out is nearer than this
        place = place.sort(1).values  # in the bank's order, which sorting below keeps
        exact = torch.stack([_squared(bank[column] - asked) for column in place.T], 1)  # (B, few)
        exact, order = exact.sort(dim=1, stable=True)
        distances[block], neighbours[block] = exact[:, :k], place.gather(1, order[:, :k])
        doubt = ROUNDING * (moved.square().sum(1) + length.amax())
        unsure = (exact[:, k - 1] >= edge - doubt) & (few < len(bank) - (rows is not None))
        for some in unsure.nonzero().squeeze(1).split(_rows_at_once(2 * len(bank))):
            found = _among_all(bank, asked[some], k, part[some] if rows is not None else None)
            distances[block[some]], neighbours[block[some]] = found
    return distances, neighbours


def _among_all(bank: Tensor, x: Tensor, k: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
    far = torch.cdist(x.double(), bank.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    if own is not None:
        far.scatter_(1, own.unsqueeze(1), torch.inf)
    far, place = far.sort(dim=1, stable=True)
    return far[:, :k], place[:, :k]


@contextlib.contextmanager
def _full_single(device: torch.device) -> Iterator[None]:
    """Matrix products with all digits of float32: neither autocast nor an accelerator's short cuts."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def smallest(values: Tensor, k: int) -> Tensor:
    """Columns of the k smallest of each row, (B, k): they lie in the k groups of columns with the smallest minima."""
    whole = values.shape[1] // GROUP * GROUP
    if whole // GROUP <= k:
        return values.topk(k, dim=1, largest=False).indices
    minima = values[:, :whole].unflatten(1, (-1, GROUP)).amin(2)  # (B, groups)
    group = minima.topk(k, dim=1, largest=False).indices
    columns = (group.unsqueeze(2) * GROUP + torch.arange(GROUP, device=values.device)).flatten(1)  # (B, k GROUP)
    rest = torch.arange(whole, values.shape[1], device=values.device).expand(len(values), -1)
    columns = torch.cat([columns, rest], 1)
    return columns.gather(1, values.gather(1, columns).topk(k, dim=1, largest=False).indices)


def _squared(difference: Tensor) -> Tensor:
    wide = difference.double()
    return torch.linalg.vecdot(wide, wide)


def _rows_at_once(columns: int) -> int:
    return max(1, CELLS // columns)


def spread(graph: Graph, y: np.ndarray, alpha: float, tol: float) -> Solution:
    """(1 - a) (I - a D^-1/2 W D^-1/2)^-1 Y, of labels Y (N, K) (Zhou et al. 2004)."""
    root = 1 / np.sqrt(np.asarray(graph.weights.sum(1)).ravel())
    system = sparse.identity(len(y), format="csr") - alpha * graph.weights.multiply(root[:, None]).multiply(root)
    return conjugate_gradient(system.tocsr(), (1 - alpha) * y, tol)


def propagate(graph: Graph, y: np.ndarray, clamped: np.ndarray, tol: float) -> Solution:
    """(I - T_UU)^-1 T_UL Y_L for rows that are not clamped, Y for those that are (Zhu and Ghahramani 2002).

    T is W with rows of sum 1; the system that is solved is the same one times D, which makes it symmetric. `clamped`
    (N,) is a mask that touches every component of the graph.
    """
    free = np.flatnonzero(~clamped)
    degree = np.asarray(graph.weights.sum(1)).ravel()
    among = graph.weights[free]
    system = sparse.diags(degree[free]) - among[:, free]
    found = conjugate_gradient(system.tocsr(), among[:, np.flatnonzero(clamped)] @ y[clamped], tol)
    values = y.copy()
    values[free] = found.values
    return Solution(values, found.iterations, found.residual)


def conjugate_gradient(system: sparse.csr_matrix, right: np.ndarray, tol: float) -> Solution:
    """Solves a symmetric positive definite system (N, N) for all columns of right (N, K) at once.

    Preconditioned by the diagonal; it ends when no column's residual is above tol of its right side.
    """
    solution, residual = np.zeros_like(right), right.copy()
    size = np.linalg.norm(right, axis=0).clip(min=np.finfo(float).tiny)
    inverse = 1 / system.diagonal()[:, None]
    direction = step = inverse * residual
    energy = (residual * step).sum(0)
    for done in range(MOST):
        left = float((np.linalg.norm(residual, axis=0) / size).max(initial=0))
        if left <= tol:
            return Solution(solution, done, left)
        along = system @ direction
        curve = (direction * along).sum(0)
        length = np.divide(energy, curve, out=np.zeros_like(curve), where=curve > 0)  # a solved column stays
        solution += length * direction
        residual -= length * along
        step = inverse * residual
        before, energy = energy, (residual * step).sum(0)
        direction = step + np.divide(energy, before, out=np.zeros_like(energy), where=before > 0) * direction
    raise UserError(
        f"labels did not settle in {MOST:,} iterations: a residual of {left:.1e} is left, above tol={tol}; "
        "raise tol or k."
    )
