"""Corruption classification: what was done to the picture?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, Predict, UserError
from sslrun.nn.blur import blur
from sslrun.nn.warp import affine_matrix, axis_matrix, compose, loose, resample
from sslrun.rng import Rng

KINDS = (
    "none", "swapped", "stretched", "contracted", "rotated", "upside_down", "missing", "darkened", "blurred", "noisy",
)  # fmt: skip
ZOOM = 0.7  # the least extent of what is kept of a picture: that of one turned by 45 degrees is 0.7 as well
BLUR = (0.06, 0.1)  # shares of the shorter side


class CorruptionClassification(Predict):
    """Classification of which one of several corruptions a picture suffered.

    A transformation to tell, as in RotNet (Gidaris et al. 2018, arXiv:1803.07728). Kinds: `none`; `swapped` (halves
    change places across, down or both); `stretched` and `contracted` (wider, narrower than it was, by 1.4 to 1.8);
    `rotated` (by 45 degrees, either way); `upside_down` (by 180); `missing` (a quarter of the area shows the data's
    mean); `darkened` (to 0.3 to 0.6 of its value); `blurred` (a width of 0.06 to 0.1 of the shorter side); `noisy`
    (normal, alike in all channels, 0.3 to 0.6 of the data's standard deviation). Every picture, of whatever class, goes
    through one bilinear resampling by a map that stays inside it, with random extent and place: there is no padding to
    see, and no class whose pixels are the file's own.

    Args:
        kinds: two or more of the above.
        recipe: augmentation before the corruption.

    Raises UserError where `kinds` holds fewer than two, one twice or an unknown one, or pictures are below 4 pixels.
    """

    modalities = ("image",)
    kind = "class"

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        kinds: Sequence[str] = KINDS,
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec)
        if len(kinds) < 2 or len(set(kinds)) < len(kinds) or not set(kinds) <= set(KINDS):
            raise UserError(
                f"method.corruption_classification.kinds=[{','.join(map(str, kinds))}] must be two or more of "
                f"{', '.join(KINDS)}, each once."
            )
        channels, height, width = spec.shape
        if min(height, width) < 4:
            raise UserError(
                f"method=corruption_classification needs pictures of 4 x 4 pixels or more, and those of "
                f"data={spec.name} have {height} x {width}; method=flip_detection works."
            )
        self.kinds = tuple(kinds)
        self.num_targets = len(kinds)
        self.views = {"all": {"view": recipe}}
        self.register_buffer("mean", torch.tensor(spec.mean or (0.0,) * channels).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std or (1.0,) * channels).view(-1, 1, 1), persistent=False)
        self.head = nn.Linear(encoder.dim, len(kinds))

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        target = rng.integers(self.num_targets)  # (B,)
        chosen = {name: target == i for i, name in enumerate(self.kinds)}  # (B,) each
        x = resample(x, self.maps(chosen, rng, x.shape))
        for name, change in (
            ("swapped", swap),
            ("blurred", soften),
            ("darkened", darken),
            ("missing", self.hide),
            ("noisy", self.disturb),
        ):
            if name in chosen:
                x = change(x, chosen[name], rng)
        return x, target

    def maps(self, chosen: dict[str, Tensor], rng: Rng, shape: torch.Size) -> Tensor:
        """One map (B, 3, 3) of each picture: its stretch and turn, or none, at a random extent and place."""
        amount, side = rng.uniform(low=1.4, high=1.8), rng.chance(0.5)
        one = torch.ones_like(amount)
        never = torch.zeros_like(side)
        across = torch.where(chosen.get("stretched", never), 1 / amount, one)
        down = torch.where(chosen.get("contracted", never), 1 / amount, one)
        angle = 180.0 * chosen.get("upside_down", never) + (90.0 * side - 45.0) * chosen.get("rotated", never)
        turn = affine_matrix(angle, 0 * one, 0 * one, one, 0 * one, *shape[2:])
        return loose(rng, compose(turn, axis_matrix(across, down)), ZOOM)

    def hide(self, x: Tensor, chosen: Tensor, rng: Rng) -> Tensor:
        """The data's mean in a box of half the height and half the width."""
        down, across = (within(n, rng) for n in x.shape[2:])
        inside = pixels(chosen) & down.view(len(x), 1, -1, 1) & across.view(len(x), 1, 1, -1)  # (B, 1, H, W)
        return torch.where(inside, self.mean.to(x.dtype), x)

    def disturb(self, x: Tensor, chosen: Tensor, rng: Rng) -> Tensor:
        """Normal noise, the same in every channel: a draw for each of them would cost more than all else here."""
        level = rng.uniform(low=0.3, high=0.6) * chosen
        return x + (rng.normal(1, *x.shape[2:]) * pixels(level) * self.std).to(x.dtype)

    def answer(self, encoder: Encoder, inputs: Any) -> Tensor:
        return self.head(encoder(inputs))


def pixels(value: Tensor) -> Tensor:
    """(B,) to go with pictures, (B, 1, 1, 1)."""
    return value.view(-1, 1, 1, 1)


def within(n: int, rng: Rng) -> Tensor:
    """Half of `n` positions in a row, from a random one on, (B, n)."""
    offset = torch.arange(n, device=rng.device) - rng.integers(n - n // 2 + 1).unsqueeze(1)
    return (offset >= 0) & (offset < n // 2)


def swap(x: Tensor, chosen: Tensor, rng: Rng) -> Tensor:
    """Halves that change places: left and right, top and bottom, or both."""
    way = rng.integers(3)
    for axis, other in ((2, 0), (3, 1)):
        x = torch.where(pixels(chosen & (way != other)), x.roll(x.shape[axis] // 2, axis), x)
    return x


def soften(x: Tensor, chosen: Tensor, rng: Rng) -> Tensor:
    side = min(x.shape[2:])
    width = rng.uniform(low=BLUR[0], high=BLUR[1]) * side
    radius = min(math.ceil(2 * BLUR[1] * side), side - 1)
    rows = chosen.nonzero().squeeze(1)  # the dearest of the changes: the others do not pay for it
    return x.index_copy(0, rows, blur(x[rows], width[rows], radius))


def darken(x: Tensor, chosen: Tensor, rng: Rng) -> Tensor:
    gain = rng.uniform(low=0.3, high=0.6)
    return x * pixels(gain.where(chosen, torch.ones_like(gain))).to(x.dtype)
