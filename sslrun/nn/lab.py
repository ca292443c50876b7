"""CIE 1976 L*a*b* of sRGB colours under daylight (D65): lightness apart from colour, in steps that look alike."""

from __future__ import annotations

import torch
from torch import Tensor

# linear sRGB to XYZ (IEC 61966-2-1), each row divided by the white's, so that white is (1, 1, 1)
XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)
KNEE = 6 / 29  # below its cube, the cube root is continued by a straight line


def linear(x: Tensor) -> Tensor:
    """sRGB in [0, 1] as amounts of light in [0, 1]."""
    return torch.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055).clamp_min(0) ** 2.4)


def gamma(x: Tensor) -> Tensor:
    """The inverse of `linear`."""
    return torch.where(x <= 0.0031308, x * 12.92, 1.055 * x.clamp_min(0.0031308) ** (1 / 2.4) - 0.055)


def root(t: Tensor) -> Tensor:
    return torch.where(t > KNEE**3, t.clamp_min(KNEE**3) ** (1 / 3), t / (3 * KNEE**2) + 4 / 29)


def mixed(x: Tensor, matrix: Tensor) -> Tensor:
    return torch.einsum("ij,bj...->bi...", matrix.to(x), x)


def to_xyz() -> Tensor:
    return torch.tensor(XYZ, dtype=torch.float64) / torch.tensor(WHITE, dtype=torch.float64).unsqueeze(1)


def lightness(x: Tensor) -> Tensor:
    """L* of sRGB colours (B, 3, ...) in [0, 1], (B, 1, ...) in [0, 100]."""
    return 116 * root(mixed(linear(x), to_xyz()[1:2])) - 16


def lab(x: Tensor) -> Tensor:
    """L*, a* and b* (B, 3, ...) of sRGB colours (B, 3, ...) in [0, 1]."""
    x, y, z = root(mixed(linear(x), to_xyz())).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def light(x: Tensor) -> Tensor:
    """Linear sRGB (B, 3, ...) of L*, a* and b* (B, 3, ...); outside [0, 1] where no screen shows the colour."""
    bright, a, b = x.unbind(1)
    y = (bright + 16) / 116
    t = torch.stack([y + a / 500, y, y - b / 200], 1)
    return mixed(torch.where(t > KNEE, t**3, 3 * KNEE**2 * (t - 4 / 29)), to_xyz().inverse())


def rgb(x: Tensor) -> Tensor:
    """sRGB colours in [0, 1] of L*, a* and b* (B, 3, ...); what no screen shows is clipped."""
    return gamma(light(x).clamp(0, 1))
