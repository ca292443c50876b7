"""A method's loss held against numbers computed by hand, with a network that answers what the example says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from sslrun.contracts import Batch, DataSpec, Encoder, Objective, Stream
from sslrun.nn.ema import Ema
from sslrun.nn.example import Example
from sslrun.rng import Rng

STEPS = 1000  # of the training that an example stands in
TOLERANCE = 1e-4  # relative: losses are made in fp32
NOISE = 1e-6  # a gradient below it is rounding: losses are about 1, and terms that cancel out leave some 1e-8


class PassThrough(Encoder):
    """Its features are its inputs, times a parameter that gradients reach."""

    def __init__(self, spec: DataSpec):
        super().__init__(spec)
        self.dim = spec.num_classes
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) * self.scale


def held_against(kind: type[Objective], example: Example) -> dict[str, str | None]:
    """{check: complaint, or None where it holds}, for the class of a method and one of its examples."""
    objective, encoder = _setting(kind, example)
    for i, streams in enumerate(example.earlier):
        objective(encoder, _batch(streams, i))
    batch = _batch(example.streams, len(example.earlier))
    inputs = {f"{s}.{view}": x for s in batch for view, x in batch[s].items() if x.requires_grad}
    out = objective(encoder, batch)
    found = {}
    if example.expected:
        found["numbers"] = _numbers({k: float(v.detach()) for k, v in out.items()}, example.expected)
    if example.learns:
        found["gradient"] = _gradient(out.get(example.term), inputs, example)
    if example.rule is not None:
        found["rule"] = example.rule(objective, batch)
    return found


def _setting(kind: type[Objective], example: Example) -> tuple[Objective, Encoder]:
    """The objective, in the middle of a training whose network passes its inputs through."""
    stream = next(iter(example.streams.values()))
    classes = len(next(iter(_views(stream).values()))[0])
    spec = DataSpec("by hand", (kind.modalities or ("image",))[0], (classes, 1, 1), classes)
    encoder = PassThrough(spec)
    objective = kind(encoder, spec, **example.settings)
    rows = [s for streams in (*example.earlier, example.streams) for s in streams.items()]
    objective.prepare(_samples(rows), encoder)
    with torch.no_grad():
        for part in objective.modules():
            if isinstance(part, nn.Linear):
                nn.init.eye_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
            elif isinstance(part, PassThrough):
                part.scale.fill_(example.averaged)
            elif isinstance(part, Ema):
                part.t.fill_(round(example.done * STEPS))
    objective.horizon = STEPS
    return objective.train(), encoder


def _samples(rows: list[tuple[str, Mapping[str, Any]]]) -> SimpleNamespace:
    """What `prepare` reads of a data module: places in the data, and the labels that are shown."""
    y = torch.tensor([label for name, stream in rows if name == "labelled" for label in stream["y"]])
    places = [int(_index(stream).max()) for name, stream in rows if name != "labelled"]
    count = max([*places, len(y) - 1]) + 1
    shown = torch.full((count,), -1)
    shown[: len(y)] = y
    every = torch.arange(count)
    return SimpleNamespace(train=SimpleNamespace(index=every, y=shown), labelled=every[: len(y)], unlabelled=every)


def _views(stream: Mapping[str, Any]) -> dict[str, Any]:
    return {view: rows for view, rows in stream.items() if view not in ("y", "index")}


def _index(stream: Mapping[str, Any]) -> Tensor:
    rows = len(next(iter(_views(stream).values())))
    return torch.tensor(stream.get("index", tuple(range(rows))))


def _batch(streams: Mapping[str, Mapping[str, Any]], step: int) -> Batch:
    """The batch whose inputs (B, K, 1, 1) are the logarithms of an example's probabilities."""
    made = {}
    for name, stream in streams.items():
        values: dict[str, Any] = {"index": _index(stream)}
        n = len(values["index"])
        values["y"] = torch.tensor(stream.get("y", (-1,) * n))
        for view, rows in _views(stream).items():
            values[view] = torch.tensor(rows).log()[:, :, None, None].requires_grad_()
        made[name] = Stream(values, lambda *purpose, n=n, name=name: Rng("check", step, name, *purpose, total=n))
    return Batch(made)


def _numbers(out: Mapping[str, float], expected: Mapping[str, float]) -> str | None:
    wrong = []
    for key, value in expected.items():
        if key not in out:
            wrong.append(f"{key} is missing")
        elif not math.isclose(out[key], value, rel_tol=TOLERANCE, abs_tol=1e-6):
            wrong.append(f"{key} is {out[key]:.6g}, by hand {value:.6g}")
    return "; ".join(wrong) or None


def _gradient(term: Tensor | None, inputs: Mapping[str, Tensor], example: Example) -> str | None:
    """Whether the gradient reaches exactly the rows that it should."""
    if term is None or not term.requires_grad:
        return f"{example.term} has no gradient"
    found = torch.autograd.grad(term, inputs.values(), allow_unused=True)
    wrong = []
    for (view, x), gradient in zip(inputs.items(), found, strict=True):
        reached = torch.zeros(len(x), dtype=torch.bool)
        if gradient is not None:
            reached = (gradient.abs() > NOISE).flatten(1).any(1)
        should = torch.zeros_like(reached)
        should[list(example.learns.get(view, ()))] = True
        for rows, words in ((reached & ~should, "has a gradient in"), (should & ~reached, "has no gradient in")):
            if rows.any():
                listed = ", ".join(str(i) for i in rows.nonzero().flatten().tolist())
                wrong.append(f"{example.term} {words} {view}, row {listed}")
    return "; ".join(wrong) or None
