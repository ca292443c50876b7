"""Residual networks (He et al. 2016)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import DataSpec, UserError
from sslrun.encoders.cnn import MapEncoder, image_shape, initialise


class Residual(nn.Module):
    """A branch of convolutions added to its input, which a 1x1 convolution projects where shapes differ."""

    expansion: int

    def __init__(self, branch: nn.Sequential, channels: int, out: int, stride: int):
        super().__init__()
        self.branch, self.shortcut = branch, nn.Identity()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x), inplace=True)


class BasicBlock(Residual):
    """Two 3x3 convolutions."""

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int = 1):
        branch = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        super().__init__(branch, channels, width, stride)


class Bottleneck(Residual):
    """1x1, 3x3 and 1x1 convolutions; the stride is on the 3x3 one (ResNet v1.5)."""

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int = 1):
        branch = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 4 * width, 1, bias=False),
            nn.BatchNorm2d(4 * width),
        )
        super().__init__(branch, channels, 4 * width, stride)


PLANS = {18: (BasicBlock, (2, 2, 2, 2)), 34: (BasicBlock, (3, 4, 6, 3)), 50: (Bottleneck, (3, 4, 6, 3))}


class ResNet(MapEncoder):
    """ResNet-18, -34 or -50 (He et al. 2016) of 64, 128, 256 and 512 filters.

    The stem follows the longer side of the pictures: up to 64 pixels a 3x3 convolution of stride 1 (a map of an eighth
    of the side), above a 7x7 convolution of stride 2 and a 3x3 maximum of stride 2 (a thirty-second). `stages` are the
    four groups of blocks. Raises UserError for another depth.
    """

    def __init__(self, spec: DataSpec, depth: int = 18):
        super().__init__(spec)
        channels, *size = image_shape(spec, f"resnet{depth}")
        if depth not in PLANS:
            raise UserError(f"encoder.depth={depth} is not a known ResNet; 18, 34 and 50 are.")
        kind, blocks = PLANS[depth]
        small = max(size) <= 64
        stem = nn.Sequential(
            nn.Conv2d(channels, 64, 3, 1, 1, bias=False) if small else nn.Conv2d(channels, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            *([] if small else [nn.MaxPool2d(3, 2, 1)]),
        )
        self.layers, channels = nn.Sequential(), 64
        for i, count in enumerate(blocks):
            stage = [stem] if i == 0 else []
            for j in range(count):
                stage.append(kind(channels, 64 * 2**i, stride=2 if i > 0 and j == 0 else 1))
                channels = 64 * 2**i * kind.expansion
            self.layers.append(nn.Sequential(*stage))
        self.dim, self.grid = channels, tuple(-(-n // (8 if small else 32)) for n in size)
        initialise(self)
