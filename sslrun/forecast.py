"""How long a run will take and how much memory, measured on a copy before training begins."""

from __future__ import annotations

import copy
import time
from typing import Any

import torch

from sslrun.data.plan import Plan as Step
from sslrun.data.plan import Share
from sslrun.learner import Learner

QUICK = 0.25  # seconds: a quarter of a batch that takes longer is not followed by a whole one
MOMENTS = 2  # tensors that an optimiser keeps for each parameter


def forecast(learner: Learner, loader: Any, steps: int, accumulate: int, device: Any) -> tuple[float, float]:
    """Seconds of training and bytes at its peak, beyond what the process holds already.

    A few steps forward and backward on a copy; draws depend on their position alone, so that nothing is used up.
    """
    twin = Learner(
        copy.deepcopy(learner.encoder), copy.deepcopy(dict(learner.objectives)), learner.data, learner.weights
    )
    twin.to(device.torch).train()
    plan = loader.plan(0, 0)
    trained = [p for p in twin.parameters() if p.requires_grad]
    quarter = _part(plan, 4)
    if device.torch.type != "cpu":
        _step(twin, quarter, device)  # an accelerator loads its kernels in the first step
    seconds, saved = _step(twin, quarter, device, measure=True)
    share = 4
    if seconds < QUICK:
        (seconds, _), share = _step(twin, _part(plan, 1), device), 1
    held = sum(p.numel() * p.element_size() for p in trained)
    return seconds * share * steps * accumulate, held * (1 + MOMENTS) + 4 * saved


def _part(plan: Step, share: int) -> Step:
    """The first rows of each stream, one in `share` and at least two for batch statistics, as a step of their own."""
    streams = {}
    for name, whole in plan.streams.items():
        n = min(len(whole.positions), max(2, len(whole.positions) // share))
        streams[name] = Share(whole.positions[:n], n, slice(0, n))
    return Step(plan.epoch, plan.step, streams)


def _step(twin: Learner, plan: Step, device: Any, measure: bool = False) -> tuple[float, int]:
    """Seconds of one step, and the bytes that its backward pass keeps."""
    kept: dict[int, int] = {}

    def note(x: torch.Tensor) -> torch.Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    own = {p.untyped_storage().data_ptr() for p in twin.parameters()}
    began = time.perf_counter()
    with device.mixed():
        if measure:
            with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
                loss = twin.training_step(plan, 0)
        else:
            loss = twin.training_step(plan, 0)
    loss.backward()
    if device.torch.type == "cuda":
        torch.cuda.synchronize(device.torch)
    return time.perf_counter() - began, sum(n for at, n in kept.items() if at not in own)
