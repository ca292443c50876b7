import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from sslrun.contracts import UserError
from sslrun.nn import graph as graphs
from sslrun.nn.graph import Graph, conjugate_gradient, knn_graph, nearest, propagate, smallest, spread


def digits(n):
    bundle = load_digits()
    return torch.from_numpy(bundle.data[:n] / 16).float(), bundle.target[:n]


def few_labels(y, each=2):
    known = np.concatenate([np.flatnonzero(y == c)[:each] for c in range(10)])
    return known, np.eye(10)[y] * np.isin(np.arange(len(y)), known)[:, None]


@pytest.mark.parametrize("offset", (0, 10_000))
def test_neighbours_are_scikit_learns(offset, monkeypatch):
    monkeypatch.setattr(graphs, "CELLS", 2**16)  # several blocks
    x = (digits(900)[0] * 16 + offset).round()  # whole numbers, so that float32 keeps them at either place
    found, place = nearest(x, 7, rows=torch.arange(len(x)))
    reference = NearestNeighbors(n_neighbors=7, algorithm="brute").fit(x.double().numpy() - offset)
    np.testing.assert_allclose(found, reference.kneighbors()[0] ** 2, atol=1e-9)
    assert (found == (x[place].double() - x[:, None].double()).square().sum(2)).all()
    assert (place != torch.arange(len(x))[:, None]).all()
    asked = digits(1000)[0][900:] * 16 + offset
    other, _ = nearest(x, 7, asked)
    np.testing.assert_allclose(other, reference.kneighbors(asked.numpy() - offset)[0] ** 2, rtol=1e-6, atol=1e-2)


def test_neighbours_are_found_where_float32_cannot_tell_them_apart():
    """Two far groups of close rows: the product of matrices has no digit left for what differs within a group."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(400, 3, generator=draw, dtype=torch.float64) + 1e5 * (torch.arange(400) % 2)[:, None]
    found, place = nearest(x, 5, rows=torch.arange(400))
    true = torch.cdist(x - x[0], x - x[0], compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
    assert (place == true.argsort(1)[:, :5]).all()


def test_equal_rows_hang_on_the_first_ones():
    x = torch.ones(100, 4)
    _, place = nearest(x, 3, rows=torch.arange(100))
    assert place[50].tolist() == [0, 1, 2] and place[1].tolist() == [0, 2, 3]
    made = knn_graph(x, 3)
    assert made.components()[0] == 1 and set(made.weights.data) == {1.0}


def test_autocast_does_not_blur_neighbours(monkeypatch):
    monkeypatch.setattr(graphs, "SPARE", 0)
    x = digits(500)[0]
    plain = nearest(x, 7, rows=torch.arange(500))
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, nearest(x, 7, rows=torch.arange(500)), plain))


def test_smallest_finds_them_wherever_they_lie():
    draw = torch.Generator().manual_seed(0)
    for columns in (5, 40, 700, 1003):
        values = torch.rand(20, columns, generator=draw)
        values[:, -4:] -= 1
        got = values.gather(1, smallest(values, 5)).sort(1).values
        assert torch.equal(got, values.sort(1).values[:, :5])


def test_graph_is_symmetric_without_loops_and_keeps_outliers():
    x = torch.cat([digits(1200)[0], torch.full((1, 64), 1e6), digits(1)[0]])  # exp(-1200) is 0
    made = knn_graph(x, 7)
    weights = made.weights
    assert abs(weights - weights.T).max() == 0 and not weights.diagonal().any() and weights.data.min() > 0
    assert (np.diff(weights.indptr) >= 7).all() and made.components()[0] == 1
    x = digits(300)[0]
    made = knn_graph(x, 7)
    distance, place = nearest(x, 7, rows=torch.arange(300))
    assert made.scale == pytest.approx(float(distance[:, 6].mean()))
    assert made.weights[0, int(place[0, 3])] == pytest.approx(float((-distance[0, 3] / made.scale).exp()))


def test_labels_spread_as_the_closed_forms_say():
    x, y = digits(500)
    made = knn_graph(x, 7)
    known, labels = few_labels(y)
    w = made.weights.toarray()
    root = np.diag(w.sum(1) ** -0.5)
    closed = 0.01 * np.linalg.inv(np.eye(500) - 0.99 * root @ w @ root) @ labels
    found = spread(made, labels, 0.99, 1e-10)
    np.testing.assert_allclose(found.values, closed, atol=1e-8)
    assert 0 < found.iterations < 500 and found.residual <= 1e-10
    step = 0.99 * root @ w @ root @ found.values + 0.01 * labels  # Zhou's iteration stands still there
    np.testing.assert_allclose(step, found.values, atol=1e-8)


def test_labels_propagate_as_the_closed_form_says():
    x, y = digits(500)
    made = knn_graph(x, 7)
    known, labels = few_labels(y)
    clamped = np.isin(np.arange(500), known)
    t = made.weights.toarray()
    t /= t.sum(1, keepdims=True)
    u, k = ~clamped, clamped
    closed = np.linalg.inv(np.eye(u.sum()) - t[np.ix_(u, u)]) @ t[np.ix_(u, k)] @ labels[k]
    found = propagate(made, labels, clamped, 1e-10)
    np.testing.assert_allclose(found.values[u], closed, atol=1e-8)
    assert (found.values[k] == labels[k]).all()
    np.testing.assert_allclose(found.values.sum(1), 1, atol=1e-8)


def test_a_chain_has_the_harmonic_answer():
    path = sparse.diags([np.ones(4), np.ones(4)], [-1, 1]).tocsr()
    labels = np.zeros((5, 2))
    labels[0, 0] = labels[4, 1] = 1
    found = propagate(Graph(path, 1.0), labels, labels.any(1), 1e-12)
    np.testing.assert_allclose(found.values[:, 1], [0, 0.25, 0.5, 0.75, 1], atol=1e-10)


def test_what_does_not_settle_is_said(monkeypatch):
    monkeypatch.setattr(graphs, "MOST", 2)
    x, y = digits(300)
    with pytest.raises(UserError, match="did not settle in 2 iterations.*tol=1e-10; raise tol or k"):
        spread(knn_graph(x, 7), few_labels(y)[1], 0.99, 1e-10)
    zero = conjugate_gradient(sparse.identity(3, format="csr"), np.zeros((3, 2)), 1e-10)
    assert zero.iterations == 0 and not zero.values.any()
