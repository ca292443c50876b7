"""RandAugment as FixMatch uses it: two operations of fourteen for each image, each at a random strength."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.augment.colour import contrast_matrix, mean_colour, recolour, saturation_matrix, scaling
from sslrun.augment.geometry import warp
from sslrun.augment.op import Op, Params, on_rows
from sslrun.contracts import UserError
from sslrun.nn.warp import affine_matrix, matrix_of
from sslrun.rng import Rng

COLOURS = ("identity", "color", "contrast", "brightness")
MOVES = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OTHERS = ("autocontrast", "equalize", "solarize", "sharpness", "posterize")
POOL = COLOURS + MOVES + OTHERS


class RandAugment(Op):
    """`n` operations of FixMatch's pool for each image, drawn with replacement (Cubuk et al., 2019; Sohn et al., 2020).

    Strengths are uniform for each image and operation: rotate +-30 degrees, shear and translate +-.3, solarize from
    a threshold in [0, 1], color, contrast, brightness and sharpness in [.05, .95], posterize to 4 to 8 bits.
    What moves in from outside is black. Images that share an operation are gathered, so that each runs once.
    """

    whole = True

    def __init__(self, n: int = 2):
        super().__init__()
        if n < 1:
            raise UserError(f"n={n} operations is too few for RandAugment; give 1 or more.")
        self.n = n

    def draw(self, rng: Rng, shape: torch.Size) -> Params:
        return {"choice": rng.integers(len(POOL), self.n), "strength": rng.uniform(self.n)}

    def apply(self, x: Tensor, choice: Tensor, strength: Tensor) -> Tensor:
        """`choice` (B, n) are positions in POOL, `strength` (B, n) is uniform in [0, 1)."""
        for turn in range(self.n):
            op, s = choice[:, turn], strength[:, turn].to(x.dtype)
            x = on_rows(x, (op > 0) & (op < len(COLOURS)), recolour_by, op, s)
            x = on_rows(x, (op >= len(COLOURS)) & (op < len(COLOURS) + len(MOVES)), move_by, op, s)
            for name in OTHERS:
                x = on_rows(x, op == POOL.index(name), globals()[name], s)
        return x


def pick(op: Tensor, table: dict[str, Tensor]) -> Tensor:
    """Of matrices (B, r, c) by name, the one that each sample's operation names."""
    where = {POOL.index(name): i for i, name in enumerate(table)}
    lookup = torch.tensor([where.get(i, 0) for i in range(len(POOL))], device=op.device)
    return torch.stack(list(table.values()), 1)[torch.arange(len(op), device=op.device), lookup[op]]


def recolour_by(x: Tensor, op: Tensor, strength: Tensor) -> Tensor:
    factor, mean = 0.05 + 0.9 * strength, mean_colour(x)
    table = {
        "color": saturation_matrix(factor, mean),
        "contrast": contrast_matrix(factor, mean),
        "brightness": scaling(factor, mean),
    }
    return recolour(x, pick(op, table))


def move_by(x: Tensor, op: Tensor, strength: Tensor) -> Tensor:
    """Shears hold the first row or column in place, as PIL's transform does."""
    height, width = x.shape[-2:]
    slope, one = 0.3 * (2 * strength - 1), torch.ones_like(strength)
    zero, across, down = torch.zeros_like(one), slope * (height / width), slope * (width / height)
    table = {
        "rotate": affine_matrix(30 * (2 * strength - 1), zero, zero, one, zero, height, width),
        "shear_x": matrix_of([[one, across, across], [zero, one, zero]]),
        "shear_y": matrix_of([[one, zero, zero], [down, one, down]]),
        "translate_x": matrix_of([[one, zero, 2 * slope], [zero, one, zero]]),
        "translate_y": matrix_of([[one, zero, zero], [zero, one, 2 * slope]]),
    }
    return warp(x, pick(op, table), (height, width), "zeros", separable=False)


def autocontrast(x: Tensor, strength: Tensor | None = None) -> Tensor:
    """Each channel stretched to [0, 1]; flat ones stay."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) / (high - low).clamp_min(1e-8), x)


def equalize(x: Tensor, strength: Tensor | None = None) -> Tensor:
    """Each channel's histogram of 256 levels flattened, by PIL's rule."""
    level = levels(x).long().flatten(2)  # (B, C, HW)
    count = torch.zeros(*x.shape[:2], 256, dtype=torch.long, device=x.device)
    count.scatter_add_(2, level, torch.ones_like(level))
    brightest = count.gather(2, level.amax(2, keepdim=True))
    step = (level.shape[2] - brightest) // 255  # (B, C, 1); PIL leaves the brightest level out
    table = (count.cumsum(2) - count + step // 2) // step.clamp_min(1)
    table = torch.where(step > 0, table.clamp(0, 255), torch.arange(256, device=x.device))
    return (table.gather(2, level).to(x.dtype) / 255).view_as(x)


def solarize(x: Tensor, strength: Tensor) -> Tensor:
    """Values at or above the threshold inverted."""
    return torch.where(x >= strength.view(-1, 1, 1, 1), 1 - x, x)


def sharpness(x: Tensor, strength: Tensor) -> Tensor:
    """Between a smoothed image and the image, which keeps its outermost pixels."""
    if min(x.shape[-2:]) < 3:
        return x
    factor = (0.05 + 0.9 * strength).view(-1, 1, 1, 1)
    kernel = torch.ones(3, 3, dtype=x.dtype, device=x.device)
    kernel[1, 1] = 5
    smooth = F.conv2d(x.flatten(0, 1).unsqueeze(1), (kernel / 13).view(1, 1, 3, 3))
    out = x.clone()
    inner = out[:, :, 1:-1, 1:-1]
    inner.copy_(torch.lerp(smooth.view_as(inner), inner, factor))
    return out


def posterize(x: Tensor, strength: Tensor) -> Tensor:
    """The upper 4 to 8 bits of 8."""
    bits = 4 + (strength * 5).floor().clamp_max(4)
    step = 2 ** (8 - bits).view(-1, 1, 1, 1)
    return (levels(x) / step).floor() * step / 255


def levels(x: Tensor) -> Tensor:
    """[0, 1] as whole numbers from 0 to 255."""
    return (x * 255).round().clamp_(0, 255)
