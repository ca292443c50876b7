"""What a semi-supervised step costs above what its definition needs.

    python scripts/bench_semi.py [--method fixmatch] [--encoder wrn_28_2] [--batch-size 4] [--mu 7] [--rounds 5]

The step: batches and their views made, the losses, backward, the optimiser and the averaged network. The floor: forward
and backward of the same network on as many pictures of the same size. Both in turns, in this process, on one thread;
what counts is the median over rounds of the ratio within a round, in seconds of the processor, of which other programs
take none. Pictures are made up: their content costs nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from sslrun import device as devices
from sslrun.build import build, optimizer_factory, resolved
from sslrun.compose import compose
from sslrun.fit import loader_for
from sslrun.learner import Learner
from sslrun.streams import as_seen_by


def spent(act: Callable[[], None]) -> float:
    began = time.process_time()
    act()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="fixmatch")
    parser.add_argument("--encoder", default="wrn_28_2")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--mu", type=int, default=7)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.npz"
        np.savez(path, x_train=draw.integers(0, 256, (2000, 32, 32, 3), np.uint8), y_train=np.arange(2000) % 10)
        given = [f"method={args.method}", f"encoder={args.encoder}", "data=image_arrays", f"data.path={path}"]
        given += ["labels=40", f"batch_size={args.batch_size}", f"mu={args.mu}", "precision=fp32", "device=cpu"]
        cfg = resolved(compose(given)[0], given)
        built = build(cfg)
    learner = Learner(built.encoder, built.objectives, built.data, built.weights).train()
    loader = loader_for(built.data, built.objectives, args.batch_size, args.mu, devices.resolve(cfg))
    learner.prepare(loader.first())
    optimizer, _ = optimizer_factory(dict(cfg.optimizer), None, args.batch_size, 100)[0](learner)
    ((_, objective),) = built.objectives.items()
    objective.horizon = 100
    plans = iter(loader)
    plan = next(plans)
    read = sum(len(plan.streams[s].positions) * len(v) for s, v in objective.views.items())
    x = torch.rand(read, 3, 32, 32)
    y = torch.zeros(read, dtype=torch.long)

    def step() -> None:
        batch = built.data.batch(next(plans), built.data.train, learner.views, "cpu")
        objective(built.encoder, as_seen_by(objective, batch))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        objective.after_step(built.encoder)

    def floor() -> None:
        F.cross_entropy(objective.head(built.encoder(x)), y).backward()
        optimizer.zero_grad()

    step(), floor()  # what the first call allocates
    ratios = []
    for i in range(args.rounds):
        order = (step, floor) if i % 2 == 0 else (floor, step)
        seconds = {act: spent(act) for act in order}
        ratios.append(seconds[step] / seconds[floor])
    middle, low, high = (100 * (f(ratios) - 1) for f in (statistics.median, min, max))
    print(f"{args.method}, {args.encoder}: {read} pictures a step, {middle:+.1f} % above forward and backward")
    print(f"from {low:+.1f} to {high:+.1f} % over {args.rounds} rounds")


if __name__ == "__main__":
    main()
