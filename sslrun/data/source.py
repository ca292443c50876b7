"""What every data set hands over: raw parts in their own depth, what they are, and a fingerprint of their content."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslrun.contracts import DataSpec, UserError
from sslrun.progress import progress


def cores() -> int:
    """The processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Pending:
    """A batch that is being decoded; `result()` waits for it and returns (B, C, H, W)."""

    def __init__(self, out: Tensor, futures: list[Future]):
        self.out, self.futures = out, futures

    def done(self) -> bool:
        return all(future.done() for future in self.futures)

    def result(self) -> Tensor:
        for future in self.futures:
            future.result()  # raises what the decoding raised
        return self.out


class Images:
    """Pictures that stay on disk and are decoded when indexed, to one fixed size.

    `read(i)` returns picture i, (C, H, W) of `dtype`; `shape` is (N, C, H, W), as of the tensor it stands for.
    Threads decode: Pillow lets go of the interpreter lock while it does.
    """

    def __init__(
        self,
        read: Callable[[int], Tensor],
        count: int,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        workers: int | None = None,
    ):
        self.read, self.dtype, self.workers = read, dtype, workers or cores()
        self.shape = torch.Size((count, *shape))
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Tensor) -> Tensor:
        """Decodes the pictures at `indices` (B,) int64 into (B, C, H, W)."""
        return self.prefetch(indices).result()

    def prefetch(self, indices: Tensor) -> Pending:
        """Starts decoding and returns at once, so that a loader can work on the next batch meanwhile."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        rows = indices.tolist()
        out = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)

        def fill(first: int) -> None:
            for i in range(first, len(rows), self.workers):
                out[i] = self.read(rows[i])

        return Pending(out, [self._pool.submit(fill, first) for first in range(min(self.workers, len(rows)))])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}  # threads do not travel to another process


@dataclass
class Part:
    """One part of a data set: `x` (N, *shape) raw, in its own depth; `y` (N,) int64, -1 where unlabelled.

    `groups` (N) names what must stay together in a split (patient, speaker); `names` (N) are file names.
    """

    x: Tensor | Images
    y: Tensor
    groups: list[str] | None = None
    names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.y)


@dataclass
class Source:
    """A data set before it is split: `spec` has no `mean` and `std` yet, for they belong to the training part.

    `notes` are sentences for the user; `fingerprint` is SHA-256 over what defines the content. `raster` is the height
    and width of the picture whose pixels the rows are, where they are.
    """

    spec: DataSpec
    train: Part
    val: Part | None = None
    test: Part | None = None
    notes: list[str] = field(default_factory=list)
    fingerprint: str = ""
    raster: tuple[int, int] | None = None


def fingerprint(*items: Any) -> str:
    """SHA-256 over tensors (type, shape and bytes) and anything with a stable `repr`."""
    digest = hashlib.sha256()
    for item in items:
        if isinstance(item, Tensor):
            item = item.contiguous()
            digest.update(repr((str(item.dtype), tuple(item.shape))).encode())
            digest.update(memoryview(item.numpy().reshape(-1).view(np.uint8)))
        else:
            digest.update(repr(item).encode())
    return digest.hexdigest()


def encode_labels(parts: dict[str, list], key: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Codes labels by the classes of `parts["train"]`, sorted: {part: (N,) int64}, class names; None becomes -1.

    Where training has a single class, others may have more: what is normal, and anomalies to find. Raises UserError
    where they have one beside several of training; `key` names the setting in the message.
    """
    known = {label for label in parts["train"] if label is not None}
    if len(known) == 1:
        known |= {label for labels in parts.values() for label in labels if label is not None}
    numbers = all(isinstance(label, (int, float)) for label in known)
    ordered = sorted(known) if numbers else sorted(known, key=str)
    code = {label: i for i, label in enumerate(ordered)}
    coded = {}
    for part, labels in parts.items():
        missing = {str(label) for label in labels if label is not None and label not in code}
        if missing and known:
            raise UserError(
                f"{key}: {named(sorted(missing), 'class')} in the {part} part has no training sample; add some to "
                f"the train part or remove it from {part}."
            )
        coded[part] = torch.tensor([-1 if label is None else code.get(label, -1) for label in labels]).long()
    return coded, tuple(str(label) for label in ordered)


