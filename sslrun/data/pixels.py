"""The pixels of one picture as the rows of a table, to be grouped into segments."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sslrun.contracts import DataSpec, Field, UserError
from sslrun.data.decode import Form, Reader, header
from sslrun.data.source import Part, Source, fingerprint

COLOURS = ("red", "green", "blue")
PLACES = ("row", "column")


def pixels(path: str | None = None, mask: str | None = None, position: float = 0.5, side: int | None = 320) -> Source:
    """Every pixel's colour and place, (H W, 5) float32, row by row; scikit-learn's photograph china.jpg without a path.

    `position` is the weight of a pixel's place beside its colour (0: colour alone), `side` the longer side that larger
    pictures are brought to (null: as they are), `mask` a picture of the same size whose colours name the true segments.
    Raises UserError for files that cannot be read or do not fit together.
    """
    if position < 0:
        raise UserError(f"data.position={position} must be 0 or more; 0 groups pixels by colour alone.")
    if side is not None and side < 2:
        raise UserError(f"data.side={side} must be 2 or more pixels, or null for the picture's own size.")
    if path is None:
        with resources.as_file(resources.files("sklearn.datasets.images") / "china.jpg") as bundled:
            picture = _read(str(bundled), side)
    else:
        if not Path(path).is_file():
            raise UserError(f"image={path} is not a file; give a picture: image=photo.jpg.")
        picture = _read(path, side)
    _, height, width = picture.shape
    columns = [channel.flatten().float() / 255 for channel in picture]
    fields = [Field(name) for name in COLOURS]
    if position:
        places = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        columns += [place.flatten().float() / max(height, width) for place in places]
        fields += [Field(name, weight=float(position)) for name in PLACES]
    x = torch.stack(columns, 1)  # (H W, 3 or 5)
    y, classes = torch.full((len(x),), -1), ()
    if mask is not None:
        y, classes = _segments(mask, height, width)
    spec = DataSpec(Path(path or "china.jpg").stem, "table", (x.shape[1],), len(classes), classes, fields=tuple(fields))
    mark = fingerprint(x, y, float(position))
    return Source(spec, Part(x, y), fingerprint=mark, raster=(height, width))


def _read(path: str, side: int | None) -> Tensor:
    """A picture as colours, (3, H, W) uint8."""
    try:
        _, height, width, _, _ = header(path)
    except Exception as error:  # Pillow raises nearly anything on a broken file
        raise UserError(f"image={path} cannot be read ({error}); give a JPEG, PNG or another picture.") from error
    shrink = min(1.0, side / max(height, width)) if side else 1.0
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    return Reader([path], Form((3, *size), torch.uint8, 255.0))(0)


def _segments(path: str, height: int, width: int) -> tuple[Tensor, tuple[str, ...]]:
    """The true segment of every pixel, (H W,), and their names; of a larger mask the nearest places are read."""
    if not Path(path).is_file():
        raise UserError(f"data.mask={path} is not a file; give a picture whose colours name the segments, or null.")
    try:
        with Image.open(path) as picture:
            colours = np.asarray(picture.convert("RGB"))  # (h, w, 3)
    except Exception as error:  # as above
        raise UserError(f"data.mask={path} cannot be read ({error}); save it as PNG.") from error
    if abs(colours.shape[0] * width - colours.shape[1] * height) > max(colours.shape[:2]) * 2:
        raise UserError(
            f"data.mask={path} is {colours.shape[1]} x {colours.shape[0]} pixels, another shape than the picture's "
            f"{width} x {height}; give a mask of the same picture."
        )
    rows, across = ((np.arange(n) + 0.5) * m / n for n, m in ((height, colours.shape[0]), (width, colours.shape[1])))
    near = colours[rows.astype(int)][:, across.astype(int)].reshape(-1, 3)
    found, y = np.unique(near, axis=0, return_inverse=True)
    if not 2 <= len(found) <= 256:
        raise UserError(f"data.mask={path} has {len(found)} colours; a mask names 2 to 256 segments, without blending.")
    return torch.from_numpy(y.reshape(-1)).long(), tuple("#{:02x}{:02x}{:02x}".format(*colour) for colour in found)
