"""FixMatch: a confident guess on a weak view is the label of the strong view (Sohn et al. 2020, arXiv:2001.07685)."""

from __future__ import annotations

from torch import Tensor

from sslrun.contracts import DataSpec, Encoder
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
