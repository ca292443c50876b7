"""What methods share whose network is taught by another that was trained before it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.modes import Frozen
from sslrun.nn.optim import cycle_of
from sslrun.nn.semi import SemiSupervised, single


class Network(Frozen):
    """A copy of an encoder and a linear head on it."""

    def __init__(self, encoder: nn.Module, head: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(nn.ModuleList([encoder, head]))
        self.freeze()

    @torch.no_grad()
    def predict(self, x: Any) -> Tensor:
        """Class probabilities, (B, K), at least in fp32."""
        encoder, head = self.module
        return torch.softmax(single(head(encoder(x))), 1)


class Generations(SemiSupervised):
    """A run in equal parts, one for each generation: a network starts from the first weights and learns from the last.

    Furlanello et al. 2018, arXiv:1805.04770 (born-again networks). The first generation has labels alone to learn
    from, or a teacher that was given; the averaged network of each one, which fits the errors of its own teacher less
    closely, teaches the next. The optimiser and the learning rate start anew with each (`cycles`).

    A subclass writes `taught`. The student's view is called `student` in both streams.

    Args:
        generations: into how many parts the run is divided, 1 or more.
        teacher: of the first generation, a module whose `predict(x)` are probabilities (B, K).
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        generations: int,
        unlabelled_weight: float,
        ema: float,
        teacher: nn.Module | None = None,
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema)
        if generations < 1:
            raise ValueError(f"generations={generations} must be 1 or more, for example 3")
        self.cycles, self.decay, self.teacher = generations, ema, teacher
        copies = generations > 1
        self.first = Network(encoder, self.head) if copies else None
        self.past = Network(encoder, self.head) if copies else None

    def guide(self) -> nn.Module | None:
        """Who teaches now; None: nobody yet."""
        return self.past if cycle_of(int(self.ema.t), self.horizon, self.cycles)[0] else self.teacher

    def taught(self, encoder: Encoder, batch: Batch, teacher: nn.Module) -> dict[str, Tensor]:
        """What `forward` returns where there is a teacher."""
        raise NotImplementedError

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        teacher = self.guide()
        if teacher is not None:
            return self.taught(encoder, batch, teacher)
        (x,) = self.logits(encoder, batch["labelled"]["student"])
        y = batch["labelled"]["y"]
        return self.total(x, y, x.new_zeros(()))

    def after_step(self, encoder: Encoder) -> None:
        step = int(self.ema.t)
        first = cycle_of(step, self.horizon, self.cycles)[1]
        self.ema.decay = min(self.decay, 1 - 1 / (step - first + 2))  # warms up in each generation
        super().after_step(encoder)
        if cycle_of(step + 1, self.horizon, self.cycles)[1] == step + 1:
            self.past.module.load_state_dict(self.ema.module.state_dict())
            for network in (nn.ModuleList([encoder, self.head]), self.ema.module):
                network.load_state_dict(self.first.module.state_dict())


def frozen(objective: Generations, batch: Batch) -> str | None:
    """What is wrong about the teacher of a method: a rule for `sslrun check`."""
    teacher = objective.guide()
    if teacher.predict(batch["unlabelled"]["student"]).requires_grad:
        return "a gradient passes through the teacher"
    if any(p.requires_grad for p in teacher.parameters()) or any(part.training for part in teacher.modules()):
        return "the teacher is trained"
    return None
