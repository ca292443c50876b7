"""Maps of the plane as matrices, one per picture, and resampling by them.

A matrix (B, 3, 3) maps output to input positions (x, y, 1), in units where an image spans -1 to 1 from edge to edge
(half-pixel centres, torch's `align_corners=False`); a last row other than 0, 0, 1 is a perspective.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.rng import Rng


def matrix_of(rows: list[list[Tensor]]) -> Tensor:
    """(B, 3, 3) from the upper two rows of (B,) entries."""
    one, zero = torch.ones_like(rows[0][0]), torch.zeros_like(rows[0][0])
    return torch.stack([*rows[0], *rows[1], zero, zero, one], 1).view(-1, 3, 3)


def axis_matrix(zoom_x: Tensor, zoom_y: Tensor, shift_x: Tensor | None = None, shift_y: Tensor | None = None) -> Tensor:
    """Rows and columns stretched and shifted independently."""
    zero = torch.zeros_like(zoom_x)
    shift_x, shift_y = zero if shift_x is None else shift_x, zero if shift_y is None else shift_y
    return matrix_of([[zoom_x, zero, shift_x], [zero, zoom_y, shift_y]])


def affine_matrix(
    angle: Tensor, across: Tensor, down: Tensor, zoom: Tensor, shear: Tensor, height: int, width: int
) -> Tensor:
    """The inverse of: shear, rotate clockwise by `angle` degrees, zoom, shift by shares of the sides; each (B,)."""
    cos, sin = angle.deg2rad().cos(), angle.deg2rad().sin()
    # forward, in pixels: zoom * [[cos, -sin], [sin, cos]] @ [[1, -shear], [0, 1]]; its inverse is
    a, b = (cos - shear * sin) / zoom, (sin + shear * cos) / zoom
    c, d = -sin / zoom, cos / zoom
    b, c = b * (height / width), c * (width / height)  # sides of unequal length have unequal units
    return matrix_of([[a, b, -2 * (a * across + b * down)], [c, d, -2 * (c * across + d * down)]])


def compose(first: Tensor, then: Tensor) -> Tensor:
    """The product of matrices (B, 3, 3); elementwise, since autocast would round a matrix product to 16 bits."""
    return (first.unsqueeze(3) * then.unsqueeze(1)).sum(2)


def fit(matrix: Tensor, extent: Tensor, place: Tensor) -> Tensor:
    """Moves and scales what maps (B, 3, 3) read of the picture, so that it stays inside and touches no padding.

    `extent` (B,) is how much of the picture they span along the longer axis, up to 1, and `place` (B, 2) from -1 to 1
    where in the room that is left.
    """
    x, y, w = corners(matrix)  # (B, 4) each
    ends = torch.stack([x / w, y / w], 1)  # (B, 2, 4): convex, so that all else lies between
    low, high = ends.amin(2), ends.amax(2)
    middle, half = (low + high) / 2, (high - low) / 2
    zoom = extent / half.amax(1)
    shift = place * (1 - half * zoom.unsqueeze(1)) - middle * zoom.unsqueeze(1)
    return compose(axis_matrix(zoom, zoom, shift[:, 0], shift[:, 1]), matrix)


def corners(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x = matrix.new_tensor([-1.0, 1.0, -1.0, 1.0])
    y = matrix.new_tensor([-1.0, -1.0, 1.0, 1.0])
    return mapped(matrix, x, y)


def mapped(matrix: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Positions (N,) by every matrix (B, 3, 3), homogeneous: three of (B, N)."""
    a, b, c = (matrix[:, :, i].T.unsqueeze(2) for i in range(3))  # each (3, B, 1)
    return tuple(a * x + b * y + c)


def area(matrix: Tensor) -> Tensor:
    """How much of the picture, whose area is 4, maps read, (B,)."""
    x, y, w = corners(matrix)
    x, y = x / w, y / w
    return ((x[:, 3] - x[:, 0]) * (y[:, 2] - y[:, 1]) - (x[:, 2] - x[:, 1]) * (y[:, 3] - y[:, 0])).abs() / 2


def loose(rng: Rng, matrix: Tensor, least: float) -> Tensor:
    """`fit` with a random extent from `least` to 1 at a random place: no picture stays on its own pixels."""
    return fit(matrix, rng.uniform(low=least), rng.uniform(2, low=-1.0))


def resample(x: Tensor, matrix: Tensor) -> Tensor:
    """Bilinear resampling of pictures (B, C, H, W) by maps (B, 3, 3), perspectives included."""
    height, width = x.shape[2:]
    down, across = ((torch.arange(n, device=x.device) * 2 + 1) / n - 1 for n in (height, width))
    u, v, w = mapped(matrix, across.repeat(height), down.repeat_interleave(width))  # (B, H * W) each
    grid = torch.stack([u / w, v / w], 2).view(len(x), height, width, 2)
    return F.grid_sample(x, grid.to(x.dtype), "bilinear", "border", align_corners=False)


def tilt(across: Tensor, down: Tensor) -> Tensor:
    """Perspectives that divide positions by 1 + across * x + down * y, (B, 3, 3) from (B,); the sum stays below 1."""
    one, zero = torch.ones_like(across), torch.zeros_like(across)
    return torch.stack([one, zero, zero, zero, one, zero, across, down, one], 1).view(-1, 3, 3)
