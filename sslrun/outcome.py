"""The end of a run: scores of every subject, metrics.json, the encoder, predictions, figures and the table."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import math
import platform
import resource
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sslrun import __version__, pictures, predictions
from sslrun.build import make
from sslrun.catalogue import locate
from sslrun.errors import UserError
from sslrun.evaluate import features
from sslrun.evaluate.judge import Judge, blind
from sslrun.evaluate.scores import guesses
from sslrun.profiles import profiles
from sslrun.proxies import proxies
from sslrun.record import figures, origin, summary
from sslrun.record.encoder import save_encoder
from sslrun.record.folder import RunFolder, write_json, write_table
from sslrun.record.gallery import flat
from sslrun.reference import reference, supervision_of, tuner
from sslrun.schema import Config
from sslrun.streams import as_seen_by
from sslrun.verdict import harm_of, last, primary_of

UNHASHED = ("logger", "save_every", "traceback", "max_time", "profile")


def logger(node: dict[str, Any], folder: RunFolder, checkpoint: Path | None) -> Any:
    """The configured Lightning logger in the run folder, or None; a resumed run purges the steps it repeats."""
    if not node.get("_target_"):
        return None
    extra: dict[str, Any] = {}
    if "save_dir" in inspect.signature(locate(node["_target_"])).parameters:
        extra["save_dir"] = str(folder.path)
    if node["_target_"].endswith("TensorBoardLogger") and checkpoint:
        extra["purge_step"] = step_of(checkpoint) + 1
    try:
        return make(node, "logger", **extra)
    except ModuleNotFoundError as error:  # Lightning has the class, and its package is an extra of nobody's
        raise UserError(f"logger: {error}.") from error


def step_of(checkpoint: Path) -> int:
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])


def config_hash(plain: dict[str, Any], fingerprint: str, threads: int) -> str:
    """SHA-256 of what the results depend on."""
    kept = {k: v for k, v in plain.items() if k not in UNHASHED}
    text = json.dumps([kept, __version__, fingerprint, threads], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def conclude(experiment: Any) -> dict[str, Any]:
    """Scores all subjects once, writes the folder's results and shows the table."""
    built, cfg, device, folder = experiment.built, experiment.cfg, experiment.device, experiment.folder
    data, learner, gallery = built.data, experiment.learner.eval(), experiment.gallery
    trained_s = time.perf_counter() - experiment.began
    used = any("labelled" in o.streams for o in built.objectives.values())
    # labels that training saw, here or before: a probe of fewer would not be one of fewer
    shown = max(len(data.labelled) if used or data.spec.normal else 0, built.labels_before)
    budgets = {n: rows for n, rows in data.budgets.items() if n >= shown}
    if cfg.labels is not None:
        budgets[cfg.labels] = data.labelled
    judge = Judge(data, built.evaluators, device.torch, device.autocast, dict(sorted(budgets.items())))
    learner.to(device.torch)
    encoder = learner.exported().eval()
    supervision = supervision_of(experiment)
    results: dict[str, dict[str, float]] = {}
    health: dict[str, float] = {}
    judged = any(True for _ in encoder.parameters())
    if judged:
        splits = judge.splits(encoder)
        health = features.health(splits["train"].features[data.sample(4096)])
        # a network that was trained on the labels is not fine-tuned on them once more
        tune = None if used or not supervision else tuner(supervision, judge, encoder)
        results["trained"] = judge.score("trained", splits, tune)
        results["random"] = judge.score("random", judge.splits(experiment.random_encoder().eval()))
    if data.spec.shape:
        results["raw"] = judge.score("raw", judge.raw())
    results["trivial"] = judge.trivial()
    found, predicted, kind = predictions.own(learner, judge)
    results |= found
    best = experiment.monitor and experiment.monitor.checkpoint()
    if predictions.stepwise(built.objectives.values()):
        results |= predictions.by_step(learner, judge, experiment.tail, best)
    for subject, found in [*proxies(experiment, judge).items(), *_task(built, learner, data).items()]:
        results[subject] = results.get(subject, {}) | found
    if supervision and cfg.reference and not blind(built.evaluators) and judge.parts["test"] is not None:
        wanted = [cfg.labels] if used else [*budgets, None]
        results["supervised"] = reference(experiment, supervision, judge, wanted, used)
    results = {k: v for k, v in results.items() if v}
    primary = primary_of(results, sorted(budgets))
    shown_by = int((judge.parts["val"].labels >= 0).sum()) if judge.parts["val"] else 0
    chosen = predictions.protocol_of(results, experiment.monitor, cfg.eval.looks, shown_by)
    metrics = {
        "status": _status(health, experiment),
        "method": "+".join(built.objectives) or "none",
        "data": data.name,
        "modality": data.spec.modality,
        "seed": cfg.seed,
        "split_seed": cfg.split_seed,
        "labels": cfg.labels,
        "config_hash": config_hash(experiment.plain, data.fingerprint, device.threads),
        "settings": origin.flat({k: v for k, v in experiment.plain.items() if k not in UNHASHED}),
        "split_hash": hashlib.sha256(json.dumps(data.splits()["parts"], sort_keys=True).encode()).hexdigest()[:16],
        "versions": _versions(),
        "precision": device.precision,
        "threads": device.threads,
        "world": device.world,
        "lr": experiment.lr,
        "steps": experiment.steps_done,
        "validation": experiment.monitor and experiment.monitor.found(),
        "wall_s": 0.0,  # below, with the pictures
        "training_s": round(trained_s, 2),
        **_speed(experiment),
        "peak_rss_mb": _peak_rss_mb(),
        "health": health,
        "primary": primary,
        "harm": harm_of(results, primary, cfg.labels if used else None, _scored(judge.parts["test"])),
        "protocol": judge.protocol() | chosen,
        "fit": {name: o.facts() for name, o in built.objectives.items() if o.facts is not None},
        "remarks": _remarks(experiment),
        "results": results,
    }
    learned = {"data": data.fingerprint, "split_seed": cfg.split_seed, "test": data.test_digest, "labels": shown}
    save_encoder(folder / "encoder", encoder, built.encoder_config, data.spec, learned)
    if predicted is not None:
        predictions.write(folder, predicted, data, kind)
    for name, objective in built.objectives.items():
        if objective.audit is not None and (rows := objective.audit()):
            write_table(folder / f"audit_{name}.csv", rows)
        if objective.chart is not None:
            gallery.show(f"chart_{name}", figures.panels(objective.chart()), experiment.steps_done)
    described = profiles(built.objectives, learner.encoder, judge) if cfg.profile is not False else {}
    for name, found in described.items():
        write_table(folder / f"profile_{name}.csv", list(found.rows()))
        pictures.profile(gallery, name, found, experiment.steps_done)
    told = (kind, predicted) if predicted is not None else None
    if judged or told is not None:
        splits, what = (splits, "the trained encoder") if judged else (judge.splits(encoder), "the inputs")
        pictures.features(gallery, splits, data, judge.parts, told, what, experiment.steps_done)
    _draw(experiment, judge, predicted if kind == "class" else None)
    own = {s: found for s, found in results.items() if s.split(":")[0] in ("trained", "model", "ema") and last(s)}
    shown_to = {k for found in own.values() for k in found if "/accuracy" in k} | {primary}
    scalars = {f"test/{s}/{k}": v for s, found in own.items() for k, v in found.items() if k in shown_to}
    gallery.compare(_varied(experiment.plain), scalars, experiment.steps_done)
    metrics["wall_s"] = round(time.perf_counter() - experiment.began, 2)
    write_json(folder / "metrics.json", _plain(metrics))
    if experiment.tail is not None:
        experiment.tail.drop()
    for name, found in described.items():
        summary.profile(name, found)
    summary.table(metrics, folder)
    return metrics


