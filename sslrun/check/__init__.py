"""Checks of methods: is the loss the paper's, and does it teach the network anything?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from sslrun.build import build
from sslrun.catalogue import locate, methods
from sslrun.check.alive import watched
from sslrun.check.byhand import held_against
from sslrun.check.worlds import WORLDS
from sslrun.compose import compose

SMALL = ["batch_size=16", "mu=2", "labels=20", "eval.budgets=[]"]


@dataclass(frozen=True)
class Finding:
    """One check of one method: what it is about, and what is wrong, or why there was nothing to check.

    Checks are `numbers`, `gradient` and `rule` (each of an example, whose title is `about`), `alive` and `average`
    (each on data of the modality `about`).
    """

    method: str
    check: str
    about: str
    complaint: str | None = None
    missing: str | None = None


def examine(method: str) -> list[Finding]:
    """Everything that is checked of a method by name."""
    kind = locate(methods()[method]["_target_"])
    found = []
    if kind.examples is None:
        found.append(Finding(method, "numbers", "", missing="no example computed by hand"))
    for example in kind.examples() if kind.examples else ():
        answers = _asked(lambda example=example: held_against(kind, example), "numbers")
        found += [Finding(method, check, example.title, said) for check, said in answers.items()]
    with tempfile.TemporaryDirectory() as folder:
        for modality in kind.modalities or WORLDS:
            if modality not in WORLDS:
                found.append(Finding(method, "alive", modality, missing="no small data of this modality is bundled"))
                continue
            answers = _asked(lambda modality=modality: _trained(method, modality, Path(folder)), "alive")
            if not answers:
                found.append(Finding(method, "alive", modality, missing="nothing learns by gradients"))
            found += [Finding(method, check, modality, said) for check, said in answers.items()]
    return found


def _trained(method: str, modality: str, folder: Path) -> dict[str, str | None]:
    """The checks of a short training on a small world of this modality."""
    cfg, _ = compose([f"method=[{method}]", *WORLDS[modality](folder), *SMALL])
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    torch.manual_seed(0)  # dropout
    return watched(build(cfg), cfg.batch_size, cfg.mu)


def _asked(question: Callable[[], dict[str, Any]], check: str) -> dict[str, str | None]:
    """The answers, or what kept the method from answering: a method that breaks must not hide the others."""
    try:
        return question()
    except Exception as error:
        return {check: f"{type(error).__name__}: {' '.join(str(error).split())}"}
