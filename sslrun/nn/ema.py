"""The exponential moving average of a network: teachers and averaged weights."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Ema(nn.Module):
    """An averaged copy of a module (Tarvainen and Valpola 2017, Mean Teacher), equal to it at the start.

    The t-th update (t = 1, 2, ...) keeps a share a_t = min(1 - 1 / (t + 1), decay) of the average, so that early on it
    is the plain mean of all weights so far, the first ones included; without `warmup` a_t = decay. Parameters are
    averaged; buffers, batch norm's statistics among them, are copied from the module at each update, whatever their
    type. `decay` may be changed between updates. The copy is `module`; calling the average calls it.
    """

    def __init__(self, module: nn.Module, decay: float, warmup: bool = True):
        super().__init__()
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.decay, self.warmup = decay, warmup
        self.register_buffer("t", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Moves the average towards `module`; call it once after each optimiser step."""
        self.t += 1
        # tensors throughout: reading t would make the host wait for the device
        change = torch.full((), 1 - self.decay, device=self.t.device)
        if self.warmup:
            change = change.maximum(1 / (self.t + 1))
        for mine, theirs in zip(self.module.parameters(), module.parameters(), strict=True):
            mine.lerp_(theirs.detach(), change.to(mine.dtype))
        for mine, theirs in zip(self.module.buffers(), module.buffers(), strict=True):
            mine.copy_(theirs)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.module(*args, **kwargs)
