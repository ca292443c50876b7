"""Brightness, contrast, saturation, hue and grey: a matrix per image, and a run of them costs one multiplication.

A matrix (B, C, C + 1) maps the colour of a pixel, followed by 1, to its new colour. Values are clamped to [0, 1] once
at the end of a run, where torchvision clamps after each operation.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sslrun.augment.op import Op, Params, probability
from sslrun.contracts import UserError
from sslrun.rng import Rng

LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601


class Colour(Op):
    """An operation that changes every pixel by one matrix of its image, which may depend on the mean colour.

    What is not linear comes after the matrix, in `rest`, for classes where `linear` is false.
    """

    needs_mean = False
    linear = True
    p = 1.0  # the share of the images that it changes

    def matrix(self, mean: Tensor, **params: Tensor) -> Tensor:
        """(B, C, C + 1) from the mean colour (B, C) of the images it will be applied to."""
        raise NotImplementedError

    def rest(self, x: Tensor, **params: Tensor) -> Tensor:
        """What follows the matrix; `x` is nobody else's, and may be written into."""
        return x

    def apply(self, x: Tensor, **params: Tensor) -> Tensor:
        return self.rest(recolour(x, self.matrix(mean_colour(x), **params)), **params)


class ColorJitter(Colour):
    """Random brightness, contrast, saturation and hue, in this order, for a share `p` of the images (SimCLR).

    Factors are uniform in 1 +- the strength, the hue's shift in +- `hue` turns (at most .5). Images that do not have
    three channels keep to brightness and contrast.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        p: float = 1.0,
    ):
        super().__init__()
        for key, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
            if value < 0:
                raise UserError(f"{key}={value} is negative; give a strength of 0 or more.")
        if not 0 <= hue <= 0.5:
            raise UserError(f"hue={hue} is out of range; give a share of a full turn from 0 to 0.5.")
        self.strengths, self.hue, self.p = (brightness, contrast, saturation), hue, probability("p", p)
        self.needs_mean, self.linear = contrast > 0, hue == 0

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        chosen = rng.chance(self.p)
        params = {}
        for key, strength in zip(("brightness", "contrast", "saturation"), self.strengths, strict=True):
            factor = rng.uniform(low=max(0.0, 1 - strength), high=1 + strength)
            params[key] = torch.where(chosen, factor, 1.0)
        params["hue"] = torch.where(chosen, rng.uniform(low=-self.hue, high=self.hue), 0.0)
        return params

    def matrix(self, mean: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
        both = contrast_matrix(contrast, mean)
        both *= brightness.to(mean.dtype).view(-1, 1, 1)  # a factor before contrast is the same factor after it
        matrices = [both, saturation_matrix(saturation, mean)]
        if mean.shape[1] == 3 and self.hue > 1 / 6:
            matrices.append(thirds_matrix(thirds(hue), mean))
        return chain(*matrices)

    def rest(self, x: Tensor, hue: Tensor, **params: Tensor) -> Tensor:
        return x if x.shape[1] != 3 or self.linear else shift_hue(x, hue - thirds(hue) / 3)


class Grayscale(Colour):
    """The luma in all three channels, for a share `p` of the images; other numbers of channels stay."""

    def __init__(self, p: float = 0.2):
        super().__init__()
        self.p = probability("p", p)

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        return {"saturation": 1 - rng.chance(self.p).float()}

    def matrix(self, mean: Tensor, saturation: Tensor) -> Tensor:
        return saturation_matrix(saturation, mean)


def mean_colour(x: Tensor) -> Tensor:
    return x.mean((2, 3))  # (B, C)


def recolour(x: Tensor, matrix: Tensor) -> Tensor:
    """`x` (B, C, H, W) in [0, 1] by a matrix (B, C, C + 1), clamped."""
    matrix = matrix.to(x.dtype)
    return torch.baddbmm(matrix[:, :, -1:], matrix[:, :, :-1], x.flatten(2)).clamp_(0, 1).view_as(x)


def moved(mean: Tensor, matrix: Tensor) -> Tensor:
    """The mean colour (B, C) of images after the matrix."""
    return torch.baddbmm(matrix[:, :, -1:], matrix[:, :, :-1], mean.unsqueeze(2)).squeeze(2)


def chain(*matrices: Tensor) -> Tensor:
    """One matrix that does what these do, first to last."""
    whole = matrices[0]
    for matrix in matrices[1:]:
        whole = matrix[:, :, :-1] @ whole
        whole[:, :, -1] += matrix[:, :, -1]
    return whole


def changes(matrix: Tensor) -> Tensor:
    """Which of the matrices are more than the identity, (B,)."""
    unit = torch.eye(*matrix.shape[1:], dtype=matrix.dtype, device=matrix.device)
    return (matrix != unit).flatten(1).any(1)


def grey_weights(like: Tensor) -> Tensor:
    """The share of each channel in grey, (C,): luma for three channels, equal shares otherwise."""
    channels = like.shape[1]
    return like.new_tensor(LUMA if channels == 3 else (1 / channels,) * channels)


def scaling(factor: Tensor, mean: Tensor, offset: Tensor | None = None) -> Tensor:
    """factor * x + offset, with (B,) both."""
    channels = mean.shape[1]
    unit = torch.eye(channels, channels + 1, dtype=mean.dtype, device=mean.device)
    matrix = factor.to(mean.dtype).view(-1, 1, 1) * unit
    if offset is not None:
        matrix[:, :, -1] = offset.unsqueeze(1)
    return matrix


def contrast_matrix(factor: Tensor, mean: Tensor) -> Tensor:
    """Away from, or towards, the mean grey of the image."""
    factor = factor.to(mean.dtype)
    return scaling(factor, mean, (1 - factor) * (mean @ grey_weights(mean)))


def saturation_matrix(factor: Tensor, mean: Tensor) -> Tensor:
    """Away from, or towards, the grey of each pixel; nothing where there are not three channels."""
    if mean.shape[1] != 3:
        return scaling(torch.ones_like(factor), mean)
    matrix = scaling(factor, mean)
    matrix[:, :, :-1] += (1 - factor.to(mean.dtype)).view(-1, 1, 1) * grey_weights(mean)
    return matrix


def thirds(turns: Tensor) -> Tensor:
    """The whole number of thirds of a turn nearest to each."""
    return (3 * turns).round()


def thirds_matrix(number: Tensor, mean: Tensor) -> Tensor:
    """A hue shift by whole thirds of a turn, which hands each channel's value on to the next."""
    rows = (torch.arange(3, device=mean.device) - number.long().unsqueeze(1)) % 3  # (B, 3)
    return torch.eye(3, 4, dtype=mean.dtype, device=mean.device)[rows]


