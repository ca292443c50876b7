"""From a resolved configuration to objects: the only place that instantiates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from sslrun import multitask
from sslrun.bounds import refuse_out_of_bounds
from sslrun.catalogue import fitting, locate, methods
from sslrun.contracts import DataSpec, Encoder, Objective, Unfit, UserError
from sslrun.data.module import Data
from sslrun.evaluate.judge import needs_of, of
from sslrun.make import make
from sslrun.nn.optim import scaled_lr, schedule
from sslrun.profiles import refuse_profile
from sslrun.record.encoder import load_state, read_config
from sslrun.rng import seed_of
from sslrun.schema import chosen
from sslrun.streams import streams_of, views_of
from sslrun.teacher import labels_before, takes_teacher, teacher_of

SWEEP_KEYS = ("sweep", "launcher", "on_error")
# the data module's, not the source's
MODULE_KEYS = ("val_fraction", "test_fraction", "exclude_labelled", "normal_class")
OPTIMIZER_KEYS = ("lr", "weight_decay", "lr_scaling", "reference_batch", "schedule", "warmup")


@dataclass
class Built:
    """The parts of one experiment, before they are trained."""

    data: Data
    encoder: Encoder
    encoder_config: dict[str, Any]
    objectives: dict[str, Objective]
    weights: dict[str, float]
    evaluators: dict[str, Callable]
    labels_before: int = 0  # of this data, that the encoder of `weights` or the method of `teacher` has learned from


def build_data(cfg: Any, recipes_used: set[str]) -> Data:
    """The data set, which the methods have to read, its parts, and the augmentation recipes that somebody reads."""
    node = {k: v for k, v in cfg.data.items() if k not in MODULE_KEYS}
    source = make(node, "data")
    refuse_misfits(cfg, source.spec)
    missing = sorted(recipes_used - set(cfg.augmentation))
    if missing:
        asked = [f"method.{m}.{k}=" for m, node in cfg.method.items() for k, v in node.items() if v == missing[0]]
        raise UserError(
            f"{next(iter(asked), 'recipe ')}{missing[0]} is not in this augmentation; it has: "
            f"{', '.join(cfg.augmentation)}."
        )
    from sslrun.augment.recipe import Recipe

    recipes = {}
    for name in sorted(recipes_used):
        ops = [make(op, f"augmentation.{name}") for op in cfg.augmentation[name]]
        recipes[name] = Recipe(ops)
    return Data(
        source,
        seed=cfg.seed,
        split_seed=cfg.split_seed,
        labels=cfg.labels,
        budgets=tuple(cfg.eval.budgets),
        recipes=recipes,
        **{k: cfg.data[k] for k in MODULE_KEYS},
    )


def build_encoder(cfg: Any, data: Data) -> tuple[Encoder, dict[str, Any]]:
    """The encoder, untrained or with the tensors of `weights`, and its configuration."""
    config = dict(cfg.encoder)
    if cfg.weights:
        config, spec, folder = _read_weights(cfg)
        if spec.modality != data.spec.modality:
            raise UserError(
                f"weights={cfg.weights} encodes {spec.modality} data, and data={data.name} is {data.spec.modality}."
            )
    accepted = locate(config["_target_"]).modalities
    if accepted and data.spec.modality not in accepted:
        name = config["_target_"].rpartition(".")[2]
        raise UserError(
            f"encoder {name} reads {' or '.join(accepted)} data, and data={data.name} is {data.spec.modality}; "
            "leave encoder= out to get a fitting one."
        )
    torch.manual_seed(seed_of(cfg.seed, "encoder"))
    encoder = make(config, "encoder", data.spec)
    if cfg.weights:
        load_state(encoder, folder, f"weights={cfg.weights}")
    if len(data.spec.shape) == 3:
        encoder = encoder.to(memory_format=torch.channels_last)
    return encoder, config


def build_objectives(cfg: Any, data: Data, encoder: Encoder) -> tuple[dict[str, Objective], dict[str, float]]:
    """The objectives by name, and the users' weights of their losses."""
    objectives, weights = {}, {}
    teacher = teacher_of(cfg.teacher, data.spec) if cfg.teacher else None
    for name, node in sorted(cfg.method.items()):
        node = dict(node)
        weights[name] = float(node.pop("weight", 1.0))
        given = {"teacher": teacher} if teacher is not None and takes_teacher(node["_target_"]) else {}
        torch.manual_seed(seed_of(cfg.seed, "objective", name))
        objectives[name] = make(node, f"method.{name}", encoder, data.spec, **given)
    return objectives, weights


