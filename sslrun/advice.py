"""What a person would stop a run for, said once while there is still time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl

from sslrun.look import Look

WINDOW = 50  # steps at least, before anything is spoken of
EARLY = 0.2  # share of training in which guesses may still be all alike
SINGLE = 0.95  # share of guesses that is called one class
SHOWN = 5  # classes of a histogram


class Advice(pl.Callback):
    """Says, once each, that no unlabelled sample is trusted, and that guesses have fallen into one class.

    The first is asked of the last epoch, or of the last tenth of `total_steps` where that is longer; the second of the
    beliefs of each look. `say(text)` is called on rank 0; `said` keeps the texts.
    """

    def __init__(self, look: Look, per_epoch: int, total_steps: int, say: Callable[[str], None]):
        self.look, self.say, self.total = look, say, total_steps
        self.window = max(WINDOW, per_epoch, total_steps // 10)
        self.said: dict[str, str] = {}
        self._trusted: dict[str, Any] = {}
        self._count = 0
        self._examined: Any = None  # beliefs that were looked into: they change at looks, not at steps

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, *_: Any) -> None:
        self._count += 1
        for key in [k for k in learner.scalars if k.split("/")[-1] == "mask_rate"]:
            self._trusted[key] = self._trusted.get(key, 0) + learner.scalars[key]
        if self._count % self.window == 0:
            for key in [k for k, trusted in self._trusted.items() if float(trusted) == 0]:
                self._tell(trainer, "idle", self._idle(learner, key))
            self._trusted = {}
        found = self.look.beliefs
        late = trainer.global_step > max(WINDOW, EARLY * self.total)
        if late and found is not None and found is not self._examined and len(found.guesses):
            self._examined = found
            share, most = found.shares.max(0)
            if share >= SINGLE > found.prior.max():
                self._tell(trainer, "single", self._single(learner, int(most)))

    def _tell(self, trainer: pl.Trainer, what: str, text: str) -> None:
        if what not in self.said and trainer.is_global_zero:
            self.said[what] = text
            self.say(text)

    def _idle(self, learner: Any, key: str) -> str:
        name = key.split("/")[0] if "/" in key else next(iter(learner.objectives))
        threshold = getattr(learner.objectives[name], "threshold", None)
        asked = f"method.{name}.threshold={threshold} asks for" if threshold is not None else "would be trusted"
        return (
            f"{name}: in the last {self.window} steps no guess was as sure as {asked}, so that the unlabelled samples "
            "taught nothing; likely causes: too few steps yet, a threshold too high, a learning rate too low, or too "
            "few labels."
        )

    def _single(self, learner: Any, most: int) -> str:
        found, names = self.look.beliefs, learner.data.spec.classes
        order = found.shares.argsort(descending=True)[:SHOWN].tolist()
        told = ", ".join(f"{names[c]} {100 * found.shares[c]:.0f} %" for c in order if found.shares[c] > 0)
        return (
            f"{found.name}: the guesses on unlabelled samples have fallen into one class ({told}; among the labels "
            f"{names[most]} has {100 * found.prior[most]:.0f} %): lower method.{found.name}.unlabelled_weight or lr, "
            "or give more labels."
        )
