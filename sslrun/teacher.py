"""What an earlier run hands on: its methods as training left them, for `sslrun predict` and `teacher=RUN`, and how
many labels it has learned from."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from sslrun.catalogue import fitting, locate, methods
from sslrun.contracts import DataSpec, Encoder, Objective, UserError
from sslrun.data.module import Data
from sslrun.make import make
from sslrun.nn.modes import Frozen
from sslrun.record.callbacks import newest_checkpoint
from sslrun.record.encoder import build, read_config, read_learned, restore
from sslrun.record.folder import RunFolder, open_run
from sslrun.record.origin import saved


class Teacher(Frozen):
    """A run's encoder and its method, asked for the classes of samples."""

    def __init__(self, encoder: Encoder, objective: Objective):
        super().__init__()
        self.encoder, self.objective = encoder, objective
        self.freeze()

    @torch.no_grad()
    def predict(self, x: Any) -> Tensor:
        """Probabilities (B, K) in fp32; a row of zeros where it does not know."""
        return self.objective.predict(self.encoder, x)


def takes_teacher(target: str) -> bool:
    return "teacher" in inspect.signature(locate(target)).parameters


def names_classes(target: str) -> bool:
    """Whether a method predicts classes of the data."""
    kind = locate(target)
    return kind.predict is not None and kind.predicts == "class"


def teacher_of(run: str, spec: DataSpec) -> Teacher:
    """The first method of a run that predicts classes, from the newest checkpoint.

    Raises:
        UserError: there is no such run, it has no checkpoint or no such method, or it learned from other data.
    """
    try:
        folder = open_run(run)
        cfg, _ = saved(folder)
        config, theirs, _ = read_config(run)
    except UserError as error:
        raise UserError(f"teacher={error}") from error
    able = [name for name, node in cfg.method.items() if names_classes(node["_target_"])]
    if not able:
        others = [name for name in fitting(spec.modality) if names_classes(methods()[name]["_target_"])]
        raise UserError(
            f"teacher={run} is of method={'+'.join(cfg.method) or 'none'}, which predicts no classes to learn; name a "
            f"run of one of {', '.join(others)}."
        )
    _refuse_other_data(run, theirs, spec)
    encoder = build(config, theirs)
    found = recalled(folder, cfg, theirs, encoder)
    if found is None:
        raise UserError(f"teacher={run} has no checkpoint to learn from; name a run whose checkpoints were kept.")
    return Teacher(encoder, found[able[0]])


def _refuse_other_data(run: str, theirs: DataSpec, ours: DataSpec) -> None:
    for what in ("modality", "shape", "num_classes", "classes", "fields"):
        a, b = getattr(theirs, what), getattr(ours, what)
        if a != b:
            told = "other columns than" if what == "fields" else f"{what} {_shown(a)}, not {_shown(b)} as in"
            raise UserError(
                f"teacher={run} was trained on data={theirs.name} of {told} data={ours.name}; name a run on data of "
                "the same shape and classes."
            )


def _shown(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def recalled(folder: RunFolder, cfg: Any, spec: DataSpec, encoder: Encoder) -> dict[str, Objective] | None:
    """The methods of a run in eval mode, with the tensors of its newest checkpoint, as are the encoder's from then on.

    None where there is no checkpoint.
    """
    path = newest_checkpoint(folder)
    if path is None:
        return None
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    restore(encoder, state, "encoder.")
    found = {}
    for name, node in OmegaConf.to_container(cfg.method).items():
        node.pop("weight", None)
        prefix, given = f"objectives.{name}.", {}
        if cfg.teacher and takes_teacher(node["_target_"]):
            # what a student learned from, it does not need any more: its teacher's own folder may be gone
            given["teacher"] = nn.Module()
            state = {k: v for k, v in state.items() if not k.startswith(f"{prefix}teacher.")}
        objective = make(node, f"method.{name}", encoder, spec, **given)
        restore(objective, state, prefix)
        found[name] = objective.eval()
    return found


def labels_before(cfg: Any, data: Data) -> int:
    """How many labels of this data the encoder of `weights` or the run of `teacher` has learned from.

    Raises:
        UserError: one of them has learned from samples that are this run's test part, or from more labels than
            this run may see.
    """
    before = 0
    for key, what in (("weights", "the encoder of weights="), ("teacher", "the method of teacher=")):
        learned = read_learned(cfg[key]) if cfg[key] else {}
        if learned.get("data") != data.fingerprint:
            continue
        if learned["test"] != data.test_digest:
            raise UserError(
                f"{key}={cfg[key]} learned from samples that split_seed={cfg.split_seed} tests on; add "
                f"split_seed={learned['split_seed']}, its own, and its data.test_fraction."
            )
        if cfg.labels is not None and cfg.labels < learned["labels"]:
            raise UserError(
                f"labels={cfg.labels} is fewer than the {learned['labels']} labels that {what} has learned from; say "
                f"labels={learned['labels']} or more, or take a run of no more than {cfg.labels}."
            )
        if learned["labels"]:
            data.notes.append(f"{what} has learned from {learned['labels']} labels already")
        before = max(before, int(learned["labels"]))
    return before
