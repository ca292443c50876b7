"""From a source to parts, streams and batches: the one place where rows become tensors on the device."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslrun.contracts import Batch, DataSpec, Stream, UserError
from sslrun.data import splits
from sslrun.data.plan import VALIDATION, Plan, Share
from sslrun.data.source import Source, class_numbers, refuse_one_class
from sslrun.rng import Rng, seed_of


class Part:
    """Rows of a store: `inputs(positions)` gives scaled samples, `y` what training may see, `labels` the truth."""

    def __init__(self, x: Any, labels: Tensor, rows: Tensor, index: Tensor, scale: float):
        self.store, self.rows, self.index, self.scale = x, rows, index, scale
        self.labels = labels[rows]
        self.y = torch.full_like(self.labels, -1)

    def __len__(self) -> int:
        return len(self.rows)

    def inputs(self, positions: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Samples at these positions of the part, (B, *shape), float32 in units of `scale`."""
        rows = self.rows.index_select(0, positions)
        if isinstance(self.store, Tensor):
            raw = self.store.index_select(0, rows.to(self.store.device))
        else:
            raw = self.store[rows]
        # the copy must have ended before the processor reads it; an accelerator waits by itself
        return raw.to(device, non_blocking=torch.device(device).type != "cpu").float().div_(self.scale)

    def only(self, classes: tuple[int, ...]) -> Part | None:
        """The samples of these classes; None where there are none."""
        kept = torch.isin(self.labels, torch.tensor(classes))
        part = copy.copy(self)
        part.rows, part.index, part.labels, part.y = (
            values[kept] for values in (self.rows, self.index, self.labels, self.y)
        )
        return part if len(part) else None


