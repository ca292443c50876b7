"""Operations on pixels that no matrix describes: blur, solarise, cutout, noise."""

from __future__ import annotations

import torch
from torch import Tensor

from sslrun.augment.op import Op, Params, on_rows, probability
from sslrun.contracts import UserError
from sslrun.nn.blur import gaussian_blur
from sslrun.rng import Rng

REFERENCE = 224  # the side of the pictures that widths of blur are given for


class GaussianBlur(Op):
    """Gaussian blur of random width for a share `p` of the images (SimCLR).

    `sigma` is the range of the standard deviation in pixels of a picture of 224 pixels, and follows the shorter side;
    the kernel is about a tenth of it, odd (23 at 224 pixels), with reflection at the border. Pictures whose shorter
    side is below `smallest` stay sharp: the width fades to less than half a pixel, and recipes for them use no blur.
    """

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0), p: float = 0.5, smallest: int = 48):
        super().__init__()
        if not 0 < sigma[0] <= sigma[1]:
            raise UserError(f"sigma={tuple(sigma)} is no range of widths; give two ascending positive numbers.")
        self.sigma, self.p, self.smallest = tuple(sigma), probability("p", p), smallest

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        side = min(shape[-2:])
        if side < self.smallest:
            none = torch.zeros(len(rng), device=rng.device)
            return {"chosen": none > 0, "sigma": none}
        low, high = (sigma * side / REFERENCE for sigma in self.sigma)
        return {"chosen": rng.chance(self.p), "sigma": rng.uniform(low=low, high=high)}

    def apply(self, x: Tensor, chosen: Tensor, sigma: Tensor) -> Tensor:
        return on_rows(x, chosen, blur, sigma)


class Solarize(Op):
    """Inverts the values at or above `threshold`, for a share `p` of the images (BYOL)."""

    def __init__(self, p: float = 0.2, threshold: float = 0.5):
        super().__init__()
        self.p, self.threshold = probability("p", p), threshold

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        return {"chosen": rng.chance(self.p)}

    def apply(self, x: Tensor, chosen: Tensor) -> Tensor:
        return on_rows(x, chosen, lambda part: torch.where(part >= self.threshold, 1 - part, part))


class Cutout(Op):
    """Fills a square, for a share `p` of the images (DeVries and Taylor, 2017).

    `size` is its side as a share of the image's; its centre is uniform over the pixels, so that it may hang over the
    border, as in FixMatch.
    """

    def __init__(self, size: float = 0.5, p: float = 1.0, fill: float = 0.5):
        super().__init__()
        self.size, self.p, self.fill = probability("size", size), probability("p", p), fill

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        height, width = shape[-2:]
        row, column = rng.integers(height), rng.integers(width)
        return {"chosen": rng.chance(self.p), "row": row, "column": column}

    def apply(self, x: Tensor, chosen: Tensor, row: Tensor, column: Tensor) -> Tensor:
        down, across = (self.inside(at, n) for at, n in ((row, x.shape[-2]), (column, x.shape[-1])))
        hidden = (chosen.unsqueeze(1) & down).unsqueeze(2) & across.unsqueeze(1)  # (B, H, W)
        return x.masked_fill(hidden.unsqueeze(1), self.fill)

    def inside(self, centre: Tensor, n: int) -> Tensor:
        """Positions of one axis that the square covers, (B, n)."""
        side = round(self.size * n)
        offset = torch.arange(n, device=centre.device) - centre.unsqueeze(1) + side // 2
        return (offset >= 0) & (offset < side)


class GaussianNoise(Op):
    """Adds normal noise of standard deviation `std` to images, clamped to [0, 1]."""

    def __init__(self, std: float = 0.1):
        super().__init__()
        self.std = std

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        return {"noise": rng.normal(*shape[1:]) * self.std}

    def apply(self, x: Tensor, noise: Tensor) -> Tensor:
        return (x + noise.to(x.dtype)).clamp_(0, 1)


def kernel_radius(shape: torch.Size) -> int:
    """A twentieth of the shorter side, at least one pixel, and within what reflection can fill."""
    side = min(shape[-2:])
    return min(max(1, side // 20), side - 1)


def blur(x: Tensor, sigma: Tensor) -> Tensor:
    """`x` (B, C, H, W) blurred by `sigma` (B,) pixels, within the kernel of its size."""
    return gaussian_blur(x, sigma, kernel_radius(x.shape))
