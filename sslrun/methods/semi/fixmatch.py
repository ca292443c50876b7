"""FixMatch: a confident guess on a weak view is the label of the strong view (Sohn et al. 2020, arXiv:2001.07685)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.semi import WeakToStrong, follow, refuse_threshold


class FixMatch(WeakToStrong):
    """Cross-entropy on labelled samples plus cross-entropy to thresholded pseudo-labels on unlabelled ones.

    Sohn et al. 2020, arXiv:2001.07685. The unlabelled term is the sum over confident rows divided by ALL unlabelled
    rows, so that few confident rows weigh little. With few labels a class that takes others' samples takes more and
    more; aligned guesses (Berthelot et al. 2020, arXiv:1911.09785) keep to the shares of the labels.

    Args:
        threshold: confidence from which a pseudo-label counts, in (0, 1].
        align: decay, in [0, 1), of the running class shares of the guesses that each guess is divided by, times the
            shares of the labels; null: guesses are taken as they are.
        unlabelled_weight: weight of the unlabelled term.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        threshold: float = 0.95,
        align: float | None = None,
        unlabelled_weight: float = 1.0,
        ema: float = 0.999,
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema)
        refuse_threshold(threshold)
        if align is not None and not 0 <= align < 1:
            raise ValueError(f"align={align} must lie in [0, 1), for example 0.99, or be null")
        self.threshold, self.align = threshold, align
        if align is not None:
            self.register_buffer("classes", torch.full((spec.num_classes,), 1 / spec.num_classes))

    def guess(self, weak: Tensor) -> Tensor:
        if self.align is None:
            return weak
        if self.training:
            follow(self.classes, torch.softmax(weak, 1), self.align)
        return weak + self.prior.log() - self.classes.log()

    def trust(self, p: Tensor, index: Tensor) -> Tensor:
        return (p.amax(1) >= self.threshold).float()

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        streams = {
            "labelled": {"weak": ((0.5, 0.25, 0.25), (0.2, 0.2, 0.6)), "y": (0, 1)},
            "unlabelled": {
                "weak": ((0.97, 0.02, 0.01), (0.6, 0.3, 0.1), (0.02, 0.96, 0.02), (0.4, 0.3, 0.3)),
                "strong": ((0.5, 0.3, 0.2), (0.9, 0.05, 0.05), (0.7, 0.1, 0.2), (0.1, 0.1, 0.8)),
            },
        }
        uneven = {
            "labelled": {"weak": ((0.5, 0.5), (0.5, 0.5)), "y": (0, 1)},
            "unlabelled": {
                "weak": ((0.9, 0.1), (0.9, 0.1), (0.55, 0.45)),
                "strong": ((0.7, 0.3), (0.7, 0.3), (0.6, 0.4)),
            },
        }
        labelled, unlabelled = -(log(0.5) + log(0.2)) / 2, -(log(0.5) + log(0.1)) / 4
        return [
            Example(
                "The sum over confident rows, to the hard label of the weak view, is divided by all unlabelled rows.",
                streams,
                settings={"threshold": 0.95, "unlabelled_weight": 2.0},
                expected={
                    "loss": labelled + 2 * unlabelled,
                    "loss_labelled": labelled,
                    "loss_unlabelled": unlabelled,
                    "mask_rate": 0.5,
                },
                learns={"unlabelled.strong": (0, 2)},
            ),
            Example(
                "An aligned guess is divided by the running share of its class before the threshold is held to it.",
                uneven,
                # from 1/2 half of the way to 0.783 and 0.217, the shares are 0.642 and 0.358: 0.834, 0.834, and 0.594
                # in the second class
                settings={"threshold": 0.7, "align": 0.5},
                expected={"mask_rate": 2 / 3, "loss_unlabelled": -2 * log(0.7) / 3},
                learns={"unlabelled.strong": (0, 1)},
            ),
            Example(
                "Of classes that are guessed unequally often, the rarer one takes a row between them.",
                uneven,
                # the shares are 0.783 and 0.217: 0.713, 0.713, and 0.747 in the second class
                settings={"threshold": 0.7, "align": 0.0},
                expected={"mask_rate": 1.0, "loss_unlabelled": -(2 * log(0.7) + log(0.4)) / 3},
            ),
            Example(
                "Where the labels have more of one class, so may the guesses.",
                uneven | {"labelled": {"weak": ((0.5, 0.5),), "y": (0,)}},
                # 2/3 and 1/3 are expected, one more of each class than was shown: 0.833, 0.833, and 0.596 in the second
                settings={"threshold": 0.7, "align": 0.0},
                expected={"mask_rate": 2 / 3, "loss_unlabelled": -2 * log(0.7) / 3},
            ),
        ]
