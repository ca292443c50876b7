"""Knowledge distillation: learn what a teacher believes of every class (Hinton et al. 2015, arXiv:1503.02531)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.generations import Generations, frozen


class Distillation(Generations):
    """(1 - a) CE(y, student) + a T^2 KL(teacher at T || student at T), the second term over labelled rows too.

    Hinton, Vinyals and Dean 2015, arXiv:1503.02531. T^2 keeps the soft term's gradient, which falls as 1 / T^2, in
    proportion. Teacher and student see the same view. The teacher is that of `teacher=RUN`, any run whose method
    predicts classes; without one the run is divided in generations, each taught by the one before (Furlanello et al.
    2018, arXiv:1805.04770), and the first one learns from labels alone.

    Args:
        alpha: a, the soft term's share, above 0 and up to 1.
        temperature: T, above 0.
        generations: into how many parts the run is divided; null: 3, and with a teacher 1.
        ema: decay of the averaged network, which is judged under `ema` and teaches the next generation, in [0, 1).
        recipe: augmentation of all samples.
        teacher: a module whose `predict(x)` are probabilities (B, K); a row of zeros teaches nothing.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        alpha: float = 0.9,
        temperature: float = 4.0,
        generations: int | None = None,
        ema: float = 0.95,
        recipe: str = "strong",
        teacher: nn.Module | None = None,
    ):
        if generations is None:
            generations = 3 if teacher is None else 1
        super().__init__(encoder, spec, generations, alpha, ema, teacher)
        if not 0 < alpha <= 1:
            raise ValueError(f"alpha={alpha} must lie above 0 and not above 1, for example 0.9")
        if temperature <= 0:
            raise ValueError(f"temperature={temperature} must lie above 0, for example 4")
        if generations == 1 and teacher is None:
            raise ValueError("generations=1 has no teacher; use 2 or more, or teacher=RUN")
        self.alpha, self.temperature = alpha, temperature
        self.views = {"labelled": {"student": recipe}, "unlabelled": {"student": recipe}}

    def taught(self, encoder: Encoder, batch: Batch, teacher: nn.Module) -> dict[str, Tensor]:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        x, u = self.logits(encoder, labelled["student"], unlabelled["student"])
        p = teacher.predict(torch.cat([labelled["student"], unlabelled["student"]]))  # (B + mu B, K)
        soft = self.divergence(torch.cat([x, u]), self.soften(p))
        out = self.total(x, labelled["y"], soft, **self.judged(p[len(x) :].argmax(1), unlabelled["y"]))
        return {**out, "loss": (1 - self.alpha) * out["loss_labelled"] + self.alpha * soft}

    def soften(self, p: Tensor) -> Tensor:
        """softmax(z / T) of the logits z that gave these probabilities (B, K): p^(1/T), divided by its sum."""
        soft = p ** (1 / self.temperature)
        return soft / soft.sum(1, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)

    def divergence(self, logits: Tensor, target: Tensor) -> Tensor:
        """T^2 KL(target || student at T), the mean over rows, of logits and softened probabilities (B, K)."""
        student = torch.log_softmax(logits / self.temperature, 1)
        return self.temperature**2 * F.kl_div(student, target, reduction="batchmean")

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        streams = {
            "labelled": {"student": ((0.64, 0.36),), "y": (1,)},
            "unlabelled": {"student": ((0.8, 0.2), (0.1, 0.9))},
        }
        settings = {"alpha": 0.75, "temperature": 2.0}
        # the teacher doubles its logits, so that at T = 2 it has the probabilities above; the student has their square
        # roots in proportion: 4/7 and 3/7, 2/3 and 1/3, 1/4 and 3/4
        divergence = (
            (0.64 * log(0.64 * 7 / 4) + 0.36 * log(0.36 * 7 / 3))
            + (0.8 * log(0.8 * 3 / 2) + 0.2 * log(0.2 * 3))
            + (0.1 * log(0.1 * 4) + 0.9 * log(0.9 * 4 / 3))
        )
        soft = 2**2 * divergence / 3
        return [
            Example(
                "T^2 KL, summed over classes, is a mean over all rows; labels have the rest of the weight.",
                streams,
                averaged=2.0,
                settings=settings,
                expected={
                    "loss": 0.25 * -log(0.36) + 0.75 * soft,
                    "loss_labelled": -log(0.36),
                    "loss_unlabelled": soft,
                },
                learns={"labelled.student": (0,), "unlabelled.student": (0, 1)},
                rule=frozen,
            ),
            Example(
                "Without a teacher the first generation learns from labels alone.",
                streams,
                done=0.3,
                settings=settings,
                expected={"loss": -log(0.36), "loss_unlabelled": 0.0},
                term="loss",
                learns={"labelled.student": (0,)},
            ),
        ]
