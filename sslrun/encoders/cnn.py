"""A small convolutional network for small pictures, and what encoders made of feature maps share."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, UserError


def image_shape(spec: DataSpec, encoder: str) -> tuple[int, int, int]:
    """Channels, height and width of the data; UserError where it is not made of pictures."""
    if len(spec.shape) != 3:
        raise UserError(
            f"encoder={encoder} reads pictures (channels, height, width), but data={spec.name} has samples of shape "
            f"{tuple(spec.shape)}; for a table encoder=mlp works."
        )
    return spec.shape


class MapEncoder(Encoder):
    """An encoder made of consecutive stages of feature maps, where one cell of the last map is one token.

    A subclass fills `layers`, a sequence of modules (B, C, H, W) -> (B, D_i, H_i, W_i), and sets `dim` and `grid`.
    """

    modalities = ("image",)

    layers: nn.Sequential

    def maps(self, x: Tensor) -> Iterator[Tensor]:
        """The map after each stage, (B, D_i, H_i, W_i), of pictures (B, C, H, W)."""
        x = self.standardise(x).contiguous(memory_format=torch.channels_last)  # a fifth faster on a CPU
        for layer in self.layers:
            x = layer(x)
            yield x

    def last(self, x: Tensor) -> Tensor:
        *_, last = self.maps(x)
        return last  # (B, D, h, w)

    def tokens(self, x: Tensor, keep: Tensor | None = None) -> tuple[Tensor, None]:
        """Cells of the last map, row by row, (B, h * w, D); a `keep` raises UserError."""
        if keep is not None:
            raise UserError(
                f"encoder={type(self).__name__.lower()} cannot leave patches out, because convolutions see all cells; "
                f"encoder=vit_micro and encoder=vit_tiny can."
            )
        return self.last(x).flatten(2).transpose(1, 2), None

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x).mean((2, 3))  # (B, D)

    def stages(self, x: Tensor) -> list[Tensor]:
        return [m.mean((2, 3)) for m in self.maps(x)]


def initialise(module: nn.Module, slope: float = 0.0) -> None:
    """Kaiming-normal convolutions (He et al. 2015) for rectifiers of the given negative slope."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, a=slope, mode="fan_out", nonlinearity="leaky_relu")


def block(channels: int, width: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU."""
    convolution = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class Cnn(MapEncoder):
    """A plain convolutional network that trains in seconds on one core, for pictures up to about 64 pixels.

    Up to 16 pixels (the shorter side): four 3x3 convolutions of 1, 2, 4 and 4 times `width`, with a 2x2 maximum after
    the second, so that an 8x8 picture ends as a 4x4 map and `dim` is 4 times `width`. Above: convolutions of stride 2
    that double their width (up to 8 times) until the map has 3 to 6 cells a side (three of them at 28 and 32 pixels,
    four at 64), then one of 8 times `width`, which is `dim`. Raises UserError for pictures below 4 pixels.
    """

    def __init__(self, spec: DataSpec, width: int = 32):
        super().__init__(spec)
        channels, *size = image_shape(spec, "cnn")
        if min(size) < 4:
            raise UserError(f"encoder=cnn needs pictures of 4 pixels or more, but data={spec.name} has {size}.")
        if min(size) <= 16:
            self.layers = nn.Sequential(
                block(channels, width),
                nn.Sequential(block(width, 2 * width), nn.MaxPool2d(2)),
                block(2 * width, 4 * width),
                block(4 * width, 4 * width),
            )
            self.dim, self.grid = 4 * width, tuple(n // 2 for n in size)
        else:
            halvings = round(math.log2(min(size) / 4))
            widths = [min(2**i, 8) * width for i in range(halvings)]
            self.layers = nn.Sequential()
            for out in widths:
                self.layers.append(block(channels, out, stride=2))
                channels = out
            self.layers.append(block(channels, 8 * width))
            self.dim, self.grid = 8 * width, tuple(-(-n // 2**halvings) for n in size)
        initialise(self)
