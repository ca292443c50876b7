"""MixMatch: mix labelled and guessed samples, inputs and labels alike (Berthelot et al. 2019, arXiv:1905.02249)."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import betaincinv
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.example import Example
from sslrun.nn.gather import gather
from sslrun.nn.modes import untracked
from sslrun.nn.semi import SemiSupervised

POINTS = 2049  # of the table of quantiles from which mixing shares are drawn


class MixMatch(SemiSupervised):
    """Cross-entropy and squared error on mixtures of labelled samples and of unlabelled ones with sharpened guesses.

    Berthelot et al. 2019, arXiv:1905.02249. The guess is the mean over two weak views, made in training mode without
    moving batch norm's running statistics. Every row is mixed with one of all rows of all processes, with a share of
    its own that is never below one half, so that labelled rows stay mostly labelled.

    Args:
        unlabelled_weight: weight of the mean over rows and classes.
        ramp: share of training during which that weight rises as a straight line.
        temperature: that sharpens the guesses, above 0 and up to 1.
        alpha: of the Beta(alpha, alpha) from which shares are drawn, 0 or more; 0 mixes nothing.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
    """

    modalities = ("image",)  # inputs whose weighted means are inputs again
    views = {"labelled": {"view": "weak"}, "unlabelled": {"first": "weak", "second": "weak"}}

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        unlabelled_weight: float = 75.0,
        ramp: float = 0.4,
        temperature: float = 0.5,
        alpha: float = 0.75,
        ema: float = 0.999,
    ):
        super().__init__(encoder, spec, unlabelled_weight, ema, ramp)
        if not 0 < temperature <= 1:
            raise ValueError(f"temperature={temperature} must lie above 0 and not above 1, for example 0.5")
        if alpha < 0:
            raise ValueError(f"alpha={alpha} must be 0 or more, for example 0.75")
        self.temperature = temperature
        self.register_buffer("quantiles", larger_share(alpha), persistent=False)

    def rise(self) -> Tensor:
        return (self.done / self.ramp).clamp_max(1) if self.ramp else super().rise()

    @torch.no_grad()
    def guess(self, encoder: Encoder, first: Tensor, second: Tensor) -> Tensor:
        """Sharpened mean probabilities of two views, (B, K)."""
        with untracked(encoder):
            a, b = self.logits(encoder, first, second)
        return sharpen((torch.softmax(a, 1) + torch.softmax(b, 1)) / 2, self.temperature)

    def mix(self, batch: Batch, parts: list[tuple[str, Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        """Inputs (B, ...) and targets (B, K) of each part, mixed; a part is its stream, inputs and targets."""
        rngs = [batch.rng("mix", part, stream=stream) for part, (stream, _, _) in enumerate(parts)]
        inputs, targets = (torch.cat([gather(part[i]) for part in parts]) for i in (1, 2))  # of all processes
        partner = torch.cat([rng.whole().uniform() for rng in rngs]).argsort()  # a shuffle of all rows
        mixed, before = [], 0
        for rng, (_, x, y) in zip(rngs, parts, strict=True):
            other = partner[before : before + rng.total][rng.rows]
            before += rng.total
            share = self.share(rng.child("share").uniform())  # (B,)
            mixed.append(tuple(blend(own, everyone[other], share) for own, everyone in ((x, inputs), (y, targets))))
        return mixed

    def share(self, u: Tensor) -> Tensor:
        """max(l, 1 - l) of l ~ Beta(alpha, alpha), from uniform draws (B,)."""
        at = u.to(self.quantiles) * (POINTS - 1)
        below = at.floor().long().clamp_max(POINTS - 2)
        return torch.lerp(self.quantiles[below], self.quantiles[below + 1], at - below)

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        q = self.guess(encoder, unlabelled["first"], unlabelled["second"])
        known = F.one_hot(labelled["y"], q.shape[1]).to(q)
        parts = [("labelled", labelled["view"], known)]
        parts += [("unlabelled", unlabelled[view], q) for view in ("first", "second")]
        inputs, targets = zip(*self.mix(batch, parts), strict=True)
        x, *u = self.logits(encoder, *inputs)
        loss_x = -(targets[0] * torch.log_softmax(x, 1)).sum(1).mean()
        loss_u = (torch.softmax(torch.cat(u), 1) - torch.cat(targets[1:])).square().mean()
        return self.total(x, labelled["y"], loss_u, loss_x, **self.judged(q.argmax(1), unlabelled["y"]))

    @staticmethod
    def examples() -> list[Example]:
        log = math.log
        streams = {
            "labelled": {"view": ((0.5, 0.5), (0.8, 0.2)), "y": (0, 1)},
            "unlabelled": {"first": ((0.8, 0.2), (0.4, 0.6)), "second": ((0.6, 0.4), (0.4, 0.6))},
        }
        guess, other = 0.49 / 0.58, 0.16 / 0.52  # means 0.7 and 0.4, to the power of 1 / 0.5, as probabilities
        apart = ((0.8 - guess) ** 2 + (0.6 - guess) ** 2 + 2 * (0.4 - other) ** 2) / 4  # alike in both classes
        labelled = -(log(0.5) + log(0.2)) / 2
        alone = {"alpha": 0.0, "temperature": 0.5, "unlabelled_weight": 3.0, "ramp": 0.4}
        return [
            Example(
                "Mean over rows and classes of the squared difference to the sharpened mean guess of both views.",
                streams,
                settings=alone,
                expected={"loss": labelled + 3 * apart, "loss_labelled": labelled, "loss_unlabelled": apart},
                learns={"unlabelled.first": (0, 1), "unlabelled.second": (0, 1)},
            ),
            Example(
                "The weight rises as a straight line.",
                streams,
                done=0.1,
                settings=alone,
                expected={"loss": labelled + 0.75 * apart},
            ),
            Example(
                "Each row keeps a share of its own of at least one half, in its input and its label alike.",
                streams,
                settings={"alpha": 0.75},
                rule=_mixes_each_row_with_another,
            ),
        ]


def _mixes_each_row_with_another(objective: MixMatch, batch: Batch) -> str | None:
    """Mixes rows of an identity matrix: what comes out names the rows and their shares."""
    rows = torch.eye(6)
    parts = [("labelled", rows[:2], rows[:2]), ("unlabelled", rows[2:4], rows[2:4]), ("unlabelled", rows[4:], rows[4:])]
    inputs, targets = (torch.cat(mixed) for mixed in zip(*objective.mix(batch, parts), strict=True))
    own = inputs.diagonal()
    if not torch.equal(inputs, targets):
        return "labels are mixed otherwise than inputs"
    if (own < 0.5).any():
        return f"a row keeps a share of {own.min():.3g} of itself"
    if ((inputs > 0).sum(0) > 2).any():
        return "a row is mixed into several others, which no shuffle does"
    mixed = own[own < 1]
    return "rows are mixed with one share" if len(mixed.unique()) < len(mixed) or not len(mixed) else None


def sharpen(p: Tensor, temperature: float) -> Tensor:
    """Probabilities (B, K) to the power of 1 / temperature, as probabilities."""
    return torch.softmax(p.clamp_min(1e-12).log() / temperature, 1)


def blend(own: Tensor, other: Tensor, share: Tensor) -> Tensor:
    share = share.view(-1, *(1,) * (own.dim() - 1)).to(own.dtype)
    return share * own + (1 - share) * other


def larger_share(alpha: float) -> Tensor:
    """Quantiles of max(l, 1 - l) for l ~ Beta(alpha, alpha), (POINTS,): the upper half of those of l itself."""
    if alpha == 0:
        return torch.ones(POINTS)
    return torch.from_numpy(betaincinv(alpha, alpha, np.linspace(0.5, 1, POINTS))).float()
