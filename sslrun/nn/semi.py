"""What methods share that learn from labelled and unlabelled samples in one step."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import Batch, DataSpec, Encoder
from sslrun.nn.classifier import Classifier
from sslrun.nn.ema import Ema
from sslrun.nn.gather import all_sum


class SemiSupervised(Classifier):
    """Cross-entropy of the labelled samples, a second term that unlabelled ones make, and an averaged network.

    A subclass makes class logits of everything by `logits`, and its losses by `total`.

    Args:
        unlabelled_weight: weight of the second term, 0 or more.
        ema: decay of the averaged network that is judged under `ema`, in [0, 1).
        ramp: share of training during which the weight rises as exp(-5 (1 - t / T)^2) (Laine and Aila 2017,
            arXiv:1610.02242); 0: full from the start.
    """

    streams = ("labelled", "unlabelled")

    def __init__(self, encoder: Encoder, spec: DataSpec, unlabelled_weight: float, ema: float, ramp: float = 0.0):
        super().__init__(encoder, spec)
        if unlabelled_weight < 0:
            raise ValueError(f"unlabelled_weight={unlabelled_weight} must be 0 or more, for example 1")
        if not 0 <= ema < 1:
            raise ValueError(f"ema={ema} must lie in [0, 1), for example 0.99")
        if not 0 <= ramp <= 1:
            raise ValueError(f"ramp={ramp} must lie between 0 and 1, for example 0.4")
        self.unlabelled_weight, self.ramp = unlabelled_weight, ramp
        self.ema = Ema(nn.ModuleList([encoder, self.head]), decay=ema)

    def logits(self, encoder: Encoder, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Class logits of each of the inputs, in fp32; in one pass, so that batch norm sees one batch of them all."""
        return single(self.head(encoder(torch.cat(inputs)))).split([len(x) for x in inputs])

    def averaged(self, x: Tensor) -> Tensor:
        """Class logits of the averaged network, (B, K) in fp32."""
        encoder, head = self.ema.module
        return single(head(encoder(x)))

    @property
    def done(self) -> Tensor:
        """The share of training that is over, in [0, 1]."""
        return (self.ema.t / max(self.horizon, 1)).clamp_max(1)

    def rise(self) -> Tensor:
        """The factor of the unlabelled term's weight at this step."""
        if not self.ramp:
            return torch.ones_like(self.done)
        return torch.exp(-5 * (1 - (self.done / self.ramp).clamp_max(1)) ** 2)

    def labelled_loss(self, logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits, y)

    def total(
        self, x: Tensor, y: Tensor, loss_u: Tensor, loss_x: Tensor | None = None, **told: Tensor
    ) -> dict[str, Tensor]:
        """What `forward` returns, of labelled logits (B, K) and classes (B,), the unlabelled term, and what is told.

        The labelled term is `labelled_loss`, unless it is given.
        """
        loss_x = self.labelled_loss(x, y) if loss_x is None else loss_x
        loss = loss_x + self.unlabelled_weight * self.rise() * loss_u
        own = {"loss": loss, "loss_labelled": loss_x, "loss_unlabelled": loss_u, "accuracy": hits(x.argmax(1), y)}
        return own | told

    def judged(self, guess: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The accuracy of pseudo-labels (B,) where there are labels to hold them against: on validation samples."""
        if self.training or not (y >= 0).any():
            return {}
        return {"pseudo_accuracy": hits(guess, y)}

    def after_step(self, encoder: Encoder) -> None:
        self.ema.update(nn.ModuleList([encoder, self.head]))

    def ema_predict(self, encoder: Encoder, x: Any) -> Tensor:
        return torch.softmax(self.averaged(x), 1)


class WeakToStrong(SemiSupervised):
    """A guess on the weak view is what the strong view of the same sample learns, as far as it can be trusted.

    A subclass writes `trust`, and may write `guess`. The unlabelled term is a mean over ALL unlabelled rows, so that
    few trusted rows weigh little.
    """

    views = {"labelled": {"weak": "weak"}, "unlabelled": {"weak": "weak", "strong": "strong"}}

    def guess(self, weak: Tensor) -> Tensor:
        """Logits (B, K) that pseudo-labels are made of, from those of the weak views."""
        return weak

    def trust(self, p: Tensor, index: Tensor) -> Tensor:
        """Weights (B,) in [0, 1] of unlabelled rows with weak probabilities p (B, K) and places in the data (B,)."""
        raise NotImplementedError

    def disagreement(self, strong: Tensor, weak: Tensor) -> Tensor:
        """Loss of each row, (B,), of its strong and weak logits (B, K)."""
        return F.cross_entropy(strong, weak.argmax(1), reduction="none")

    def extra(self, strong: Tensor, trust: Tensor) -> dict[str, tuple[float, Tensor]]:
        """Further terms by name, each with its weight, of the strong logits (B, K) and the rows' weights (B,)."""
        return {}

    def forward(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        labelled, unlabelled = batch["labelled"], batch["unlabelled"]
        x, weak, strong = self.logits(encoder, labelled["weak"], unlabelled["weak"], unlabelled["strong"])
        weak = self.guess(weak.detach())
        p = torch.softmax(weak, 1)  # (mu B, K)
        trust = self.trust(p, unlabelled["index"])
        loss_u = (self.disagreement(strong, weak) * trust).mean()
        judged = self.judged(p.argmax(1), unlabelled["y"])
        out = self.total(x, labelled["y"], loss_u, mask_rate=trust.mean(), **judged)
        for name, (weight, term) in self.extra(strong, trust).items():
            out["loss"], out[name] = out["loss"] + weight * term, term
        return out


def follow(shares: Tensor, p: Tensor, decay: float) -> None:
    """Moves running class shares (K,) to those of the probabilities (B, K) of all processes, in place.

    They stay above 0, since they are divided by, also where a class is not guessed for a hundred thousand steps.
    """
    sums = all_sum(torch.cat([p.sum(0), p.new_ones(1) * len(p)]))
    shares.lerp_((sums[:-1] / sums[-1]).to(shares), 1 - decay).clamp_min_(1e-6)


def single(x: Tensor) -> Tensor:
    """At least single precision, which exponentials want; a run in double keeps it."""
    return x if x.dtype == torch.float64 else x.float()


def hits(guess: Tensor, y: Tensor) -> Tensor:
    """The share of guesses (B,) that are right, of the rows whose label is known (-1: it is not)."""
    known = y >= 0
    return ((guess == y) & known).sum() / known.sum().clamp_min(1)


def refuse_threshold(threshold: float) -> None:
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold={threshold} must lie above 0 and not above 1, for example 0.95")
