"""The scores that methods give samples: of the trained ones, and of the same ones untrained."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from sslrun.build import build_objectives
from sslrun.contracts import Encoder, Objective
from sslrun.data.module import Data, Part
from sslrun.device import Device
from sslrun.evaluate.judge import Judge
from sslrun.nn.modes import evaluating
from sslrun.streams import as_seen_by, views_of

DRAWS = 4  # of what a task hides from a sample; the mean is less noisy than one


@torch.no_grad()
def scores_of(objective: Objective, encoder: Encoder, data: Data, part: Part, device: Device) -> Tensor:
    """The mean score of each sample of a part, (N,) float64; labels are hidden, and draws depend on the sample."""
    total = torch.zeros(len(part), dtype=torch.float64)
    with evaluating(encoder), evaluating(objective):
        for draw in range(1, DRAWS + 1):
            found = []
            for plan in data.validation(part, objective.streams, draw=draw):
                batch = as_seen_by(objective, data.batch(plan, part, views_of([objective]), device.torch))
                with device.mixed():
                    found.append(objective.score(encoder, batch).double().cpu())
            total += torch.cat(found)
    return total / DRAWS


def proxies(experiment: Any, judge: Judge) -> dict[str, dict[str, float]]:
    """What evaluators of scores say of each method, under `random` of the same one before its first step, and of the
    detectors that they bring along."""
    if "scores" not in judge.needs or judge.parts["test"] is None:
        return {}
    learner, data, device = experiment.learner, experiment.built.data, experiment.device
    encoder = copy.deepcopy(experiment.random_encoder()).cpu()
    untrained, _ = build_objectives(experiment.cfg, data, encoder)
    results = {}
    for name, objective in learner.objectives.items():
        untrained[name].prepare(data, encoder)
        start = untrained[name].to(device.torch), encoder.to(device.torch)
        for subject, (judged, network) in (("model", (objective, learner.encoder)), ("random", start)):
            subject = subject if len(untrained) == 1 else f"{subject}:{name}"
            splits = judge.scored(name, lambda part, o=judged, e=network: scores_of(o, e, data, part, device))
            results[subject] = judge.score(subject, splits)
        encoder = encoder.cpu()
    for subject, splits in judge.beside().items():
        results[subject] = judge.score(subject, splits)
    return results
