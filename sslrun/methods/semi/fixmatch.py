"""FixMatch: a confident guess on a weak view is the label of the strong view (Sohn et al. 2020, arXiv:2001.07685)."""

from __future__ import annotations

import math

from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.semi import WeakToStrong, refuse_threshold


class FixMatch(WeakToStrong):
    """Cross-entropy on labelled samples plus cross-entropy to thresholded pseudo-labels on unlabelled ones.

    Sohn et al. 2020, arXiv:2001.07685. The unlabelled term is the sum over confident rows divided by ALL unlabelled
    rows, so that few confident rows weigh little.

    Args:
        threshold: confidence from which a pseudo-label counts, in (0, 1].
        unlabelled_weight: weight of the unlabelled term.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
    """

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        threshold: float = 0.95,
        unlabelled_weight: float = 1.0,
        ema: float = 0.999,
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema)
        refuse_threshold(threshold)
        self.threshold = threshold

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
            )
        ]
