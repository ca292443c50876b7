"""Colorization: what colours does the grey picture have? (Zhang, Isola and Efros 2016, arXiv:1603.08511)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Encoder, Predict, Unfit
from sslrun.nn.heads import DenseHead
from sslrun.nn.lab import lab, lightness, rgb
from sslrun.rng import Rng

TARGETS = ("bins", "regression")
STEP = 10  # width of a bin in a* and b*
REACH = 13  # bins from -REACH to REACH times STEP cover all colours
NEIGHBOURS = 5  # bins that share a colour
SIGMA = 5.0  # of the Gaussian by which they share it, and by which the distribution of colours is smoothed
TEMPERATURE = 0.38  # of the annealed mean, between the likeliest bin (0) and the mean (1)
GREY = 1.0  # largest a* or b* of pictures without colour


class Colorization(Predict):
    """The colours of each part of a picture, from its lightness.

    Zhang, Isola and Efros 2016, arXiv:1603.08511. The encoder sees L* alone, in all three channels; asked for are a*
    and b* of cells of about 4 x 4 pixels. With `bins` each cell is classified: colours fall into squares of 10 x 10
    in a* and b*, of which sRGB reaches 261 (the paper counts 313), and are shared by the nearest five, so that the loss
    is the cross-entropy less that of a perfect answer. Rare colours count more, by the inverse of their smoothed
    frequency in the training part mixed with `uniform` of evenness, 1 on average. With `regression` the squared error
    counts, in standard deviations. Skill is measured against the best answer that is the same for all cells.

    The features are judged on pictures in colour, as those of any encoder.

    Args:
        target: `bins` or `regression`.
        uniform: evenness in the weights of rare colours, in (0, 1]; 1: all colours weigh the same.
        hidden: width of the head's hidden layer.
        recipe: augmentation before the colours are taken away; it has to leave the size alone.

    Raises Unfit where pictures do not have three channels, or none of them has colours.
    """

    modalities = ("image",)
    kind = "real"

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        target: str = "bins",
        uniform: float = 0.5,
        hidden: int = 256,
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec)
        channels, *size = spec.shape
        if channels != 3:
            raise Unfit(
                f"method=colorization needs red, green and blue, and pictures of data={spec.name} have {channels} "
                f"channel{'s' if channels > 1 else ''}; {INSTEAD}"
            )
        if target not in TARGETS:
            raise ValueError(f"target={target} is unknown; choose one of {', '.join(TARGETS)}")
        if not 0 < uniform <= 1:
            raise ValueError(f"uniform={uniform} must be a share above 0 and up to 1, for example 0.5")
        self.name, self.target, self.uniform = spec.name, target, uniform
        self.views = {"all": {"view": recipe}}
        table, centres = bins()
        self.register_buffer("table", table, persistent=False)  # (2 * REACH + 1,) twice: number of a bin, or -1
        self.register_buffer("centres", centres, persistent=False)  # (K, 2)
        self.register_buffer("weights", torch.ones(len(centres)))  # of a cell, by its nearest bin
        self.register_buffer("prior", torch.zeros(len(centres)))  # logits of the best constant answer
        self.register_buffer("mean", torch.zeros(2, 1, 1))
        self.register_buffer("std", torch.ones(2, 1, 1))
        out = len(centres) if target == "bins" else 2
        # a quarter of the picture's resolution, in whole cells for each token
        cells = zip(encoder.grid, size, strict=False)  # none where tokens form no grid, which the head refuses
        self.grid = tuple(g * max(1, round(n / 4 / g)) for g, n in cells)
        self.head = DenseHead(encoder, self.grid, out, hidden)

    def prepare(self, data: Any, encoder: Encoder) -> None:
        k, found = len(self.centres), []
        shared = torch.zeros(k * k, dtype=torch.float64)  # how much cells nearest to one bin give to another
        for rows in data.sample(10_000).split(100):
            colours = self.colours(data.train.inputs(rows))
            number, share = self.shared(colours)
            shared.index_add_(0, (number[:, :1] * k + number).flatten(), share.flatten().double())
            found.append(colours.transpose(0, 1).flatten(1))
        spread, mean = torch.std_mean(torch.cat(found, 1), 1)  # (2,) each
        if max(colours.abs().max() for colours in found) < GREY:
            raise Unfit(f"method=colorization finds no colours in the pictures of data={self.name}; {INSTEAD}")
        self.mean, self.std = mean.view(2, 1, 1), spread.clamp_min(GREY).view(2, 1, 1)
        shared = shared.view(k, k)
        self.weights = rarity(shared.sum(1).float(), self.centres, self.uniform)
        wanted = self.weights @ shared.float()
        self.prior = (wanted / wanted.sum()).clamp_min(1e-12).log()

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        return grey(x), self.colours(x)

    def colours(self, x: Tensor) -> Tensor:
        """a* and b* of each cell's mean colour, (B, 2, h, w)."""
        return lab(F.adaptive_avg_pool2d(x, self.grid))[:, 1:]

    def answer(self, encoder: Encoder, inputs: Tensor) -> Tensor:
        """Logits of the bins (B, K, h, w), or a* and b* (B, 2, h, w)."""
        out = self.head(encoder.tokens(inputs)[0])
        return out if self.target == "bins" else out * self.std + self.mean

    def losses(self, answer: Tensor, target: Tensor) -> Tensor:
        if self.target == "regression":
            return super().losses(answer / self.std, target / self.std)
        answer = answer.float()
        number, share = self.shared(target)
        cross = answer.logsumexp(1) - (answer.gather(1, number) * share).sum(1)  # (B, h, w)
        own = torch.special.entr(share).sum(1)  # that of the shares: taken off, a perfect answer costs nothing
        return ((cross - own) * self.weights[number[:, 0]]).mean((1, 2))

    def shared(self, colours: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest bins of colours (B, 2, h, w), nearest first, and the share of each, both (B, NEIGHBOURS, h, w).

        They are looked for around the nearest; at the rim of what a screen shows there may be fewer, whose share is 0.
        """
        at = (colours / STEP).round().clamp(1 - REACH, REACH - 1)
        move = torch.cartesian_prod(*[torch.arange(-1, 2, device=colours.device)] * 2)  # (9, 2)
        near = at.unsqueeze(1) + move.view(1, 9, 2, 1, 1)  # (B, 9, 2, h, w)
        number = self.table[tuple((near + REACH).long().unbind(2))]  # (B, 9, h, w)
        distance = (near * STEP - colours.unsqueeze(1)).square().sum(2).masked_fill(number < 0, torch.inf)
        distance, order = distance.topk(NEIGHBOURS, 1, largest=False)
        return number.gather(1, order).clamp_min(0), (-distance / (2 * SIGMA**2)).softmax(1).float()

    def guess(self, inputs: Tensor, target: Tensor) -> Tensor:
        if self.target == "regression":
            return self.mean.to(target.dtype).expand_as(target)
        return self.prior.view(1, -1, 1, 1).expand(len(target), -1, *target.shape[2:])

    def complete(self, encoder: Encoder, x: Tensor) -> Tensor:
        """The pictures (B, 3, H, W) in the colours that the network gives their lightness."""
        colours = self.answer(encoder, grey(x)).float()
        if self.target == "bins":
            colours = torch.einsum("bkhw,kc->bchw", (colours / TEMPERATURE).softmax(1), self.centres)
        colours = F.interpolate(colours, x.shape[2:], mode="bilinear", align_corners=False)
        return rgb(torch.cat([lightness(x), colours.to(x.dtype)], 1))

    def figure(self, encoder: Encoder, batch: Batch) -> dict[str, Tensor]:
        """The lightness, the same in the network's colours, and the picture as it is."""
        x = self.read(batch)
        return {"input": grey(x), "output": self.complete(encoder, x), "target": x}


INSTEAD = "method=denoising and method=inpainting work without."


def grey(x: Tensor) -> Tensor:
    """L* in [0, 1], in each of three channels: a grey picture is nearly what it was, (B, 3, H, W)."""
    return (lightness(x) / 100).expand(-1, 3, -1, -1)


def bins() -> tuple[Tensor, Tensor]:
    """Squares of a* and b* that hold colours of sRGB: their numbers (2 * REACH + 1,) twice, and centres (K, 2).

    The faces of the cube of all colours are enough, since a line along L* through any colour leaves the cube there,
    and a finer raster than this one finds no more squares.
    """
    level = torch.linspace(0, 1, 65)
    face = torch.cartesian_prod(level, level)
    faces = [
        torch.cat([face[:, :i], torch.full((len(face), 1), end), face[:, i:]], 1)
        for i in range(3)
        for end in (0.0, 1.0)
    ]
    place = (lab(torch.cat(faces))[:, 1:] / STEP).round().long().unique(dim=0)  # (K, 2)
    table = torch.full((2 * REACH + 1, 2 * REACH + 1), -1)
    table[tuple((place + REACH).T)] = torch.arange(len(place))
    return table, place.float() * STEP


def rarity(counts: Tensor, centres: Tensor, uniform: float) -> Tensor:
    """Weights (K,) of bins that occur `counts` times: 1 / ((1 - uniform) p + uniform / K), 1 on average over cells.

    p are the frequencies smoothed by a Gaussian over the bins.
    """
    kernel = (-torch.cdist(centres, centres).square() / (2 * SIGMA**2)).exp()  # (K, K)
    smooth = (kernel / kernel.sum(0)) @ (counts / counts.sum())
    weights = 1 / ((1 - uniform) * smooth + uniform / len(counts))
    return weights / (weights * smooth).sum()
