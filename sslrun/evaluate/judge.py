"""Runs the evaluators over subjects: the trained encoder beside the rows that need no training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sslrun.contracts import DataSpec, Encoder, Split
from sslrun.data.module import Data, Part
from sslrun.evaluate import features


class Judge:
    """Holds the parts and the evaluators, and scores any encoder, raw inputs, or a model's own predictions."""

    def __init__(
        self,
        data: Data,
        evaluators: Mapping[str, Callable],
        device: torch.device,
        autocast: torch.dtype | None,
        budgets: Mapping[int, Tensor],
    ):
        self.data, self.evaluators, self.device, self.autocast = data, dict(evaluators), device, autocast
        self.budgets = dict(budgets)
        self.protocol: dict[str, Any] = {}
        self.seen: set[str] = set()  # metrics of the subjects scored so far
        self.parts: dict[str, Part | None] = {"train": data.train, "val": data.val, "test": data.open_test()}

    @property
    def spec(self) -> DataSpec:
        return self.data.spec

    def _split(self, name: str, part: Part | None, **fields: Any) -> Split | None:
        if part is None:
            return None
        budgets = self.budgets if name == "train" else None
        return Split(labels=part.labels, index=part.index, budgets=budgets, **{"features": None, **fields})

    def encoder(self, encoder: Encoder, tune: Callable | None = None) -> dict[str, float]:
        """Every evaluator's metrics for an encoder; `tune` fine-tunes a copy of it, for those that ask for it."""
        splits = {name: self._encoded(name, encoder, part) for name, part in self.parts.items()}
        return self._score(splits, tune)

    def within(self, encoder: Encoder, n: int, rows: Tensor) -> dict[str, float]:
        """Metrics of an encoder of which everything, the evaluators too, may see only these n labelled rows."""
        train = self._encoded("train", encoder, self.parts["train"], rows)
        train.budgets = None
        found = self._score(
            {"train": train, "val": None, "test": self._encoded("test", encoder, self.parts["test"])}, None
        )
        renamed = {key.replace("/", f"@{n}/", 1): value for key, value in found.items()}
        return {key: value for key, value in renamed.items() if key in self.seen}

    def _encoded(self, name: str, encoder: Encoder, part: Part | None, rows: Tensor | None = None) -> Split | None:
        if part is None:
            return None
        needs = {n for e in self.evaluators.values() for n in getattr(e, "needs", ("features",))}
        rows = torch.arange(len(part)) if rows is None else rows
        found = features.extract(
            encoder.to(self.device),
            lambda i: part.inputs(rows[i], self.device),
            len(rows),
            stages="stages" in needs,
            tokens="tokens" in needs,
            device=self.device,
            autocast_dtype=self.autocast,
        )
        split = self._split(name, part, **found)
        split.labels, split.index = split.labels[rows], split.index[rows]
        return split

    def raw(self) -> dict[str, float]:
        """The evaluators' metrics for the flattened inputs."""
        fill = torch.tensor(self.spec.mean)
        splits = {}
        for name, part in self.parts.items():
            x = None if part is None else features.raw(lambda rows, part=part: part.inputs(rows), len(part), fill=fill)
            splits[name] = self._split(name, part, features=x)
        return self._score(splits, None)

    def _score(self, splits: dict[str, Split | None], tune: Callable | None) -> dict[str, float]:
        metrics: dict[str, float] = {}
        for name, evaluator in self.evaluators.items():
            needs = getattr(evaluator, "needs", ("features",))
            given = {}
            if "tune" in needs:
                if tune is None:
                    continue
                given["tune"] = tune
            if "stages" in needs and splits["train"].stages is None:
                continue
            found = evaluator(splits["train"], splits["val"], splits["test"], self.spec, **given)
            for prefix, how in found.pop("protocol", {}).items():
                self.protocol[f"{name}{prefix}"] = how
            for key, value in found.items():
                metrics[f"{name}{key}" if key.startswith("@") else f"{name}/{key}"] = value
        self.seen |= metrics.keys()
        return metrics

    def probabilities(self, predict: Callable[[Any], Tensor], part: Part, batch: int = 512) -> Tensor:
        """A model's predictions for a part, (N, K) on the CPU."""
        out = []
        with torch.no_grad(), torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            for rows in torch.arange(len(part)).split(batch):
                out.append(predict(part.inputs(rows, self.device)).float().cpu())
        return torch.cat(out)