def shift_hue(x: Tensor, turns: Tensor) -> Tensor:
    """Adds `turns` (B,), at most a sixth either way, to the hue in HSV of `x` (B, 3, H, W), which it writes into.

    The largest and the smallest channel of a pixel keep their values and the middle one moves by 6 * turns * chroma,
    up where the next two channels (red, green, blue, red, ...) descend; what would leave the range goes on in another
    channel. For all three that is one line, clamped: 2 * channel - middle - sign(next - one after) * 6 * turns * chroma
    is the moved value in the middle channel, what has gone on in an outer one, and beyond the range elsewhere. No hue
    is ever divided out, and no pixel asked which channel is its largest.
    """
    red, green, blue = x.unbind(1)
    upper, lower = torch.maximum(green, blue), torch.minimum(green, blue)
    high, rest = torch.maximum(red, upper), torch.minimum(red, upper)
    middle, low = torch.maximum(rest, lower), torch.minimum(rest, lower)
    step = (high - low).mul_((6 * turns).to(x.dtype).view(-1, 1, 1))
    sign = torch.empty_like(x)
    for channel, (after, before) in enumerate(((green, blue), (blue, red), (red, green))):
        torch.sub(after, before, out=sign[:, channel])
    torch.lerp(middle.unsqueeze(1), x, 2.0, out=x)  # in place: memory that is new to the processor's cache costs more
    return x.addcmul_(sign.sign_(), step.unsqueeze(1), value=-1).clamp_(low.unsqueeze(1), high.unsqueeze(1))
