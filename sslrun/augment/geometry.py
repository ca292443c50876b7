"""Crops, flips, shifts and affine maps: each is a matrix per sample, and a run of them costs one resampling.

A matrix (B, 3, 3) maps output to input positions (x, y, 1), in units where an image spans -1 to 1 from edge to edge
(half-pixel centres, torch's `align_corners=False`). The first operation of a run stands leftmost in the product.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.augment.op import Op, Params, probability
from sslrun.contracts import UserError
from sslrun.nn.warp import affine_matrix, axis_matrix
from sslrun.rng import Rng

PADDINGS = ("zeros", "border", "reflection")


class Geometry(Op):
    """An operation that only moves pixels; its one parameter is `matrix` (B, 3, 3).

    `padding` says what lies outside the image (None: the operation never looks there); `separable` is true where rows
    and columns move independently, which allows a faster resampling; `size` is the side of the output (None: as is).
    """

    padding: str | None = None
    separable = True
    size: int | None = None

    def apply(self, x: Tensor, matrix: Tensor) -> Tensor:
        size = (self.size, self.size) if self.size else x.shape[-2:]
        return warp(x, matrix, size, self.padding or "border", self.separable)


class RandomResizedCrop(Geometry):
    """A crop of random area and aspect ratio, resized; torchvision's distribution (Szegedy et al., 2015).

    `scale` is the range of the area as a share of the image, `ratio` of width / height. Ten tries, then the largest
    central crop within `ratio`. Bilinear without antialiasing; in a recipe, an operation that follows and looks outside
    the crop sees what surrounds it in the image.
    """

    def __init__(
        self,
        scale: tuple[float, float] = (0.08, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        size: int | None = None,
    ):
        super().__init__()
        if not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(f"scale={tuple(scale)} is no range of areas; give two ascending shares in (0, 1].")
        if not 0 < ratio[0] <= ratio[1]:
            raise UserError(f"ratio={tuple(ratio)} is no range of aspect ratios; give two ascending positive numbers.")
        self.scale, self.ratio, self.size = tuple(scale), tuple(ratio), size

    def boxes(self, rng: Rng, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Top, left, height and width of each crop in whole pixels, each (B,)."""
        tries = 10
        area = height * width * rng.uniform(tries, low=self.scale[0], high=self.scale[1])  # (B, tries)
        ratio = rng.uniform(tries, low=math.log(self.ratio[0]), high=math.log(self.ratio[1])).exp()
        w, h = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
        first = fits.int().argmax(1, keepdim=True)  # argmax gives the first of equals
        w, h = w.gather(1, first).squeeze(1), h.gather(1, first).squeeze(1)
        top = (rng.uniform() * (height - h + 1)).floor()
        left = (rng.uniform() * (width - w + 1)).floor()

        central_w, central_h = float(width), float(height)
        if width / height < self.ratio[0]:
            central_h = float(round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            central_w = float(round(height * self.ratio[1]))
        found = fits.any(1)
        top = torch.where(found, top, (height - central_h) // 2)
        left = torch.where(found, left, (width - central_w) // 2)
        return top, left, h.where(found, central_h), w.where(found, central_w)

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        height, width = shape[-2:]
        return {"matrix": crop_matrix(*self.boxes(rng, height, width), height, width)}


class HorizontalFlip(Geometry):
    """Mirrors left and right with probability `p`."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = probability("p", p)

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        sign = 1 - 2 * rng.chance(self.p).float()
        return {"matrix": axis_matrix(sign, torch.ones_like(sign))}


class VerticalFlip(Geometry):
    """Mirrors top and bottom with probability `p`."""

    def __init__(self, p: float = 0.5):
        super().__init__()
        self.p = probability("p", p)

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        sign = 1 - 2 * rng.chance(self.p).float()
        return {"matrix": axis_matrix(torch.ones_like(sign), sign)}


class Translate(Geometry):
    """Shifts by whole pixels, up to `fraction` of each side or up to `pixels`; the default is FixMatch's weak view.

    `reflection` mirrors about the outermost pixels, as padding and cropping does.
    """

    def __init__(self, fraction: float = 0.125, pixels: int | None = None, padding: str = "reflection"):
        super().__init__()
        self.fraction, self.pixels, self.padding = fraction, pixels, known_padding(padding)

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        shifts = []
        for side in (shape[-1], shape[-2]):  # x, then y
            most = self.pixels if self.pixels is not None else int(self.fraction * side)
            shifts.append((rng.integers(2 * most + 1) - most) * (2.0 / side))
        one = torch.ones_like(shifts[0])
        return {"matrix": axis_matrix(one, one, *shifts)}


class Affine(Geometry):
    """Rotation, shift, zoom and shear about the centre, each uniform in its range.

    `degrees` and `translate` (a share of each side) are the largest absolute values, `scale` is the range of the zoom,
    `shear` the largest absolute slope of the vertical axis (a number of pixels per pixel, not an angle).
    """

    separable = False

    def __init__(
        self,
        degrees: float = 0.0,
        translate: float = 0.0,
        scale: tuple[float, float] = (1.0, 1.0),
        shear: float = 0.0,
        padding: str = "zeros",
    ):
        super().__init__()
        if not 0 < scale[0] <= scale[1]:
            raise UserError(f"scale={tuple(scale)} is no range of zooms; give two ascending positive numbers.")
        self.degrees, self.translate, self.scale, self.shear = degrees, translate, tuple(scale), shear
        self.padding = known_padding(padding)

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        angle, across, down, shear = (rng.uniform(4, low=-1.0) * self.limits(rng.device)).unbind(1)
        zoom = rng.uniform(low=self.scale[0], high=self.scale[1])
        return {"matrix": affine_matrix(angle, across, down, zoom, shear, *shape[-2:])}

    def limits(self, device: torch.device) -> Tensor:
        return torch.tensor([self.degrees, self.translate, self.translate, self.shear], device=device)


def known_padding(padding: str) -> str:
    if padding not in PADDINGS:
        raise UserError(f"padding={padding} is unknown; choose one of {', '.join(PADDINGS)}.")
    return padding


def crop_matrix(top: Tensor, left: Tensor, h: Tensor, w: Tensor, height: int, width: int) -> Tensor:
    """The box of pixels stretched over the whole output."""
    return axis_matrix(w / width, h / height, (2 * left + w) / width - 1, (2 * top + h) / height - 1)


def warp(x: Tensor, matrix: Tensor, size: tuple[int, int], padding: str, separable: bool) -> Tensor:
    """Bilinear resampling of `x` (B, C, H, W) by a matrix (B, 3, 3) to (B, C, *size)."""
    matrix = matrix.to(x.dtype)
    height, width = x.shape[-2:]
    if separable and padding != "zeros":
        return warp_axes(x, matrix, size, padding)
    grid = F.affine_grid(matrix[:, :2], [len(x), 1, *size], align_corners=False)  # (B, *size, 2)
    # torch's other convention reflects about the centres of the outermost pixels; the positions stay the same
    grid = grid * grid.new_tensor([width / max(width - 1, 1), height / max(height - 1, 1)])
    return F.grid_sample(x, grid, "bilinear", padding, align_corners=True)


def warp_axes(x: Tensor, matrix: Tensor, size: tuple[int, int], padding: str) -> Tensor:
    """Rows first, then columns as rows of the transposed images: two taps each instead of four taps a pixel."""
    batch, channels, height, width = x.shape
    if height == width and size[0] == size[1]:  # both axes at once
        zoom, shift = matrix[:, [1, 0], [1, 0]].T.flatten(), matrix[:, [1, 0], 2].T.flatten()
        at, weight = taps(zoom, shift, width, size[1], padding)
        (down, across), (upper, right) = at.view(2, batch, -1, 2), weight.view(2, batch, -1, 2)
    else:
        down, upper = taps(matrix[:, 1, 1], matrix[:, 1, 2], height, size[0], padding)  # (B, S, 2)
        across, right = taps(matrix[:, 0, 0], matrix[:, 0, 2], width, size[1], padding)
    start = torch.arange(batch * channels, device=x.device).view(batch, channels, 1, 1) * height
    upper = upper.unsqueeze(1).expand(-1, channels, -1, -1)
    x = mix_rows(x.reshape(-1, width), (start + down.unsqueeze(1)).view(-1, 2), upper.reshape(-1, 2))
    x = x.view(batch, -1, width).transpose(1, 2).reshape(batch * width, -1)  # (BW, CS)
    start = torch.arange(batch, device=x.device).view(batch, 1, 1) * width
    x = mix_rows(x, (start + across).view(-1, 2), right.reshape(-1, 2))
    return x.view(batch, size[1], -1).transpose(1, 2).contiguous().view(batch, channels, *size)


def mix_rows(rows: Tensor, at: Tensor, weight: Tensor) -> Tensor:
    """Weighted sums of two `rows` (N, D) each, by their positions and weights (L, 2); (L, D)."""
    if rows.device.type != "cpu":
        low, high = at.unbind(1)
        return torch.lerp(rows.index_select(0, low), rows.index_select(0, high), weight[:, 1:])
    # On a CPU this reads, weights and adds in one pass, without writing the rows that are mixed.
    return F.embedding_bag(at, rows, mode="sum", per_sample_weights=weight)


def taps(zoom: Tensor, shift: Tensor, n: int, size: int, padding: str) -> tuple[Tensor, Tensor]:
    """The input positions below and above each of `size` output positions, and their weights, each (B, size, 2)."""
    out = (torch.arange(size, device=zoom.device, dtype=zoom.dtype) * 2 + 1) / size - 1  # (size,)
    at = torch.addcmul(((shift + 1) * n - 1).unsqueeze(1), zoom.unsqueeze(1), out * n).mul_(0.5)  # in pixels
    if padding == "reflection" and n > 1:
        at = (n - 1) - ((n - 1) - at.abs() % (2 * (n - 1))).abs()
    at = at.clamp_(0, n - 1)
    low = at.floor()
    upper, low = at - low, low.long()
    return torch.stack([low, (low + 1).clamp_max_(n - 1)], 2), torch.stack([1 - upper, upper], 2)
