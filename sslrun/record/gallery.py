"""Where pictures go: PNG files in the run folder, and the same in the run's logger; also the embedding projector."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from sslrun.record.figures import Picture, enlarge, png, rgb
from sslrun.record.folder import RunFolder, write_atomically

THUMBNAIL = 32  # pixels a side
SHEET = 8192  # pixels a side that the projector can show at most


class Gallery:
    """The pictures of one run; `logger` is any of Lightning's, or None."""

    def __init__(self, folder: RunFolder, logger: Any = None):
        self.folder, self.logger = folder, logger

    @property
    def writer(self) -> Any:
        """TensorBoard's writer, where the logger has one."""
        writer = getattr(self.logger, "experiment", None)
        return writer if hasattr(writer, "add_image") else None

    def show(self, name: str, picture: Picture | None, step: int) -> None:
        """Writes `figures/NAME.png`, and hands the picture to the logger."""
        if picture is None:
            return
        write_atomically(self.folder / f"figures/{name}.png", png(picture))
        if self.writer is not None:
            self.writer.add_image(name, picture, step, dataformats="HWC")
        elif hasattr(self.logger, "log_image"):
            self.logger.log_image(name, [picture], step=step)

    def project(self, features: Tensor, columns: Mapping[str, Sequence[Any]], pictures: Tensor | None) -> None:
        """Hands features (N, D) to TensorBoard's projector: with named columns, and thumbnails (N, C, H, W)."""
        if self.writer is None:
            return
        config = ['tensor_name: "features"', 'tensor_path: "projector/features.tsv"']
        table = "\n".join("\t".join(f"{v:.5g}" for v in row) for row in features.tolist())
        write_atomically(self.folder / "projector/features.tsv", table.encode())
        text = io.StringIO()
        writer = csv.writer(text, delimiter="\t", lineterminator="\n")
        if len(columns) > 1:  # with a single column the projector takes no header
            writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
        write_atomically(self.folder / "projector/metadata.tsv", text.getvalue().encode())
        config.append('metadata_path: "projector/metadata.tsv"')
        if pictures is not None:
            sheet, side = _sheet(pictures)
            write_atomically(self.folder / "projector/sprite.png", png(sheet))
            config += ["sprite {", '  image_path: "projector/sprite.png"']
            config += [f"  single_image_dim: {side}", f"  single_image_dim: {side}", "}"]
        body = "\n".join(f"  {line}" for line in config)
        write_atomically(self.folder / "projector_config.pbtxt", f"embeddings {{\n{body}\n}}\n".encode())

    def compare(self, settings: Mapping[str, Any], results: Mapping[str, float], step: int) -> None:
        """Hands hyperparameters and final results to the logger's comparison of runs, and closes it."""
        if self.logger is None:
            return
        if self.writer is not None:
            self.logger.log_hyperparams(dict(settings), dict(results), step=step)
            self.writer.close()
        else:
            self.logger.log_hyperparams(dict(settings))
            self.logger.log_metrics(dict(results), step)
            self.logger.finalize("success")


def _sheet(pictures: Tensor) -> tuple[Picture, int]:
    """Thumbnails side by side in a square of as many rows as columns, and the side of one."""
    n = math.ceil(math.sqrt(len(pictures)))
    side = min(THUMBNAIL, SHEET // n)
    sheet = np.full((n * side, n * side, 3), 255, np.uint8)
    for i, picture in enumerate(pictures):
        small = Image.fromarray(enlarge(rgb(picture), side)).resize((side, side), Image.Resampling.BILINEAR)
        row, column = divmod(i, n)
        sheet[row * side : (row + 1) * side, column * side : (column + 1) * side] = np.asarray(small)
    return sheet, side


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `a.b.c`; lists as text."""
    out: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}.")
        elif isinstance(value, bool | int | float | str) or value is None:
            out[prefix + key] = "null" if value is None else value
        else:
            out[prefix + key] = str(value)
    return out
