"""Gaussian blur of a width of its own for each picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(x: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Columns, then rows, of `x` (B, C, H, W) weighted by a normal density of width `sigma` (B,) pixels.

    The kernel has 2 `radius` + 1 taps, and pictures are reflected at their border: `radius` is below both sides.
    """
    offset = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    weight = torch.softmax(-0.5 * (offset / sigma.to(x.dtype).unsqueeze(1)) ** 2, 1)  # (B, 2 radius + 1)
    for axis, sides in ((2, (0, 0, radius, radius)), (3, (radius, radius, 0, 0))):
        x = smooth(F.pad(x, sides, mode="reflect"), weight, axis, x.shape[axis])
    return x


def smooth(padded: Tensor, weight: Tensor, axis: int, n: int) -> Tensor:
    """A symmetric kernel (B, k) per sample along one axis: a sum of shifted copies beats a grouped convolution."""
    radius = weight.shape[1] // 2
    weight = weight.view(*weight.shape, 1, 1, 1)
    out = padded.narrow(axis, radius, n) * weight[:, radius]
    for i in range(radius):
        out.addcmul_(padded.narrow(axis, i, n) + padded.narrow(axis, 2 * radius - i, n), weight[:, i])
    return out