class Data:
    """Train, validation and test parts of a source, its label budgets, and the batches made of them.

    `labels` is how many labels training may see (None: all); `recipes` are the augmentations by name.
    The test part stays sealed until `open_test` is called, once training is over.

    `normal_class` (a name or number, or several) makes a one-class split: `train` and `val` hold these classes alone,
    and the other samples of their parts are seen by nobody before `open_val` and `open_test`. The rows of the test
    part are those of the plain split.
    """

    def __init__(
        self,
        source: Source,
        *,
        seed: int,
        split_seed: int,
        labels: int | None = None,
        val_fraction: float = 0.1,
        test_fraction: float = 0.2,
        exclude_labelled: bool = False,
        normal_class: Any = None,
        budgets: tuple[int, ...] = (),
        recipes: Mapping[str, Any] | None = None,
    ):
        self.seed, self.split_seed, self.fingerprint, self.notes = seed, split_seed, source.fingerprint, source.notes
        self.name, self.recipes, self.raster = source.spec.name, dict(recipes or {}), source.raster
        refuse_one_class(source, normal_class)
        self._parts = self._cut(source, val_fraction, test_fraction)
        self._test = self._parts.pop("test", None)
        self.train, self.val = self._parts["train"], self._parts.get("val")
        self._every_val = self.val
        normal = () if normal_class is None else self._leave_out_anomalies(normal_class, source.spec)
        self.sequence = self._label_sequence()
        self.budgets = {n: self.sequence[:n].sort().values for n in budgets if self._fits(n)}
        self.labelled = self._choose(labels)
        self.num_labels = labels
        self.train.y[self.labelled] = self.train.labels[self.labelled]
        every = torch.arange(len(self.train))
        self.unlabelled = every[self.train.y < 0] if exclude_labelled else every
        self.spec = self._standardise(dataclasses.replace(source.spec, normal=normal))
        for recipe in self.recipes.values():
            recipe.prepare(self.train.inputs(self.sample(10_000)))

    # Parts

    def _cut(self, source: Source, val_fraction: float, test_fraction: float) -> dict[str, Part]:
        main, scale = source.train, source.spec.scale
        labels = main.y.numpy()
        rows = np.arange(len(labels))
        parts: dict[str, Part] = {}
        offset = len(labels)
        key = (source.spec.name, self.split_seed)
        if source.test is None and test_fraction > 0:
            rows, cut = splits.cut(*key, labels, rows, test_fraction, "test", main.groups)
            parts["test"] = self._part(main.x, main.y, cut, 0, scale)
        if source.val is None and val_fraction > 0:
            rows, cut = splits.cut(*key, labels, rows, val_fraction, "val", main.groups)
            parts["val"] = self._part(main.x, main.y, cut, 0, scale)
        if len(rows) == 0:
            raise UserError(f"data={source.spec.name} has no training sample left after cutting validation and test.")
        parts["train"] = self._part(main.x, main.y, rows, 0, scale)
        for name, part in (("val", source.val), ("test", source.test)):
            if part is not None:
                parts[name] = self._part(part.x, part.y, np.arange(len(part.y)), offset, scale)
                offset += len(part.y)
        return {name: part for name, part in parts.items() if len(part)}

    @staticmethod
    def _part(x: Any, y: Tensor, rows: np.ndarray, offset: int, scale: float) -> Part:
        rows = torch.from_numpy(np.ascontiguousarray(rows))
        return Part(x, y, rows, rows + offset, scale)

    def _leave_out_anomalies(self, wanted: Any, spec: DataSpec) -> tuple[int, ...]:
        """Keeps the normal classes of what fit may see, and returns their numbers."""
        normal = class_numbers(wanted, spec, "data.normal_class")
        if len(normal) == spec.num_classes:
            raise UserError(
                f"data.normal_class={wanted} leaves no anomaly: data={spec.name} has no other class; name fewer."
            )
        before, kept = len(self.train), self.train.only(normal)
        if kept is None:
            raise UserError(
                f"data.normal_class={wanted} has no training sample in data={spec.name}; choose a class that has some."
            )
        self.train, self.val = kept, self.val and self.val.only(normal)
        names = ", ".join(f"'{spec.classes[i]}'" for i in normal)
        self.notes = [
            *self.notes,
            f"one-class split: only class {names} is trained on ({len(kept):,} of {before:,} samples); "
            "every other class is an anomaly, seen by the evaluators alone",
        ]
        return normal

    def open_val(self) -> Part | None:
        """The validation part that evaluators choose on; in a one-class split it holds the anomalies as well."""
        return self._every_val

    def open_test(self) -> Part | None:
        """The test part; the runner calls this once, when nothing is trained or chosen any more."""
        return self._test

    @property
    def test_digest(self) -> str | None:
        """A hash of which samples the test part has, without opening it."""
        return splits.digest(self._test.index.numpy()) if self._test is not None else None

    def sample(self, at_most: int, part: Part | None = None) -> Tensor:
        """Up to `at_most` positions of a part, the training part by default, fixed by the seed.

        The first ones would not do: a folder of classes lies in their order.
        """
        n = len(self.train if part is None else part)
        if n <= at_most:
            return torch.arange(n)
        return torch.randperm(n, generator=torch.Generator().manual_seed(seed_of(self.split_seed, "sample")))[:at_most]

    def _standardise(self, spec: DataSpec) -> DataSpec:
        x = self.train.inputs(self.sample(10_000)).double()
        dims = [d for d in range(x.dim()) if d != 1]
        mean = x.nanmean(dims)
        centred = x - mean.view(1, -1, *(1,) * (x.dim() - 2))
        std = centred.square().nanmean(dims).sqrt()
        std = torch.where(std > 1e-6 * (mean.abs() + 1), std, torch.ones_like(std))  # constant: leave as it is
        if spec.fields:
            std = std / torch.tensor([column.weight for column in spec.fields]).double()
        mean = mean.nan_to_num(0.0)
        return dataclasses.replace(spec, mean=tuple(mean.tolist()), std=tuple(std.nan_to_num(1.0).tolist()))

    # Labels

    def _label_sequence(self) -> Tensor:
        labels = self.train.labels.numpy()
        # Budgets are drawn by the rows' place in the data set, so that they survive another way of cutting parts.
        place = {int(i): p for p, i in enumerate(self.train.index)}
        full = np.full(int(self.train.index.max()) + 1, -1)
        full[self.train.index.numpy()] = labels
        chosen = splits.label_sequence(self.name, self.split_seed, full, self.train.index.numpy())
        return torch.tensor([place[int(i)] for i in chosen], dtype=torch.long)

    def _fits(self, n: int) -> bool:
        return len(set(self.train.labels[self.train.labels >= 0].tolist())) <= n <= len(self.sequence)

    def _choose(self, labels: int | None) -> Tensor:
        if labels is None:
            return self.sequence.sort().values
        classes = len(set(self.train.labels[self.train.labels >= 0].tolist()))
        if not self._fits(labels):
            raise UserError(
                f"labels={labels} does not work with data={self.name}: it has {len(self.sequence)} labelled training "
                f"samples of {classes} classes; choose a number from {classes} to {len(self.sequence)}."
                if classes
                else f"labels={labels} does not work with data={self.name}: none of its samples has a label."
            )
        return self.sequence[:labels].sort().values

    def with_labels(self, labels: int | None) -> Data:
        """The same parts with another label budget."""
        other = copy.copy(self)
        other.train = copy.copy(self.train)
        other.num_labels, other.labelled = labels, other._choose(labels)
        other.train.y = torch.full_like(self.train.y, -1)
        other.train.y[other.labelled] = other.train.labels[other.labelled]
        return other

    def splits(self) -> dict[str, Any]:
        """What splits.json holds: sizes and hashes of the parts, and the rows of each label budget."""
        named = {"train": self.train, "val": self.val, "test": self._test}
        if self.spec.normal:
            named["val_with_anomalies"] = self._every_val
        parts = {k: {"size": len(p), "sha256": splits.digest(p.index.numpy())} for k, p in named.items() if p}
        budgets = {str(n): self.train.index[rows].tolist() for n, rows in self.budgets.items()}
        if self.num_labels is not None:
            budgets[str(self.num_labels)] = self.train.index[self.labelled].tolist()
        one_class = {"normal": [self.spec.classes[i] for i in self.spec.normal]} if self.spec.normal else {}
        return {"data": self.name, "split_seed": self.split_seed, **one_class, "parts": parts, "budgets": budgets}

    # Batches

    def to(self, device: torch.device) -> None:
        """Moves an in-memory training store to an accelerator when it takes under a fifth of the free memory."""
        store = self.train.store
        if device.type == "cuda" and isinstance(store, Tensor):
            free, _ = torch.cuda.mem_get_info(device)
            if store.numel() * store.element_size() < free / 5:
                moved = store.to(device)
                for part in (self.train, self.val, self._every_val, self._test):
                    if part is not None and part.store is store:
                        part.store = moved

    def batch(self, plan: Plan, part: Part, views: Mapping[str, set[tuple[str, str]]], device: Any) -> Batch:
        """The streams of a plan as tensors on the device, with every declared view made there.

        Samples and views are float32, whatever the precision that the network is trained in.
        """
        with single_precision(device):
            return self._batch(plan, part, views, device)

    def _batch(self, plan: Plan, part: Part, views: Mapping[str, set[tuple[str, str]]], device: Any) -> Batch:
        streams = {}
        for name, share in plan.streams.items():
            x = share.ready() if share.ready else part.inputs(share.positions, device)
            x = x.to(device)
            y = part.labels if plan.epoch == VALIDATION else part.y if name == "labelled" else None
            values: dict[Any, Any] = {
                "x": x,
                "y": y[share.positions].to(device) if y is not None else torch.full((len(x),), -1, device=device),
                "index": part.index[share.positions].to(device),
            }

            def rng(*purpose: Any, share: Share = share, name: str = name) -> Rng:
                key = (self.seed, *purpose, name, plan.epoch, *(() if share.first is not None else (plan.step,)))
                return Rng(*key, total=share.total, rows=share.rows, device=device, first=share.first)

            wanted = sorted(views.get(name, ()))
            for recipe in sorted({recipe for _, recipe in wanted}):
                keys = [key for key in wanted if key[1] == recipe]
                made = self.recipes[recipe].views(x, [rng("view", *key) for key in keys])
                values |= zip(keys, made, strict=True)
            streams[name] = Stream(values, rng)
        return Batch(streams)

    def validation(
        self, part: Part, streams: tuple[str, ...], size: int = 512, limit: int | None = None, draw: int = 0
    ) -> Iterator[Plan]:
        """Plans that walk through a part in its own order; every stream shows the same rows, with their labels.

        With a `limit` they walk through a sample of so many rows. A row's draws depend on its place alone, so that any
        `size` (a multiple of 64) gives the same. With `draw` above 0 they are others, and the labels stay hidden.
        """
        walk = self.sample(limit or len(part), part).sort().values
        for step, start in enumerate(range(0, len(walk), size)):
            rows = walk[start : start + size]
            share = Share(rows, len(rows), slice(0, len(rows)), first=start)
            yield Plan(VALIDATION - draw, step, dict.fromkeys(streams, share))


@contextlib.contextmanager
def single_precision(device: torch.device | str) -> Iterator[None]:
    """Turns autocast and any other default type off: half precision would move the coordinates of a crop."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.autocast(torch.device(device).type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)
