"""Perspective detection: was the picture seen at a slant?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, Predict, UserError
from sslrun.nn.warp import affine_matrix, area, compose, fit, resample, tilt
from sslrun.rng import Rng

ZOOM = 0.85  # the least extent of what is kept of a picture


class PerspectiveDetection(Predict):
    """Two-way classification: a picture under a random affine map alone, or under a perspective as well.

    A transformation to tell, as in RotNet (Gidaris et al. 2018, arXiv:1803.07728); 1 is perspective. Both classes go
    through the same single bilinear resampling, by maps that stay inside the picture and show as much of it: neither
    softness, zoom nor padding tells them apart, but only that scale changes from one side to the other.

    Args:
        strength: range of the slant, in (0, 0.7): of the part that is seen, the side across the slant's direction is
            (1 + strength) / (1 - strength) times as long as the one opposite.
        degrees: largest turn of both classes.
        shear: largest slope of both classes, in pixels per pixel.
        recipe: augmentation before the map.

    Raises UserError where `strength` is no ascending range in (0, 0.7).
    """

    modalities = ("image",)
    kind = "class"
    num_targets = 2

    def __init__(
        self,
        encoder: Encoder,
        spec: DataSpec,
        strength: tuple[float, float] = (0.3, 0.6),
        degrees: float = 10.0,
        shear: float = 0.1,
        recipe: str = "plain",
    ):
        super().__init__(encoder, spec)
        if len(strength) != 2 or not 0 < strength[0] <= strength[1] < 0.7:
            raise UserError(
                f"method.perspective_detection.strength=[{','.join(map(str, strength))}] must be two ascending numbers "
                f"between 0 and 0.7; [0.3,0.6] works."
            )
        self.strength, self.degrees, self.shear = tuple(strength), degrees, shear
        self.views = {"all": {"view": recipe}}
        self.head = nn.Linear(encoder.dim, 2)

    def make(self, x: Tensor, rng: Rng) -> tuple[Tensor, Tensor]:
        target = rng.chance(0.5)  # (B,)
        slant, direction = rng.uniform(low=self.strength[0], high=self.strength[1]), rng.uniform(high=2 * torch.pi)
        angle, slope = rng.uniform(2, low=-1.0).unbind(1)
        still = torch.zeros_like(angle)
        flat = affine_matrix(angle * self.degrees, still, still, still + 1, slope * self.shear, *x.shape[2:])
        seen = compose(flat, tilt(slant * direction.cos(), slant * direction.sin()))

        extent, place = rng.uniform(low=ZOOM), rng.uniform(2, low=-1.0)
        seen = fit(seen, extent, place)
        share = area(seen) / area(fit(flat, still + 1, place))
        flat = fit(flat, share.sqrt().clamp_max(1), place)  # the plain picture that it would have been otherwise
        return resample(x, torch.where(target.view(-1, 1, 1), seen, flat)), target.long()

    def answer(self, encoder: Encoder, inputs: Any) -> Tensor:
        return self.head(encoder(inputs))