def class_numbers(wanted: Any, spec: DataSpec, key: str) -> tuple[int, ...]:
    """The numbers, ascending, of one class or a list of classes, each given by its name or else by its number.

    Raises UserError for a class that the data does not have; `key` names the setting in the message.
    """
    found = set()
    for item in wanted if isinstance(wanted, Sequence) and not isinstance(wanted, str) else [wanted]:
        if str(item) in spec.classes:
            found.add(spec.classes.index(str(item)))
        elif isinstance(item, int) and not isinstance(item, bool) and 0 <= item < spec.num_classes:
            found.add(item)
        else:
            have = named(list(spec.classes), "class", 12) if spec.classes else "no labels"
            raise UserError(f"{key}={item} is not a class of data={spec.name}; it has {have}.")
    if not found:
        raise UserError(f"{key}={wanted} names no class; give a name or a number.")
    return tuple(sorted(found))


def refuse_one_class(source: Source, normal_class: Any) -> None:
    """Raises UserError where training has one class of several, and nothing says that the others are anomalies."""
    names, there = source.spec.classes, source.train.y[source.train.y >= 0].unique().tolist()
    if normal_class is None and len(names) > 1 and len(there) == 1:
        only = names[there[0]]
        others = named([name for name in names if name != only], "class")
        raise UserError(
            f"data={source.spec.name}: {others} of the other parts has no training sample; add some, or say "
            f"data.normal_class={only} to have all but '{only}' found as anomalies."
        )


def named(values: list[str], noun: str, limit: int = 5) -> str:
    """`class 'a'`, or `class 'a', 'b', ... (9 in all)`."""
    shown = ", ".join(f"'{value}'" for value in values[:limit])
    return f"{noun} {shown}" + (f", ... ({len(values)} in all)" if len(values) > limit else "")


def decode_all(images: Images, on_error: str) -> tuple[Tensor, dict[int, str]]:
    """All pictures (N, C, H, W), and {row: reason} for those that cannot be read."""
    out = torch.empty(images.shape, dtype=images.dtype)
    return out, _attempt(images, on_error, out)


def check_all(images: Images, on_error: str, files: list[tuple]) -> dict[int, str]:
    """{row: reason} of pictures that cannot be read, remembered while no file (path, size, time) has changed."""
    store = Path(os.environ.get("SSLRUN_DATA", "~/.cache/sslrun")).expanduser() / "checked"
    file = store / f"{fingerprint(files, images.shape, images.dtype)}.json"
    try:
        bad = {int(i): reason for i, reason in json.loads(file.read_text()).items()}
        if not bad or on_error == "skip":
            return bad
    except (OSError, ValueError, AttributeError):
        pass
    bad = _attempt(images, on_error, None)
    try:
        store.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(f".{os.getpid()}")
        beside.write_text(json.dumps(bad))
        os.replace(beside, file)
    except OSError:
        pass  # a home that cannot be written costs time, not correctness
    return bad


def _attempt(images: Images, on_error: str, out: Tensor | None) -> dict[int, str]:
    step = 32  # pictures a thread takes at once

    def work(start: int) -> dict[int, str]:
        bad = {}
        for i in range(start, min(start + step, len(images))):
            try:
                x = images.read(i)
            except UserError as error:
                if on_error == "raise":
                    raise
                bad[i] = str(error.__cause__)
            else:
                if out is not None:
                    out[i] = x
        return bad

    starts = range(0, len(images), step)
    with ThreadPoolExecutor(images.workers, thread_name_prefix="decode") as pool:
        try:
            bad: dict[int, str] = {}
            for found in progress(pool.map(work, starts), len(starts), "reading pictures"):
                bad.update(found)
            return bad
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
