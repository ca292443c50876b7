"""Noisy student: learn from strong views what a calm teacher says of clean ones (Xie et al. 2020, arXiv:1911.04252)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.generations import Generations, frozen
from sslrun.nn.semi import refuse_threshold


class NoisyStudent(Generations):
    """Cross-entropy of strong views to a teacher's soft labels, where it is confident; then the student teaches.

    Xie, Luong, Hovy and Le 2020, arXiv:1911.04252. The run is divided in rounds: the first teacher learns from labels
    alone, each student starts anew. Teachers see unlabelled samples without noise. A sample that the teacher is unsure
    of is left out in its place: the term is a mean over ALL rows. Classes are not balanced, as they are in the paper.

    Args:
        threshold: confidence from which a pseudo-label counts, in (0, 1].
        unlabelled_weight: weight of the unlabelled term.
        generations: into how many rounds the run is divided, 2 or more.
        ema: decay of the averaged network, which is judged under `ema` and teaches in the next round, in [0, 1).
        recipe: augmentation of what the student sees; of the labelled samples too.
        recipe_teacher: augmentation of what the teacher sees.
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        threshold: float = 0.3,
        unlabelled_weight: float = 1.0,
        generations: int = 3,
        ema: float = 0.95,
        recipe: str = "strong",
        recipe_teacher: str = "plain",
    ):
        super().__init__(encoder, spec, generations, unlabelled_weight, ema)
        refuse_threshold(threshold)
        if generations < 2:
            raise ValueError(f"generations={generations} has no teacher; use 2 or more")
        self.threshold = threshold
        self.views = {
            "labelled": {"student": recipe},
            "unlabelled": {"student": recipe, "teacher": recipe_teacher},
        }

    def taught(self, encoder: Encoder, batch: Batch, teacher: nn.Module) -> dict[str, Tensor]:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        x, u = self.logits(encoder, labelled["student"], unlabelled["student"])
        p = teacher.predict(unlabelled["teacher"])  # (mu B, K)
        trust = (p.amax(1) >= self.threshold).float()
        return self.total(
            x,
            labelled["y"],
            (F.cross_entropy(u, p, reduction="none") * trust).mean(),
            mask_rate=trust.mean(),
            **self.judged(p.argmax(1), unlabelled["y"]),
        )

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        streams = {
            "labelled": {"student": ((0.7, 0.3),), "y": (1,)},
            "unlabelled": {
                "student": ((0.7, 0.3), (0.5, 0.5), (0.4, 0.6)),
                "teacher": ((0.75, 0.25), (0.6, 0.4), (1 / 3, 2 / 3)),
            },
        }
        settings = {"threshold": 0.75, "unlabelled_weight": 2.0}
        # the teacher doubles its logits: 0.9 and 0.1, 0.36 / 0.52 and 0.16 / 0.52, which is unsure, 0.2 and 0.8
        unlabelled = -(0.9 * log(0.7) + 0.1 * log(0.3) + 0.2 * log(0.4) + 0.8 * log(0.6)) / 3
        return [
            Example(
                "Cross-entropy to the soft labels that the teacher is sure of, divided by all unlabelled rows.",
                streams,
                averaged=2.0,
                settings=settings,
                expected={
                    "loss": -log(0.3) + 2 * unlabelled,
                    "loss_labelled": -log(0.3),
                    "loss_unlabelled": unlabelled,
                    "mask_rate": 2 / 3,
                },
                learns={"unlabelled.student": (0, 2)},
                rule=frozen,
            ),
            Example(
                "The first teacher learns from labels alone.",
                streams,
                done=0.3,
                settings=settings,
                expected={"loss": -log(0.3), "loss_unlabelled": 0.0},
                term="loss",
                learns={"labelled.student": (0,)},
            ),
        ]