def _remarks(experiment: Any) -> list[str]:
    """What a reader of the results has to know, as was said during training or as the methods tell now."""
    said = list(experiment.advice.said.values()) if experiment.advice else []
    telling = [o for o in experiment.built.objectives.values() if o.remarks is not None]
    return [*said, *(remark for o in telling for remark in o.remarks())]


def _draw(experiment: Any, judge: Judge, predicted: torch.Tensor | None) -> None:
    """Curves, the methods' own tasks, and what the method's own classes confuse."""
    learner, gallery, step = experiment.learner, experiment.gallery, experiment.steps_done
    pictures.tasks(learner, gallery, step)
    if (experiment.folder / "metrics.csv").exists():
        gallery.show("curves", figures.curves(experiment.folder / "metrics.csv"), step)
    model = next((o for o in learner.objectives.values() if o.predict is not None), None)
    if judge.data.raster is not None and model is not None:
        pictures.segments(gallery, judge, lambda x: model.predict(learner.encoder, x), step)
    if predicted is not None:
        labels, name = judge.parts["test"].labels, "the method's own predictions"
        pictures.confusion(gallery, "confusion", guesses(predicted), labels, experiment.built.data, "test", name, step)


def _varied(plain: dict[str, Any]) -> dict[str, Any]:
    """The settings by which runs are compared: what people type, the method's, the encoder's and the optimiser's."""
    usual = dataclasses.asdict(Config())
    typed = {k: v for k, v in plain.items() if not isinstance(v, dict) and k not in UNHASHED and v is not None}
    top = {k: v for k, v in typed.items() if v != usual[k] or k in ("seed", "epochs", "batch_size")}
    names = {k: plain[k]["_target_"].rpartition(".")[2] for k in ("data", "encoder", "optimizer")}
    nested = flat({k: plain[k] for k in ("method", "encoder", "optimizer")})
    own = {k: v for k, v in nested.items() if "._" not in k}
    return top | {"method": "+".join(plain["method"]) or "none"} | names | own


