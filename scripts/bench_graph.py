"""What the graph methods cost: time, memory and accuracy by the number of rows, and how time grows.

    python scripts/bench_graph.py [--npz mnist.npz] [--rows 10000 20000 40000] [--threads 1]

Without a file (`x_train`, `y_train`) rows are 784 columns of ten curved surfaces. Seconds of the processor stand beside
those of the clock, since a busy machine stretches the latter. The neighbour search compares all pairs, so its exponent
goes to 2; it is bound by one matrix product, rows^2 x columns. All else grows with the number of edges.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from sslrun.nn.graph import knn_graph, propagate, spread
from sslrun.nn.transductive import probabilities

K, ALPHA, TOL, EACH = 7, 0.99, 1e-10, 10


def surfaces(n: int) -> tuple[torch.Tensor, np.ndarray]:
    """Ten classes, each a curved surface of 8 dimensions among 784, with noise."""
    draw = np.random.default_rng(0)
    y = draw.integers(0, 10, n)
    inner, maps = draw.normal(size=(n, 8)), draw.normal(size=(10, 8, 784))
    x = np.empty((n, 784), np.float32)
    for c in range(10):
        x[y == c] = np.tanh(inner[y == c] @ maps[c] / 3) + draw.normal(0, 0.1, ((y == c).sum(), 784))
    return torch.from_numpy(x), y


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    wall, own = time.perf_counter(), time.process_time()
    return work(), time.perf_counter() - wall, time.process_time() - own


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--npz")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 20_000, 40_000])
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    columns = ("rows", "graph s", "cpu s", *("spread s", "iterations", "accuracy"),
               *("propagate s", "iterations", "accuracy"), "peak MB")  # fmt: skip
    print("  ".join(columns))
    costs: dict[str, list[float]] = {"graph": [], "spread": [], "propagate": []}
    for n in sorted(asked.rows):
        if asked.npz:
            with np.load(asked.npz) as file:
                x, y = torch.from_numpy(file["x_train"][:n]).flatten(1).float() / 255, file["y_train"][:n].astype(int)
        else:
            x, y = surfaces(n)
        draw, classes = np.random.default_rng(0), int(y.max()) + 1
        shown = np.concatenate([draw.permutation(np.flatnonzero(y == c))[:EACH] for c in range(classes)])
        known = np.isin(np.arange(len(y)), shown)
        labels = np.eye(classes)[y] * known[:, None]
        graph, wall, cpu = timed(partial(knn_graph, x, K))
        part = graph.components()[1]
        unreached = ~np.isin(part, part[known])
        cells = [f"{len(y)}", f"{wall:.1f}", f"{cpu:.1f}"]
        costs["graph"].append(cpu)
        solvers = {
            "spread": partial(spread, graph, labels, ALPHA, TOL),
            "propagate": partial(propagate, graph, labels, known | unreached, TOL),
        }
        for name, solve in solvers.items():
            found, wall, cpu = timed(solve)
            p = probabilities(found.values, ~known, np.ones(classes) / classes)
            right = (p.argmax(1) == y) & (p.sum(1) > 0)
            cells += [f"{wall:.2f}", f"{found.iterations}", f"{right[~known].mean():.4f}"]
            costs[name].append(cpu)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print("  ".join(f"{cell:>{len(name)}}" for cell, name in zip([*cells, f"{peak:.0f}"], columns, strict=True)))
    if len(asked.rows) > 1:
        for name, seconds in costs.items():
            slope = np.polyfit(np.log(sorted(asked.rows)), np.log(seconds), 1)[0]
            print(f"{name}: seconds of the processor grow as rows^{slope:.2f}")


if __name__ == "__main__":
    main()
