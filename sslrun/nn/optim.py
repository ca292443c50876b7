"""Optimisers, the groups of parameters they treat differently, and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from sslrun.contracts import UserError

PLAIN = ("token", "position", "prototype")  # parts of names of parameters that are directions or places, not kernels

Parameters = nn.Module | Iterable[Tensor] | Iterable[dict[str, Any]]


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: kernels, and those without weight decay and LARS adaptation.

    The latter are biases, norms and all else of one dimension, and parameters named token, position or prototype. An
    empty group is left out.
    """
    kernels, plain = [], []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_plain = parameter.dim() <= 1 or any(part in name for part in PLAIN)
            (plain if is_plain else kernels).append(parameter)
    groups = [
        {"params": kernels, "weight_decay": weight_decay, "adapt": True},
        {"params": plain, "weight_decay": 0.0, "adapt": False},
    ]
    return [group for group in groups if group["params"]]


def grouped(params: Parameters, weight_decay: float) -> Any:
    return parameter_groups(params, weight_decay) if isinstance(params, nn.Module) else params


def adamw(
    params: Parameters, lr: float, weight_decay: float = 0.05, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019) for a module, in `parameter_groups`, or for parameters as they come."""
    return torch.optim.AdamW(grouped(params, weight_decay), lr=lr, weight_decay=weight_decay, betas=tuple(betas))


def sgd(
    params: Parameters, lr: float, momentum: float = 0.9, nesterov: bool = True, weight_decay: float = 5e-4
) -> torch.optim.Optimizer:
    """Stochastic gradient descent for a module, in `parameter_groups`, or for parameters as they come."""
    groups = grouped(params, weight_decay)
    nesterov = nesterov and momentum > 0
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)


def lars(
    params: Parameters,
    lr: float,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    trust: float = 0.02,
    clip: bool = True,
) -> torch.optim.Optimizer:
    """`Lars` for a module, in `parameter_groups`, or for parameters as they come."""
    return Lars(grouped(params, weight_decay), lr, momentum, weight_decay, trust, clip)


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling of SGD with momentum (You, Gitman and Ginsburg 2017).

    A parameter w of gradient g moves by lr times r (g + weight_decay w), with momentum, where
    r = trust |w| / (|g| + weight_decay |w|); r is 1 where w or g is zero, and in groups with `adapt` false. With `clip`
    the layer's own rate, lr times r, is min(lr, that quotient) (LARC).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.02,
        clip: bool = True,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "clip": clip,
            "adapt": True,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is not None:
                    self.move(w, group)
        return loss

    def move(self, w: Tensor, group: dict[str, Any]) -> None:
        change = w.grad.add(w, alpha=group["weight_decay"])
        if group["adapt"]:
            size, slope = w.norm(), w.grad.norm()
            ratio = group["trust"] * size / (slope + group["weight_decay"] * size)
            if group["clip"] and group["lr"] > 0:
                ratio = (ratio / group["lr"]).clamp_max(1)
            change *= torch.where((size > 0) & (slope > 0), ratio, 1.0)
        velocity = self.state[w].setdefault("momentum_buffer", torch.zeros_like(w))
        velocity.mul_(group["momentum"]).add_(change)
        w.sub_(velocity, alpha=group["lr"])


def cycle_of(step: int, steps: int, cycles: int) -> tuple[int, int, int]:
    """Of the `cycles` equal parts of a run the one that a step is in: its number from 0, its first step and its end.

    Steps after the run's end are in the last part.
    """
    number = max(min(step, steps - 1), 0) * cycles // max(steps, 1)
    return number, -(-number * steps // cycles), -(-(number + 1) * steps // cycles)


def schedule(kind: str, warmup_steps: int, total_steps: int, cycles: int = 1) -> Callable[[int], float]:
    """The factor of the learning rate at each step, from 0 on; each of `cycles` equal parts of the run starts anew.

    Linear from 1 / (warmup_steps + 1) to 1, reached at step `warmup_steps`; then with p the share of the remaining
    steps done: `cosine` (1 + cos(pi p)) / 2, 0 at the end (Loshchilov and Hutter 2017); `constant` 1; `fixmatch`
    cos(7 pi p / 16) (Sohn et al. 2020). Raises UserError for another kind.
    """
    curves: dict[str, Callable[[float], float]] = {
        "cosine": lambda p: (1 + math.cos(math.pi * p)) / 2,
        "constant": lambda p: 1.0,
        "fixmatch": lambda p: math.cos(7 * math.pi * p / 16),
    }
    if kind not in curves:
        raise UserError(f"optimizer.schedule={kind} is unknown; {', '.join(curves)} work.")

    def factor(step: int) -> float:
        _, first, end = cycle_of(step, total_steps, cycles)
        if step - first < warmup_steps:
            return (step - first + 1) / (warmup_steps + 1)
        done = (step - first - warmup_steps) / max(end - first - warmup_steps, 1)
        return curves[kind](min(done, 1.0))

    return factor


def scaled_lr(lr: float, batch: int, reference_batch: int, rule: str) -> float:
    """The learning rate for `batch` samples a step, from the one for `reference_batch`.

    `linear` multiplies by the quotient (Goyal et al. 2017), `sqrt` by its root, `none` leaves it. Raises UserError for
    another rule.
    """
    powers = {"linear": 1.0, "sqrt": 0.5, "none": 0.0}
    if rule not in powers:
        raise UserError(f"optimizer.lr_scaling={rule} is unknown; {', '.join(powers)} work.")
    return lr * (batch / reference_batch) ** powers[rule]
