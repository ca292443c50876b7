"""What form the pictures of a folder take, and how each is decoded to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from sslrun.contracts import UserError
from sslrun.data.image import channel_axis

SAMPLE = 500  # files whose headers decide size, channels and depth


@dataclass(frozen=True)
class Form:
    """What every picture is brought to: (C, H, W), its type, and the value that is 1.0."""

    shape: tuple[int, int, int]
    dtype: torch.dtype
    scale: float

    @property
    def size(self) -> int:
        """Bytes."""
        return int(np.prod(self.shape)) * self.dtype.itemsize


def header(path: str) -> tuple[int, int, int, str, float]:
    """(channels, height, width, "u1" | "u2" | "f4", maximum of floats), without decoding a picture."""
    if path.lower().endswith(".npy"):
        array = _channels_first(np.load(path, mmap_mode="r", allow_pickle=False))
        real = array.dtype.kind == "f"
        return *array.shape, "f4" if real else "u2" if array.dtype.itemsize > 1 else "u1", array.max() if real else 0.0
    with Image.open(path) as picture:
        width, height = picture.size
        # other formats decode the picture to find their orientation
        if picture.format in ("JPEG", "MPO") and picture.getexif().get(0x0112, 1) >= 5:
            width, height = height, width
        grey = picture.mode in ("1", "L", "LA", "La") or picture.mode.startswith("I")
        return 1 if grey else 3, height, width, "u2" if picture.mode.startswith("I") else "u1", 0.0


def common_form(paths: list[str], root: str, image_size: int | Sequence[int] | None, channels: int | None) -> Form:
    """The form that suits these files by the headers of some of them; UserError where none can be read."""
    heads, error = [], None
    for path in paths[:: max(1, -(-len(paths) // SAMPLE))]:
        try:
            heads.append(header(path))
        except Exception as problem:  # Pillow raises nearly anything on a broken file
            error = f"{path}: {problem}"
    if not heads:
        raise UserError(f"data.root={root}: no picture could be read, the last because {error}.")
    sides = [image_size] * 2 if image_size is None or isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or any(side is not None and (not isinstance(side, int) or side < 1) for side in sides):
        raise UserError(f"data.image_size={image_size} must be a whole number of at least 1, two of them, or null.")
    if channels is not None and (not isinstance(channels, int) or channels < 1):
        raise UserError(f"data.channels={channels} must be a whole number of at least 1, or null.")
    counts = Counter(head[0] for head in heads)
    channels = channels or (3 if set(counts) == {1, 3} else counts.most_common(1)[0][0])
    sizes = {head[1:3] for head in heads}
    height, width = next(iter(sizes))
    if image_size is not None:
        height, width = sides
    elif len(sizes) > 1 or max(height, width) > 128:
        short = median(min(head[1:3]) for head in heads)
        height = width = min(max(32, round(short / 32) * 32), 224)
    kinds = {kind for c, _, _, kind, _ in heads if c == channels}  # 16-bit grey among colours is brought to 8-bit
    if "f4" in kinds:
        top = float(max(head[4] for head in heads))
        return Form((channels, height, width), torch.float32, top if top > 1.5 else 1.0)
    dtype, scale = (torch.int32, 65535.0) if "u2" in kinds else (torch.uint8, 255.0)
    return Form((channels, height, width), dtype, scale)


@dataclass
class Reader:
    """Decodes picture i to its form, (C, H, W); raises UserError naming the file that cannot be."""

    paths: list[str]
    form: Form

    def __call__(self, i: int) -> Tensor:
        try:
            return decode(self.paths[i], self.form)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises nearly anything on a broken file
            raise UserError(f"{self.paths[i]} cannot be read ({error}); replace or remove it.") from error


def decode(path: str, form: Form) -> Tensor:
    """One picture in its form, (C, H, W)."""
    channels, height, width = form.shape
    if path.lower().endswith(".npy"):
        array = _channels_first(np.load(path, allow_pickle=False))
        x, bits = _fit_array(array, height, width), 16 if array.dtype.itemsize > 1 else 8
    else:
        with Image.open(path) as picture:
            picture.draft(picture.mode, (2 * max(height, width),) * 2)  # JPEG decodes large pictures smaller, faster
            upright = ImageOps.exif_transpose(picture)
            plain = _plain(upright, channels == 1)
        array = np.atleast_3d(np.array(_fit(plain, height, width)))  # (H, W, C)
        x, bits = torch.from_numpy(array).permute(2, 0, 1), 16 if plain.mode == "I" else 8
    if x.is_floating_point() != form.dtype.is_floating_point:
        raise ValueError("whole and real numbers are mixed in one folder")
    if bits == 16 and not x.is_floating_point() and not 0 <= int(x.min()) <= int(x.max()) <= 65535:
        raise ValueError("its values leave 0 to 65535")
    if bits == 8 and form.dtype == torch.int32:
        x = x.int() * 257
    elif bits == 16 and form.dtype == torch.uint8:
        x = ((x + 128) // 257).to(torch.uint8)
    if len(x) == 1 and channels == 3:
        x = x.expand(3, -1, -1)
    if len(x) != channels:
        raise ValueError(f"it has {len(x)} channels where {channels} are wanted")
    return x.to(form.dtype)


def _plain(picture: Image.Image, grey: bool) -> Image.Image:
    """L, RGB, or I for 16-bit grey; alpha is laid on white."""
    if picture.mode.startswith("I"):
        return picture.convert("I")
    if picture.mode == "F":
        raise ValueError("it holds real numbers; save it as .npy")
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        white.alpha_composite(picture.convert("RGBA"))
        picture = white.convert("RGB")
    elif picture.mode not in ("1", "L", "RGB"):
        picture = picture.convert("RGB")
    return picture.convert("L" if grey or picture.mode in ("1", "L") else "RGB")


def _cover(height: int, width: int, wanted: tuple[int, int]) -> tuple[int, int]:
    """The smallest size of this aspect ratio that covers the wanted one."""
    if wanted[1] * height >= wanted[0] * width:
        return wanted[1] * height // width, wanted[1]
    return wanted[0], wanted[0] * width // height


def _fit(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Resized, antialiased, and cut in the middle."""
    if picture.size == (width, height):
        return picture
    h, w = _cover(picture.height, picture.width, (height, width))
    picture = picture.resize((w, h), Image.Resampling.BILINEAR)
    top, left = round((h - height) / 2), round((w - width) / 2)
    return picture.crop((left, top, left + width, top + height))


def _fit_array(array: np.ndarray, height: int, width: int) -> Tensor:
    """As `_fit`, for (C, H, W) of any number of channels; keeps whole numbers whole (16-bit ones as int32)."""
    if array.dtype.kind not in "uif" or not np.isfinite(array).all():
        raise ValueError("its values are not all finite numbers")
    x = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64))
    if x.shape[1:] != (height, width):
        h, w = _cover(*x.shape[1:], (height, width))
        x = F.interpolate(x[None], (h, w), mode="bilinear", antialias=True)[0]
        top, left = round((h - height) / 2), round((w - width) / 2)
        x = x[:, top : top + height, left : left + width]
    if array.dtype.kind == "f":
        return x.float()
    return x.round().to(torch.int64 if array.dtype.itemsize > 1 else torch.uint8)


def _channels_first(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return array[None]
    axis = channel_axis(array.shape) if array.ndim == 3 else None
    if axis is None:
        raise ValueError(f"its shape {array.shape} is not plainly (H, W), (H, W, C) or (C, H, W)")
    return np.moveaxis(array, axis, 0)