def refuse_misfits(cfg: Any, spec: Any) -> None:
    """Says before training that a method does not read this kind of data, and which ones do."""
    for name, node in cfg.method.items():
        accepted = locate(node["_target_"]).modalities
        if accepted and spec.modality not in accepted:
            raise Unfit(
                f"method={name} reads {' or '.join(accepted)} data, and data={spec.name} is {spec.modality} data; "
                f"for {spec.modality} data: {', '.join(fitting(spec.modality))}."
            )
    if cfg.teacher and not any(takes_teacher(node["_target_"]) for node in cfg.method.values()):
        able = [name for name, entry in methods().items() if takes_teacher(entry["_target_"])]
        raise UserError(
            f"teacher={cfg.teacher} would do nothing: method={'+'.join(cfg.method) or 'none'} takes no teacher; "
            f"these do: {', '.join(able)}; weights=RUN starts from a run's encoder."
        )


def recipes_of(cfg: Any) -> set[str]:
    """Names of recipes that the configuration mentions or that a class declares as its views."""
    used = set()
    for node in [*cfg.method.values(), cfg.supervision.objective]:
        used |= {v for k, v in node.items() if k.startswith("recipe")}
        used |= {r for views in locate(node["_target_"]).views.values() for r in views.values()}
    return used


def shrink_batches(cfg: Any, data: Data, objectives: Mapping[str, Objective]) -> None:
    """Data of fewer samples than a batch gets batches that it can fill, first of fewer unlabelled ones, and a note."""
    streams = streams_of(objectives.values())
    pool, mu = (data.unlabelled, cfg.mu) if "unlabelled" in streams else (data.train, 1)
    whole = any(o.whole_epochs for o in objectives.values())  # these take a last, shorter batch
    if cfg.batch_size * mu <= len(pool) or not len(pool) or whole:
        return
    fewer = max(1, len(pool) // cfg.batch_size)
    size = min(cfg.batch_size, len(pool) // fewer)
    before, now = (f"batch_size={b}" + f" times mu={m}" * (mu > 1) for b, m in ((cfg.batch_size, mu), (size, fewer)))
    data.notes.append(f"{before} is more than the {len(pool)} samples: {now} is used")
    cfg.batch_size = size
    if "unlabelled" in streams:
        cfg.mu = fewer


def build(cfg: Any) -> Built:
    """Everything an experiment needs, in the order in which each part depends on the one before."""
    data = build_data(cfg, recipes_of(cfg))
    encoder, config = build_encoder(cfg, data)
    objectives, weights = build_objectives(cfg, data, encoder)
    shrink_batches(cfg, data, objectives)
    unknown = {r for v in views_of(objectives.values()).values() for _, r in v} - set(data.recipes)
    assert not unknown, f"recipes {unknown} are read but not named by a `recipe` key or a class's views"
    evaluators = {
        name: instantiate(OmegaConf.create(node), _convert_="all")
        for name, node in cfg.eval.items()
        if isinstance(node, Mapping) and "_target_" in node
    }
    before = labels_before(cfg, data)
    refuse_evaluators(cfg, data, evaluators, objectives, before)
    if cfg.profile:
        refuse_profile(data.spec, objectives)
    return Built(data, encoder, config, objectives, weights, evaluators, before)


def refuse_evaluators(cfg: Any, data: Data, evaluators: Mapping[str, Callable], objectives: Any, before: int) -> None:
    """Says before training that an evaluator would find nothing to judge, or labels that training has used."""
    judges = [name for name, evaluator in evaluators.items() if "scores" not in needs_of(evaluator)]
    if data.spec.normal and judges:
        raise UserError(
            f"eval=[{','.join(judges)}] tells classes apart, and data.normal_class={cfg.data.normal_class} leaves "
            "training no anomaly to learn that from; use eval=[proxy] or eval=[anomaly]."
        )
    for name, evaluator in evaluators.items():
        if name not in judges:
            refuse_scoreless(cfg, data, objectives, name)
            if before and not data.spec.normal:
                raise UserError(
                    f"eval=[{name}] holds scores against labels that were never used, and the encoder of "
                    f"weights={cfg.weights} has learned from {before} of them; use one that was trained without."
                )
        early = of(evaluator, "refuse", None)
        if early is not None:
            early(data, **getattr(evaluator, "keywords", {}))


def refuse_scoreless(cfg: Any, data: Data, objectives: Mapping[str, Objective], evaluator: str) -> None:
    """Says that a method scores no sample, or reads the labels that scores are held against, and which ones serve."""
    kinds = {name: locate(methods()[name]["_target_"]) for name in fitting(data.spec.modality)}
    able = [name for name, kind in kinds.items() if kind.score is not None and "labelled" not in kind.streams]
    reason = "there is no method to score samples" if not objectives else None
    for name, objective in objectives.items():
        if "labelled" in objective.streams:
            reason = f"method={name} reads the labels that its score would be held against"
        elif objective.score is None:
            reason = f"method={name} gives samples no score"
    if reason:
        raise UserError(
            f"eval=[{evaluator}] does not work: {reason}; these do on {data.spec.modality} data: {', '.join(able)}."
        )


def optimizer_factory(
    node: Mapping[str, Any], lr: float | None, batch: int, steps: int, cycles: int = 1
) -> tuple[Callable, float]:
    """`module -> (optimiser, step -> factor)` and the learning rate after scaling with the global batch."""
    settings = {k: node[k] for k in OPTIMIZER_KEYS}
    base = lr if lr is not None else settings["lr"]
    resolved = scaled_lr(base, batch, settings["reference_batch"], settings["lr_scaling"])
    rest = {k: v for k, v in node.items() if k not in OPTIMIZER_KEYS}
    factor = schedule(settings["schedule"], round(settings["warmup"] * steps / cycles), steps, cycles)

    def factory(module: torch.nn.Module) -> tuple[torch.optim.Optimizer, Callable[[int], float]]:
        return make(rest, "optimizer", module, lr=resolved, weight_decay=settings["weight_decay"]), factor

    return factory, resolved


def resolved(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of one run: without interpolations, Hydra's keys and those of sweeps, with absolute paths.

    Raises:
        UserError: a value that cannot work, methods that cannot be together, or an encoder beside weights of another.
    """
    cfg = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True))
    cfg.pop("hydra", None)
    refuse_out_of_bounds(cfg)
    cfg.method = chosen_methods(cfg.method)
    multitask.refuse(cfg.method, overrides)
    for key in (*SWEEP_KEYS, "image"):  # data has taken the latter
        cfg.pop(key, None)
    absolute_paths(cfg)
    if cfg.weights and any(o.startswith("encoder=") for o in overrides):
        theirs = _read_weights(cfg)[0]
        if dict(theirs) != OmegaConf.to_container(cfg.encoder):
            raise UserError(
                f"encoder= differs from the encoder of weights={cfg.weights} ({theirs['_target_']}); leave it out."
            )
    return cfg


def chosen_methods(given: Mapping[str, Any]) -> dict[str, Any]:
    """The nodes of the run's methods in the order of their names: nothing depends on the order of naming.

    Raises:
        UserError: a method without a class, of which no file gives one either.
    """
    names = chosen(given)
    unknown = sorted(set(given) - set(names) - methods().keys()) if len(names) < len(given) else []
    if unknown:
        raise UserError(f"method.{unknown[0]} has no _target_, the class that it is; give one, or name a known method.")
    return {name: given[name] for name in names}


def _read_weights(cfg: Any) -> tuple[dict[str, Any], DataSpec, Path]:
    try:
        return read_config(cfg.weights)
    except UserError as error:
        raise UserError(f"weights={error}") from error


def absolute_paths(cfg: Any) -> None:
    """Makes the paths of a configuration independent of the folder it was typed in."""
    for node, keys in ((cfg.data, ("root", "path", "test_path", "mask")), (cfg, ("weights", "teacher"))):
        for key in keys:
            if node.get(key):
                node[key] = str(Path(str(node[key])).expanduser().absolute())
