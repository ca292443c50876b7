"""The look at the validation part during training: losses, a quick kNN or the model's own accuracy, and collapse."""

from __future__ import annotations

from typing import Any

import torch

from sslrun.beliefs import Beliefs, classifier, gradient_norms, unlabelled
from sslrun.contracts import Split
from sslrun.data.module import Data
from sslrun.device import Device
from sslrun.evaluate import features
from sslrun.evaluate.knn import knn
from sslrun.evaluate.scores import guesses
from sslrun.learner import Learner
from sslrun.nn.gather import alone
from sslrun.nn.modes import evaluating
from sslrun.streams import as_seen_by, streams_of

BANK, QUERIES = 4096, 2048  # samples that a look reads at most: minutes matter, the final scores read everything


class Look:
    """Scalars of a learner on the validation part; draws depend on the sample, not on the step.

    With `blind` no label is read. `beliefs` are the classifier's at the last look, where there is one.
    """

    def __init__(self, data: Data, device: Device, blind: bool = False):
        self.data, self.device = data, device
        bank = data.sample(BANK)
        self.unlabelled = unlabelled(data)
        self.beliefs: Beliefs | None = None
        self.bank = bank[:0] if blind or data.spec.normal else bank[data.train.labels[bank] >= 0]

    def primary(self, learner: Learner) -> tuple[str, bool]:
        """The metric that chooses the best checkpoint, and whether larger is better."""
        labelled = self.data.val is not None and bool((self.data.val.labels >= 0).any())
        if labelled and self._classifier(learner) is not None:
            return "validation/classify_accuracy", True
        if labelled and len(self.bank) and learner.encoder.dim and self._trains(learner):
            return "validation/knn_accuracy", True
        return "validation/loss", False

    @staticmethod
    def _classifier(learner: Learner) -> Any:
        found = [o for o in learner.objectives.values() if o.predict is not None and o.predicts == "class"]
        return found[0] if found else None

    @staticmethod
    def _trains(learner: Learner) -> bool:
        return any(o.trains for o in learner.objectives.values())

    @torch.no_grad()
    def __call__(self, learner: Learner) -> dict[str, float]:
        with evaluating(learner), alone():  # every process looks at all samples
            answers: list[tuple[torch.Tensor, torch.Tensor]] = []  # the classifier's probabilities, and labels
            values = self._losses(learner, answers)
            with self.device.mixed():
                self.beliefs = self._believed(learner, answers)
            if self._trains(learner):
                values |= self._features(learner) | self._gradients(learner)
            if self.beliefs is not None:
                values |= self.beliefs.scalars()
        return values

    def _losses(self, learner: Learner, answers: list[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
        val = self.data.val
        if val is None:
            return {}
        sums: dict[str, list[tuple[float, int]]] = {}  # (value, rows) of each batch: the last one may be small
        streams = streams_of(learner.objectives.values())
        model = self._classifier(learner)
        with self.device.mixed():
            for plan in self.data.validation(val, streams, 256, QUERIES):
                batch = self.data.batch(plan, val, learner.views, learner.device)
                for name, objective in learner.objectives.items():
                    seen = as_seen_by(objective, batch)
                    if "labelled" in objective.streams and bool((seen["labelled"]["y"] < 0).any()):
                        continue  # a validation sample without a label has no supervised loss
                    out = objective(learner.encoder, seen)
                    if objective.trivial is not None:
                        out["trivial"] = objective.trivial(seen)["loss"]
                    for key, value in out.items():
                        sums.setdefault(learner.called(name, key), []).append(
                            (float(value), len(seen[objective.streams[0]]))
                        )
                if model is not None:
                    stream = batch[streams[0]]
                    known = stream["y"] >= 0
                    p = model.predict(learner.encoder, stream["x"])[known]
                    answers.append((p.float().cpu(), stream["y"][known].cpu()))
        means = {k: sum(v * n for v, n in parts) / sum(n for _, n in parts) for k, parts in sums.items()}
        for name in learner.objectives:
            trivial = means.pop(learner.called(name, "trivial"), None)
            if trivial is not None:
                means[learner.called(name, "skill")] = 1 - means[learner.called(name, "loss")] / max(trivial, 1e-12)
        if len(learner.objectives) > 1:
            losses = {name: means[f"{name}/loss"] for name in learner.objectives if f"{name}/loss" in means}
            means["loss"] = float(learner.weighted(losses))
        values = {f"validation/{k}": v for k, v in means.items()}
        hits = [guesses(p) == y for p, y in answers]
        if hits and len(torch.cat(hits)):
            values["validation/classify_accuracy"] = torch.cat(hits).float().mean().item()
        return values

    def _believed(self, learner: Learner, answers: list[tuple[torch.Tensor, torch.Tensor]]) -> Beliefs | None:
        found = classifier(learner.objectives)
        if found is None or not (answers or len(self.unlabelled)):
            return None
        name, model = found
        inputs = (self.data.train.inputs(rows, learner.device) for rows in self.unlabelled.split(512))
        guessed = [model.predict(learner.encoder, x).float().cpu() for x in inputs]
        none = (torch.zeros(0, len(model.prior)), torch.zeros(0, dtype=torch.long))
        p, y = (torch.cat(parts) for parts in zip(none, *answers, strict=True))
        return Beliefs(name, model.prior.cpu(), torch.cat([none[0], *guessed]), p, y)

    def _gradients(self, learner: Learner) -> dict[str, float]:
        """How strongly each loss term pulls at the encoder, on a validation batch."""
        found, values = classifier(learner.objectives), {}
        if found is None or self.data.val is None:
            return values
        name, objective = found
        plan = next(self.data.validation(self.data.val, objective.streams, 256, 256))
        batch = as_seen_by(objective, self.data.batch(plan, self.data.val, learner.views, learner.device))
        if not bool((batch["labelled"]["y"] < 0).any()):
            with self.device.mixed():
                norms = gradient_norms(learner.encoder, objective, batch)
            values = {f"gradient/{learner.called(name, term)}": norm for term, norm in norms.items()}
        return values

    def _features(self, learner: Learner) -> dict[str, float]:
        encoder, values = learner.exported(), {}
        train = self._extract(encoder, self.data.train, self.bank if len(self.bank) else self.data.sample(BANK))
        values |= {f"collapse/{k}": v for k, v in features.health(train).items()}
        val = self.data.val
        if val is not None and len(self.bank) and bool((val.labels >= 0).any()):
            rows = self.data.sample(QUERIES, val)
            bank = Split(train, self.data.train.labels[self.bank], self.data.train.index[self.bank])
            queries = Split(self._extract(encoder, val, rows), val.labels[rows], val.index[rows])
            values["validation/knn_accuracy"] = knn(bank, None, queries, self.data.spec)["accuracy"]
        return values

    def _extract(self, encoder: Any, part: Any, rows: torch.Tensor) -> torch.Tensor:
        device = next(encoder.parameters()).device
        found = features.extract(
            encoder,
            lambda i: part.inputs(rows[i], device),
            len(rows),
            device=device,
            autocast_dtype=self.device.autocast,
        )
        return found["features"]
