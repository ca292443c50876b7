"""What values the keys of a configuration may take, asked before anything is built."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from sslrun.errors import UserError
from sslrun.explain import LISTING
from sslrun.schema import Config

Bound = tuple[Callable[[Any], bool], str]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def whole(low: int) -> Bound:
    return lambda v: _number(v) and v == int(v) and v >= low, f"a whole number, {low} or more"


POSITIVE: Bound = (lambda v: _number(v) and v > 0, "a number above 0")
NOT_NEGATIVE: Bound = (lambda v: _number(v) and v >= 0, "a number, 0 or more")
SHARE: Bound = (lambda v: _number(v) and 0 <= v <= 1, "a share from 0 to 1")
PART: Bound = (lambda v: _number(v) and 0 <= v < 1, "a share from 0 to below 1")
COUNT: Bound = (lambda v: v == "auto" or whole(1)[0](v), "a whole number, 1 or more, or auto")
COUNTS: Bound = (
    lambda v: isinstance(v, ListConfig) and all(whole(1)[0](n) for n in v),
    "a list of numbers of labels, such as [10,40]",
)
ON_ERROR: Bound = (lambda v: v in ("continue", "stop"), "continue or stop")
YES_NO: Bound = (lambda v: isinstance(v, bool), "true or false")

OPTIMIZER = {"lr": POSITIVE, "weight_decay": NOT_NEGATIVE, "reference_batch": whole(1), "warmup": SHARE}
BOUNDS: dict[str, Bound] = {
    "epochs": whole(1),
    "steps": whole(1),
    "batch_size": whole(1),
    "mu": whole(1),
    "lr": POSITIVE,
    "labels": whole(1),
    "accumulate": whole(1),
    "clip": POSITIVE,
    "save_every": NOT_NEGATIVE,
    "on_error": ON_ERROR,
    "sweep.limit": whole(1),
    "sweep.samples": whole(1),
    "sweep.trials": whole(1),
    "sweep.seed": whole(0),
    "launcher.jobs": COUNT,
    **{f"launcher.{key}": whole(1) for key in ("minutes", "cpus")},
    **{f"launcher.{key}": whole(0) for key in ("requeues", "gpus")},
    "launcher.memory": POSITIVE,
    "data.val_fraction": PART,
    "data.test_fraction": PART,
    "data.exclude_labelled": YES_NO,
    "eval.budgets": COUNTS,
    "eval.looks": whole(0),
    "eval.proxy.resamples": whole(1),
    "device.devices": COUNT,
    "device.num_nodes": whole(1),
    "device.threads": whole(1),
    "supervision.batch_size": whole(1),
    **{f"encoder.{key}": whole(1) for key in ("width", "depth", "dim", "heads", "patch")},
    **{f"{group}.{key}": bound for group in ("optimizer", "supervision.optimizer") for key, bound in OPTIMIZER.items()},
}


TYPES = {"int": (int, "a whole number"), "float": ((int, float), "a number"), "bool": (bool, "true or false")}


def refuse_types(factory: Callable, node: Mapping[str, Any], where: str) -> None:
    """Compares plain values with the annotations of what they are handed to.

    Raises:
        UserError: names the first value of another type.
    """
    for name, parameter in inspect.signature(factory).parameters.items():
        kind, wanted = TYPES.get(str(parameter.annotation).removesuffix(" | None"), (object, ""))
        value = node.get(name)
        fits = isinstance(value, kind) and (kind in (bool, object) or not isinstance(value, bool))
        if value is not None and not fits:
            raise UserError(f"{where}.{name}={value} is not {wanted}.")


def refuse_out_of_bounds(cfg: DictConfig) -> None:
    """Checks every value that is set, in the order of the table.

    Raises:
        UserError: names the first key whose value cannot work, and what would.
    """
    extra = sorted(set(cfg) - set(Config.__dataclass_fields__))
    if extra:  # added by +KEY=VALUE
        raise UserError(f"key {extra[0]} is unknown; {LISTING}")
    bounds = BOUNDS | {f"method.{name}.weight": NOT_NEGATIVE for name in cfg.method}
    for key, (fits, wanted) in bounds.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and not fits(value):
            raise UserError(f"{key}={value} does not work; it must be {wanted}.")
    if cfg.get("image") is not None and cfg.data.get("path") != cfg.image:
        raise UserError(f"image={cfg.image} would do nothing: data=pixels reads it, as experiment=segmentation does.")
    if cfg.data.val_fraction + cfg.data.test_fraction >= 1:
        raise UserError(
            f"data.val_fraction={cfg.data.val_fraction} and data.test_fraction={cfg.data.test_fraction} leave nothing "
            "to train on; their sum must be below 1."
        )
