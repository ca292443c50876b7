"""New samples brought to what a trained encoder reads: its shape, its scale, its columns and its classes by name."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sslrun.contracts import DataSpec, UserError
from sslrun.data.source import Part, named

DEPTHS = (255.0, 65535.0)  # scales that a file's depth sets; another one was measured on training samples
LUMA = (0.2989, 0.587, 0.114)  # ITU-R BT.601


def fitted(part: Part, given: DataSpec, wanted: DataSpec) -> tuple[Any, Tensor, float]:
    """Samples, labels (N,) in the wanted classes (-1 where it has no such class), and their scale.

    Raises:
        UserError: another modality, a number of channels or a column that cannot be brought there.
    """
    if given.modality != wanted.modality:
        raise UserError(
            f"the run's encoder reads {wanted.modality} data, and data={given.name} is {given.modality} data."
        )
    code = {name: i for i, name in enumerate(wanted.classes)}
    table = torch.tensor([*(code.get(name, -1) for name in given.classes), -1])
    labels = table[part.y]  # -1 reads the last entry
    scale = given.scale
    if given.modality == "image":
        if given.scale not in DEPTHS and wanted.scale not in DEPTHS:
            scale = wanted.scale
        if given.shape != wanted.shape:
            return Pictures(part.x, wanted.shape), labels, scale
    elif given.modality == "table":
        return columns(part.x, given, wanted), labels, scale
    elif given.shape != wanted.shape:
        ours, theirs = (" x ".join(map(str, s.shape)) for s in (wanted, given))
        raise UserError(f"the run's encoder reads samples of {ours}, and those of data={given.name} are {theirs}.")
    return part.x, labels, scale


class Pictures:
    """A store whose pictures become (C, H, W) of `shape` when they are read: channels, then the middle, resized."""

    def __init__(self, store: Any, shape: tuple[int, ...]):
        self.store, self.wanted = store, shape
        if len(store) and store.shape[1] != shape[0] and {store.shape[1], shape[0]} != {1, 3}:
            raise UserError(
                f"the run's encoder reads pictures of {shape[0]} channels, and these have {store.shape[1]}."
            )

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, rows: Tensor) -> Tensor:
        x = self.store[rows].float()  # (B, C, H, W)
        channels, height, width = self.wanted
        if x.shape[1] == 3 and channels == 1:
            x = (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
        factor = max(height / x.shape[2], width / x.shape[3])
        size = (max(height, round(x.shape[2] * factor)), max(width, round(x.shape[3] * factor)))
        if size != x.shape[2:]:
            x = F.interpolate(x, size, mode="bilinear", antialias=True)
        top, left = (size[0] - height) // 2, (size[1] - width) // 2
        return x[:, :, top : top + height, left : left + width].expand(-1, channels, -1, -1)


def columns(x: Tensor, given: DataSpec, wanted: DataSpec) -> Tensor:
    """Columns (N, D) in the wanted order by name, categories recoded by name; 0 (missing) where training had none.

    Raises:
        UserError: a column is missing, or of another kind.
    """
    place = {f.name: i for i, f in enumerate(given.fields)}
    missing = [f.name for f in wanted.fields if f.name not in place]
    if missing:
        raise UserError(f"data={given.name} lacks {named(missing, 'column')} that the run was trained on; add them.")
    out = []
    for field in wanted.fields:
        mine = given.fields[place[field.name]]
        values = x[:, place[field.name]]
        if mine.kind != field.kind:
            raise UserError(
                f"column '{field.name}' is {field.kind} in the run's training data and {mine.kind} in "
                f"data={given.name}."
            )
        if field.kind == "categorical" and mine.values != field.values:
            code = {value: float(i) for i, value in enumerate(field.values, 1)}
            values = torch.tensor([0.0, *(code.get(value, 0.0) for value in mine.values)])[values.long()]
        out.append(values)
    return torch.stack(out, 1)
