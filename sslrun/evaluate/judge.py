"""Runs the evaluators over subjects: the trained encoder beside the rows that need no training."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sslrun.contracts import DataSpec, Encoder, Split
from sslrun.data.module import Data, Part
from sslrun.evaluate import features
from sslrun.evaluate.proxy import naive, scaled
from sslrun.nn.columns import FlatInputs
from sslrun.progress import progress, working

Splits = dict[str, Split | None]


def of(evaluator: Callable, name: str, otherwise: Any) -> Any:
    """What an evaluator says of itself, also where a partial holds its settings."""
    return getattr(getattr(evaluator, "func", evaluator), name, otherwise)


def needs_of(evaluator: Callable) -> tuple[str, ...]:
    """The fields of Split that an evaluator reads."""
    return of(evaluator, "needs", ("features",))


def blind(evaluators: Mapping[str, Callable]) -> bool:
    """Whether all evaluators hold scores against labels, which then nothing may read before they do."""
    return bool(evaluators) and all("scores" in needs_of(e) for e in evaluators.values())


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
        self._protocol: dict[str, dict[str, Any]] = {}  # metric -> subject -> how
        self._took: dict[str, float] = {}  # evaluator -> seconds for the last subject
        self.seen: set[str] = set()  # metrics of the subjects scored so far
        self.parts: dict[str, Part | None] = {"train": data.train, "val": data.open_val(), "test": data.open_test()}
        self.needs = {n for e in self.evaluators.values() for n in needs_of(e)}

    @property
    def spec(self) -> DataSpec:
        return self.data.spec

    def splits(self, encoder: Encoder) -> Splits:
        """What the evaluators read of every part, by this encoder."""
        return {name: part and self._encoded(name, encoder, part) for name, part in self.parts.items()}

    def score(self, subject: str, splits: Splits, tune: Callable | None = None) -> dict[str, float]:
        """Every evaluator's metrics; `tune` fine-tunes a copy of the encoder, for those that ask for it."""
        metrics = self._evaluate(subject, splits, tune)
        self.seen |= metrics.keys()
        return metrics

    def trivial(self) -> dict[str, float]:
        """What answers reach that look at no sample, where evaluators have such a row."""
        train, test, found = self.parts["train"], self.parts["test"], {}
        for name, evaluator in self.evaluators.items():
            rule = of(evaluator, "trivial", None)
            if rule is not None and test is not None:
                scored = rule(train.labels, test.labels, self.spec)
                found |= {f"{name}/{key}": value for key, value in scored.items()}
        return found

    def within(self, subject: str, encoder: Encoder, n: int, rows: Tensor) -> dict[str, float]:
        """Metrics of an encoder of which everything, the evaluators too, may see only these n labels.

        Where an evaluator spreads labels, the other rows are there, without theirs: alone, the few have no neighbours.
        """
        whole, test = any(of(e, "spreads", False) for e in self.evaluators.values()), self.parts["test"]
        train = self._encoded("train", encoder, self.parts["train"], None if whole else rows)
        if whole:
            hidden = torch.full_like(train.labels, -1)
            hidden[rows] = train.labels[rows]
            train.labels = hidden
        train.budgets = None
        splits = {"train": train, "val": None, "test": test and self._encoded("test", encoder, test)}
        renamed = {key.replace("/", f"@{n}/", 1): v for key, v in self._evaluate(subject, splits, None, n).items()}
        return {key: value for key, value in renamed.items() if key in self.seen}

    def _encoded(self, name: str, encoder: Encoder, part: Part, rows: Tensor | None = None) -> Split:
        rows = torch.arange(len(part)) if rows is None else rows
        found = features.extract(
            encoder.to(self.device),
            lambda i: part.inputs(rows[i], self.device),
            len(rows),
            stages="stages" in self.needs,
            tokens="tokens" in self.needs,
            device=self.device,
            autocast_dtype=self.autocast,
            title=f"features of the {name} part",
        )
        return self._split(name, part, rows, isometric=encoder.isometric, **found)

    def raw(self) -> Splits:
        """The flattened inputs in the place of features, averaged down where a sample is large, and naive scores.

        Columns of a table, each in its own unit, are standardised, and a category is an indicator for each value.
        """
        fill, table = torch.tensor(self.spec.mean), FlatInputs(self.spec) if self.spec.fields else nn.Identity()
        there = {name: part for name, part in self.parts.items() if part is not None}
        plain = {name: features.raw(part.inputs, len(part), fill=fill) for name, part in there.items()}
        splits: Splits = dict.fromkeys(self.parts)
        for name, part in there.items():
            x = table(plain[name])
            splits[name] = self._split(name, part, torch.arange(len(part)), features=x, isometric=True)
            if "scores" in self.needs:
                splits[name].scores = naive(plain["train"], plain[name], self.spec)
        return splits

    def scored(self, name: str, score: Callable[[Part], Tensor]) -> Splits:
        """A method's own score, `part -> (N,)`, of what is judged."""
        splits: Splits = {"train": None}
        for part_name in ("val", "test"):
            part = self.parts[part_name]
            rows = part and torch.arange(len(part))
            splits[part_name] = part and self._split(part_name, part, rows, scores={name: score(part)})
        return splits

    def beside(self) -> dict[str, Splits]:
        """Subjects that evaluators bring along to be scored beside methods: detectors of the inputs themselves."""
        kinds = [of(e, "beside", {}) for e in self.evaluators.values()]
        detectors = {name: detector for found in kinds for name, detector in found.items()}
        if not detectors:
            return {}
        raw = self.raw()
        x = {name: raw[name].features.double() for name in ("train", "test")}
        if not self.spec.fields:
            x = {name: scaled(part, self.spec) for name, part in x.items()}
        splits: dict[str, Splits] = {}
        for name, detector in detectors.items():
            score = detector(x["train"], x["test"], self.data.seed)
            test = self._split("test", self.parts["test"], torch.arange(len(score)), scores={name: score})
            splits[name] = {"train": None, "val": None, "test": test}
        return splits

    def _split(self, name: str, part: Part, rows: Tensor, **fields: Any) -> Split:
        budgets = self.budgets if name == "train" else None
        return Split(labels=part.labels[rows], index=part.index[rows], budgets=budgets, **{"features": None, **fields})

    def _evaluate(
        self, subject: str, splits: Splits, tune: Callable | None, within: int | None = None
    ) -> dict[str, float]:
        metrics: dict[str, float] = {}
        if splits["test"] is None:
            return metrics
        for name, evaluator in self.evaluators.items():
            needs = needs_of(evaluator)
            there = {"tune": tune, **vars(splits["test"])}
            if any(there[n] is None for n in needs):
                continue
            given = {"tune": tune} if "tune" in needs else {}  # training shows a bar of its own
            with nullcontext() if given else self._saying(f"{name}@{within}" if within else name, subject):
                found = evaluator(splits["train"], splits["val"], splits["test"], self.spec, **given)
            for prefix, how in found.pop("protocol", {}).items():
                at = f"@{within}" if within else prefix
                self._protocol.setdefault(f"{name}{at}", {})[subject] = how
            for key, value in found.items():
                metrics[f"{name}{key}" if key.startswith("@") else f"{name}/{key}"] = value
        return metrics

    @contextmanager
    def _saying(self, evaluator: str, subject: str) -> Iterator[None]:
        """A line for an evaluator that takes long, with how long it took for the subject before."""
        began = time.monotonic()
        with working(f"judging {subject} by {evaluator}", self._took.get(evaluator)):
            yield
        self._took[evaluator] = time.monotonic() - began

    def note(self, metric: str, subject: str, how: dict[str, Any]) -> None:
        """Puts down how a number came about that no evaluator made."""
        self._protocol.setdefault(metric, {})[subject] = how

    def protocol(self) -> dict[str, Any]:
        """How each number came about: the settings that all subjects share, and under `subjects` what differs."""
        out = {}
        for metric, by_subject in self._protocol.items():
            common = dict(next(iter(by_subject.values())))
            for how in by_subject.values():
                common = {k: v for k, v in common.items() if k in how and how[k] == v}
            own = {s: {k: v for k, v in how.items() if k not in common} for s, how in by_subject.items()}
            out[metric] = common | ({"subjects": own} if any(own.values()) else {})
        return out

    def probabilities(
        self, predict: Callable[[Any], Tensor], part: Part, title: str | None = None, batch: int = 512
    ) -> Tensor:
        """A model's predictions, or an encoder's features, for a part, (N, K) on the CPU."""
        out, batches = [], torch.arange(len(part)).split(batch)
        with torch.no_grad(), torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            for rows in progress(batches, len(batches), title):
                out.append(predict(part.inputs(rows, self.device)).float().cpu())
        return torch.cat(out)
