"""Tiles of pictures, for tasks that ask where a tile comes from: layout, cutting, normalisation and encoding."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder
from sslrun.nn.modes import evaluating
from sslrun.rng import Rng


@dataclass(frozen=True)
class Axis:
    """Where tiles lie along one side of a picture: `size` pixels each, from `starts` on, moved by up to `jitter`."""

    size: int
    starts: tuple[int, ...]
    jitter: int
    side: int

    @property
    def gap(self) -> int:
        """The fewest pixels between two neighbours that have not moved; below 1 where the side is too short."""
        return min(b - a for a, b in pairwise(self.starts)) - self.size

    @classmethod
    def of(cls, side: int, grid: int) -> Axis:
        """`grid` tiles of three quarters of a cell, spread from edge to edge; a third of the gap is jitter."""
        size = max(2, 3 * side // (4 * grid))
        starts = tuple(i * (side - size) // (grid - 1) for i in range(grid))
        gap = (side - size) // (grid - 1) - size
        return cls(size, starts, max(0, (gap + 1) // 3), side)

    def draw(self, rng: Rng, repeat: int, inner: bool) -> Tensor:
        """First pixels (B, T), jittered: every start `repeat` times in a row where `inner`, else all starts in turn."""
        at = torch.tensor(self.starts, device=rng.device)
        at = at.repeat_interleave(repeat) if inner else at.repeat(repeat)
        move = rng.integers(2 * self.jitter + 1, len(at)) - self.jitter  # (B, T)
        return (at + move).clamp(0, self.side - self.size)


def cut(x: Tensor, rng: Rng, rows: Axis, columns: Axis) -> Tensor:
    """Pictures (B, C, H, W) as jittered tiles (B, T, C, h, w), row by row."""
    top = rows.draw(rng, len(columns.starts), inner=True)
    left = columns.draw(rng, len(rows.starts), inner=False)
    down = top.unsqueeze(2) + torch.arange(rows.size, device=x.device)  # (B, T, h)
    across = left.unsqueeze(2) + torch.arange(columns.size, device=x.device)  # (B, T, w)
    at = (down.unsqueeze(3) * x.shape[3] + across.unsqueeze(2)).flatten(1)  # (B, T * h * w)
    tiles = x.flatten(2).gather(2, at.unsqueeze(1).expand(-1, x.shape[1], -1))
    return tiles.view(*x.shape[:2], -1, rows.size, columns.size).transpose(1, 2)


def join(tiles: Tensor, rows: int) -> Tensor:
    """Tiles (B, T, C, h, w), row by row, as one picture (B, C, rows * h, T / rows * w) to look at."""
    b, t, c, h, w = tiles.shape
    tiles = tiles.reshape(b, rows, t // rows, c, h, w)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(b, c, rows * h, t // rows * w)


def split(x: Tensor, rows: int, columns: int) -> Tensor:
    """The inverse of `join`: (B, C, H, W) to (B, T, C, h, w)."""
    b, c, h, w = x.shape
    x = x.view(b, c, rows, h // rows, columns, w // columns)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, rows * columns, c, h // rows, w // columns)


def some_grey(x: Tensor, rng: Rng, p: float) -> Tensor:
    """The channels' mean in all channels, for a share `p` of pictures (B, C, H, W): colours fringe towards a rim."""
    if x.shape[1] == 1 or p == 0:
        return x
    return torch.where(rng.chance(p).view(-1, 1, 1, 1), x.mean(1, keepdim=True), x)


class Tiles(nn.Module):
    """Brings tiles to the mean and spread of the data, and encodes them one by one.

    Tiles go in at their own size where the encoder takes it, and enlarged to that of the data's pictures where not.
    """

    def __init__(self, encoder: Encoder, spec: DataSpec, size: tuple[int, int]):
        super().__init__()
        channels = spec.shape[0]
        self.register_buffer("mean", torch.tensor(spec.mean or (0.0,) * channels).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std or (1.0,) * channels).view(-1, 1, 1), persistent=False)
        self.size = None if takes(encoder, (channels, *size)) else tuple(spec.shape[1:])

    def normalise(self, tiles: Tensor) -> Tensor:
        """Every channel of every tile (..., C, h, w) to the data's mean and standard deviation, an empty one to 0."""
        spread, mean = torch.std_mean(tiles, (-2, -1), correction=0, keepdim=True)
        faint = 0.02 * self.std  # what is nearly constant would otherwise come out as its rounding
        return (tiles - mean) / (spread + faint).to(tiles.dtype) * self.std.to(tiles.dtype) + self.mean.to(tiles.dtype)

    def encode(self, encoder: Encoder, tiles: Tensor) -> Tensor:
        """Features of tiles (B, T, C, h, w) side by side, (B, T * D)."""
        flat = tiles.flatten(0, 1)
        if self.size is not None:
            flat = F.interpolate(flat, self.size, mode="bilinear", align_corners=False)
        return encoder(flat).reshape(len(tiles), -1)


def takes(encoder: Encoder, shape: tuple[int, ...]) -> bool:
    """Whether the encoder makes features of samples of this shape."""
    tensor = next(encoder.parameters(), torch.zeros(()))
    with evaluating(encoder), torch.no_grad():
        try:
            features = encoder(torch.zeros(1, *shape, device=tensor.device, dtype=tensor.dtype))
        except Exception:  # each library refuses in its own words
            return False
    return features.shape == (1, encoder.dim)