def _task(built: Any, learner: Any, data: Any) -> dict[str, dict[str, float]]:
    """Each method's own task on test samples, beside what needs no learning: `task/loss`, `task/skill`, ..."""
    test, results = data.open_test(), {}
    test = test.only(data.spec.normal) if test and data.spec.normal else test
    if test is None:
        return results
    for name, objective in built.objectives.items():
        if objective.trivial is None:
            continue
        subject = "model" if len(built.objectives) == 1 else f"model:{name}"
        sums: dict[str, dict[str, float]] = {subject: {}, subject.replace("model", "trivial"): {}}
        for plan in data.validation(test, objective.streams):
            batch = as_seen_by(objective, data.batch(plan, test, learner.views, learner.device))
            with torch.no_grad():
                both = (objective(learner.encoder, batch), objective.trivial(batch))
            share = next(iter(plan.streams.values())).total / len(test)
            for total, out in zip(sums.values(), both, strict=True):
                for key in [k for k in ("accuracy", "loss") if k in out]:
                    total[f"task/{key}"] = total.get(f"task/{key}", 0.0) + share * float(out[key])
        own, trivial = sums.values()
        own["task/skill"] = 1 - own["task/loss"] / max(trivial["task/loss"], 1e-12)
        results |= sums
    return results


def _scored(test: Any) -> int:
    """Test samples that a score counts: those of known class."""
    return int((test.labels >= 0).sum()) if test is not None else 0


def _status(health: dict[str, float], experiment: Any) -> str:
    if experiment.built.objectives and health and health["effective_rank"] < 1.5:
        return "collapsed"
    return "finished"


def _speed(experiment: Any) -> dict[str, float | None]:
    curves = experiment.curves
    if curves is None or not curves.speeds:
        return {"samples_per_s": None, "data_wait": None}
    share = curves.waited / max(curves.waited + curves.worked, 1e-9)
    return {"samples_per_s": round(statistics.median(curves.speeds), 1), "data_wait": round(share, 4)}


def _peak_rss_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)


def _versions() -> dict[str, str]:
    names = ("torch", "torchvision", "lightning", "hydra-core", "scikit-learn")
    return {"sslrun": __version__, "python": platform.python_version(), **{n: version(n) for n in names}}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if hasattr(value, "item"):
        return _plain(value.item())
    return value
