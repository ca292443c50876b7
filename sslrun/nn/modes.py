"""Train and eval mode of a network's parts, and whose samples its running statistics follow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode throughout, and afterwards each part's own mode again: a teacher may stay in eval mode for ever."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextlib.contextmanager
def untracked(module: nn.Module) -> Iterator[None]:
    """Running statistics stay as they are meanwhile; in training mode batches are still normalised by their own."""
    tracked = [part for part in module.modules() if isinstance(part, _NormBase) and part.track_running_stats]
    for part in tracked:
        part.track_running_stats = False
    try:
        yield
    finally:
        for part in tracked:
            part.track_running_stats = True


class Frozen(nn.Module):
    """A network that is asked and no longer learns: without gradients, in eval mode whatever is trained around it.

    A subclass calls `freeze` when its parts are there.
    """

    def freeze(self) -> None:
        self.requires_grad_(False).train(False)

    def train(self, mode: bool = True) -> Frozen:
        return super().train(False)
