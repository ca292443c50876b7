"""Times k-means and Gaussian mixtures beside scikit-learn's: equal results first, then both in turns.

    python scripts/bench_clustering.py [--only digits|kmeans|gmm] [--rounds N] [--threads N] [--growth]

The order reverses with each round, and what counts is the median over rounds of the ratio within a round, of the
clock's seconds and of the processor's: these count less of what else the machine does. Both sides run in this process
with the same number of threads, from the same starts where the results are to be equal.

digits: 1,797 rows of 64 pixels / 16, 10 clusters, 50 starts of each side's own greedy k-means++, until nothing moves.
kmeans: 100,000 rows of 32 features, 100 clusters, 20 passes from the same rows.
gmm: 100,000 rows of 32 features, 16 full components that overlap, so many passes from the same start.
With --growth ours alone, on 10,000 to 80,000 rows, and the exponent of its time in them.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor

ROWS, COLUMNS = 100_000, 32
GROWTH = (10_000, 20_000, 40_000, 80_000)
PASSES = {"kmeans": 20, "gmm": 5}


def digits() -> tuple[Callable, Callable, Callable]:
    from sklearn.cluster import KMeans
    from sklearn.datasets import load_digits

    from sslrun.nn.lloyd import lloyd, plus_plus

    x = torch.from_numpy(load_digits().data / 16)
    x = x - x.mean(0)

    def ours(seed: int) -> float:
        return float(lloyd(x, plus_plus(x, 10, 50, torch.Generator().manual_seed(seed)))[2].min())

    def theirs(seed: int) -> float:
        return KMeans(10, n_init=50, tol=0, random_state=seed).fit(x.numpy()).inertia_

    return ours, theirs, lambda a, b: abs(a - b) / b < 1e-4  # each from its own starts


def blobs(k: int, spread: float, rows: int) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    group = torch.randint(k, (rows,), generator=draw)
    shapes = torch.randn(k, COLUMNS, COLUMNS, dtype=torch.float64, generator=draw) / COLUMNS**0.5
    noise = torch.randn(rows, COLUMNS, dtype=torch.float64, generator=draw)
    x = torch.empty_like(noise)
    for g in range(k):
        x[group == g] = noise[group == g] @ (shapes[g] + 0.3 * torch.eye(COLUMNS, dtype=torch.float64))
    x += spread * torch.randn(k, COLUMNS, dtype=torch.float64, generator=draw)[group]
    return x - x.mean(0)


def kmeans(rows: int = ROWS) -> tuple[Callable, Callable, Callable]:
    from sklearn.cluster import KMeans

    from sslrun.nn.lloyd import lloyd

    x, passes = blobs(100, 1.0, rows), PASSES["kmeans"]
    start = x[torch.randperm(rows, generator=torch.Generator().manual_seed(1))[:100]]

    def ours(seed: int) -> float:
        return float(lloyd(x, start.unsqueeze(0), passes, 0.0)[2])

    def theirs(seed: int) -> float:
        model = KMeans(100, init=start.numpy(), n_init=1, max_iter=passes, tol=0, algorithm="lloyd")
        return model.fit(x.numpy()).inertia_

    return ours, theirs, lambda a, b: abs(a - b) / b < 1e-6


def gmm(rows: int = ROWS) -> tuple[Callable, Callable, Callable]:
    from sklearn.mixture import GaussianMixture

    from sslrun.nn.mixture import em, started

    x, passes, floor = blobs(16, 0.5, rows), PASSES["gmm"], 1e-6
    start = started(x, 16, "full", "random", floor, 1, torch.Generator().manual_seed(1))
    precisions = torch.linalg.inv(start.covariance[0]).numpy()

    def ours(seed: int) -> float:
        return float(em(x, start, "full", floor, passes, -1.0)[1])

    def theirs(seed: int) -> float:
        model = GaussianMixture(
            16, weights_init=start.shares[0].numpy(), means_init=start.means[0].numpy(), tol=0, max_iter=passes,
            precisions_init=precisions, reg_covar=floor,
        )  # fmt: skip
        return float(model.fit(x.numpy()).lower_bound_)

    return ours, theirs, lambda a, b: abs(a - b) < 1e-6


def timed(function: Callable, seed: int) -> tuple[float, float, float]:
    clock, processor = time.perf_counter(), time.process_time()
    value = function(seed)
    return value, time.perf_counter() - clock, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=("digits", "kmeans", "gmm"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--growth", action="store_true")
    given = parser.parse_args()
    import threadpoolctl

    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")  # so many passes are not meant to converge
    with threadpoolctl.threadpool_limits(given.threads):
        for name, make in (("digits", digits), ("kmeans", kmeans), ("gmm", gmm)):
            if given.only not in (None, name):
                continue
            if not given.growth:
                compare(name, *make(), rounds=given.rounds)
            elif make is not digits:
                growth(name, make, given.rounds)


def growth(name: str, make: Callable, rounds: int) -> None:
    took = []
    for rows in GROWTH:
        ours = make(rows)[0]
        ours(0)
        took.append(statistics.median(timed(ours, seed)[2] for seed in range(rounds)))
    slope = statistics.linear_regression([math.log(rows) for rows in GROWTH], [math.log(t) for t in took]).slope
    told = ", ".join(f"{rows:,}: {t:.2f} s" for rows, t in zip(GROWTH, took, strict=True))
    print(f"{name}: {told}; seconds of the processor grow as rows^{slope:.2f}", flush=True)


def compare(name: str, ours: Callable, theirs: Callable, equal: Callable, rounds: int) -> None:
    found = ours(0), theirs(0)  # also warms both up
    if not equal(*found):
        raise SystemExit(f"{name}: the results differ, {found[0]} and {found[1]}")
    clock, processor = [], []
    for seed in range(rounds):
        order = (ours, theirs) if seed % 2 == 0 else (theirs, ours)
        took = {function: timed(function, seed)[1:] for function in order}
        clock.append(took[ours][0] / took[theirs][0])
        processor.append(took[ours][1] / took[theirs][1])
        print(f"  {name} {seed}: {took[ours][0]:.2f} s, scikit-learn {took[theirs][0]:.2f} s", flush=True)
    print(
        f"{name}: result {found[0]:.6f}, scikit-learn {found[1]:.6f}; time {statistics.median(clock):.2f} of "
        f"scikit-learn's by the clock, {statistics.median(processor):.2f} by the processor", flush=True
    )  # fmt: skip


if __name__ == "__main__":
    main()
