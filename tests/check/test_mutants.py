"""Defects that toolkits have shipped, planted one by one in sslrun's methods: `sslrun check` catches each of them."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import betaincinv
from torch.nn.functional import softmax

from sslrun.catalogue import methods
from sslrun.check import examine
from sslrun.check.worlds import WORLDS
from sslrun.methods.semi import mixmatch
from sslrun.methods.semi.distillation import Distillation
from sslrun.methods.semi.entropy_minimisation import EntropyMinimisation
from sslrun.methods.semi.fixmatch import FixMatch
from sslrun.methods.semi.mean_teacher import MeanTeacher
from sslrun.methods.semi.mixmatch import MixMatch
from sslrun.methods.semi.noisy_student import NoisyStudent
from sslrun.methods.semi.pi_model import PiModel
from sslrun.methods.semi.uda import UDA

TABLE = Path(__file__).parents[2] / "docs/check.md"
MUTANTS = {}  # (defect, method) -> the class that has it


def planted(defect: str):
    def keep(cls):
        name = cls.__mro__[1].__module__.rpartition(".")[2]
        MUTANTS[defect, name] = cls
        return cls

    return keep


@planted("the teacher is compared with itself (as in USB)")
class _(MeanTeacher):
    def forward(self, encoder, batch):
        views = [batch[stream]["teacher"] for stream in ("labelled", "unlabelled")]
        with torch.no_grad():
            teacher = self.averaged(torch.cat(views))
        (x,) = self.logits(encoder, batch["labelled"]["student"])
        loss_u = (softmax(teacher, 1) - softmax(teacher, 1)).square().mean()
        return self.total(x, batch["labelled"]["y"], loss_u)


@planted("the teacher is the network itself")
class _(MeanTeacher):
    def forward(self, encoder, batch):
        self.averaged = lambda x: self.logits(encoder, x)[0]
        return super().forward(encoder, batch)


@planted("the student's side is detached (as in LAMDA-SSL)")
class _(MeanTeacher):
    def total(self, x, y, loss_u, *args, **told):
        return super().total(x, y, loss_u.detach(), *args, **told)


@planted("mean over the kept rows in place of all rows")
class _(FixMatch):
    def total(self, x, y, loss_u, *args, **told):
        return super().total(x, y, loss_u / told["mask_rate"].clamp_min(1e-6), *args, **told)


@planted("guesses multiplied by the share of their class in place of divided")
class _(FixMatch):
    def guess(self, weak):
        return 2 * weak - super().guess(weak)


@planted("the sum over classes in place of their mean")
class _(MixMatch):
    def total(self, x, y, loss_u, *args, **told):
        return super().total(x, y, loss_u * len(self.prior), *args, **told)


@planted("softmax twice")
class _(EntropyMinimisation):
    def logits(self, encoder, *inputs):
        return tuple(softmax(logits, 1) for logits in super().logits(encoder, *inputs))


@planted("mixing shares below one half")
class _(MixMatch):
    def __init__(self, encoder, spec, alpha=0.75, **settings):
        super().__init__(encoder, spec, alpha=alpha, **settings)
        if alpha:
            points = betaincinv(alpha, alpha, np.linspace(0, 1, mixmatch.POINTS))
            self.quantiles = torch.from_numpy(points).float()


@planted("one mixing share for the whole batch")
class _(MixMatch):
    def share(self, u):
        return super().share(u)[:1].expand(len(u))


@planted("labels mixed otherwise than inputs")
class _(MixMatch):
    def mix(self, batch, parts):
        turned = [(stream, x, y.flip(0)) for stream, x, y in parts]
        return [(x, y.flip(0)) for x, y in super().mix(batch, turned)]


@planted("the threshold after sharpening (as in LAMDA-SSL)")
class _(UDA):
    def trust(self, p, index):
        return super().trust(softmax(p.log() / self.temperature, 1), index)


class Attached(torch.Tensor):
    """Logits that cannot be detached."""

    def detach(self):
        return self


@planted("a gradient through the target")
class _(UDA):
    def logits(self, encoder, *inputs):
        return tuple(x.as_subclass(Attached) for x in super().logits(encoder, *inputs))


@planted("a gradient through the target")
class _(PiModel):
    def logits(self, encoder, *inputs):
        return tuple(x.as_subclass(Attached) for x in super().logits(encoder, *inputs))


@planted("a stop-gradient in the entropy")
class _(EntropyMinimisation):
    def forward(self, encoder, batch):
        out = super().forward(encoder, batch)
        x, u = self.logits(encoder, batch["labelled"]["view"], batch["unlabelled"]["view"])
        loss_u = -(softmax(u.detach(), 1) * torch.log_softmax(u, 1)).sum(1).mean()
        told = {k: v for k, v in out.items() if not k.startswith("loss")}
        return self.total(x, batch["labelled"]["y"], loss_u, **told)


@planted("the divergence is a mean over classes too (torch's default)")
class _(Distillation):
    def divergence(self, logits, target):
        return super().divergence(logits, target) / logits.shape[1]


@planted("no T^2 before the divergence")
class _(Distillation):
    def divergence(self, logits, target):
        return super().divergence(logits, target) / self.temperature**2


@planted("the teacher is trained as well")
class _(Distillation):
    def __init__(self, encoder, spec, **settings):
        super().__init__(encoder, spec, **settings)
        self.past.requires_grad_(True)
        self.past.predict = torch.enable_grad()(self.past.predict.__wrapped__.__get__(self.past))


@planted("the teacher is the network itself")
class _(NoisyStudent):
    def taught(self, encoder, batch, teacher):
        return super().taught(encoder, batch, SimpleNamespace(predict=lambda x: softmax(self.logits(encoder, x)[0], 1)))


@planted("the average keeps its first weights")
class _(FixMatch):
    def after_step(self, encoder):
        self.ema.t += 1


@planted("the average is a copy of the network")
class _(MeanTeacher):
    def after_step(self, encoder):
        decay, self.ema.decay, self.ema.warmup = self.ema.decay, 0.0, False
        super().after_step(encoder)
        self.ema.decay = decay


@planted("the average is trained by the optimiser")
class _(MeanTeacher):
    def __init__(self, encoder, spec, **settings):
        super().__init__(encoder, spec, **settings)
        self.ema.requires_grad_(True)
        self.averaged = torch.enable_grad()(self.averaged)


def caught(monkeypatch, mutant, method: str) -> set[str]:
    """The checks that complain of a method with a defect; the method itself stands where the catalogue looks."""
    module, _, name = methods()[method]["_target_"].rpartition(".")
    monkeypatch.setattr(import_module(module), name, mutant)
    monkeypatch.delitem(WORLDS, "image")  # tables, which are quicker, show as much
    return {finding.check for finding in examine(method) if finding.complaint}


def told() -> dict[tuple[str, str], set[str]]:
    """The table of docs/check.md."""
    rows = re.findall(r"^\| (?!defect)([^|-][^|]*?) \| (\w+) \| ([^|]+?) \|$", TABLE.read_text(), re.M)
    return {(defect, method): set(checks.split(", ")) for defect, method, checks in rows}


@pytest.mark.filterwarnings("ignore:Converting a tensor")  # of Attached
@pytest.mark.parametrize(("defect", "method"), MUTANTS, ids=lambda value: value)
def test_a_planted_defect_is_caught_as_the_documentation_says(defect, method, monkeypatch):
    assert caught(monkeypatch, MUTANTS[defect, method], method) == told()[defect, method]


def test_the_documentation_tells_of_these_defects_and_no_others():
    assert told().keys() == MUTANTS.keys()
