"""Samples for a trained run: the run's own data, or other data named by `data=` and `data.KEY=` overrides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from sslrun import device as devices
from sslrun.build import MODULE_KEYS, absolute_paths, make
from sslrun.contracts import DataSpec, Encoder, UserError
from sslrun.data.module import Part
from sslrun.data.source import Source
from sslrun.record.encoder import build, load_state, read_config
from sslrun.record.folder import RunFolder, open_run
from sslrun.record.origin import saved
from sslrun.verbs import USAGE
from sslrun.verbs.fitting import fitted


@dataclass
class Opened:
    """A run opened for use: its encoder, and every sample of the data under the part it came in.

    `classes` are the names of the samples' true classes ("" where unknown), `names` their files, by part. Other data
    than the run's own is `new` where it has no parts, and its results go to a file of their own.
    """

    folder: RunFolder
    cfg: Any
    spec: DataSpec
    encoder: Encoder
    parts: dict[str, Part]
    classes: dict[str, list[str]]
    names: dict[str, list[str] | None]
    device: devices.Device
    out: Path
    form: str  # what new pictures were brought to, in words


def open_inputs(argv: list[str], verb: str, default_out: str) -> Opened:
    """Reads `RUN [out=FILE] [data=NAME] [data.KEY=VALUE ...]`.

    Raises:
        UserError: no run, an unknown argument, or data that do not fit the run's encoder.
    """
    if not argv:
        raise UserError(f"{verb} needs a run folder: {USAGE[verb]}.")
    folder = open_run(argv[0])
    cfg, _ = saved(folder)
    out, data = None, []
    for item in argv[1:]:
        if item.startswith("out="):
            out = Path(item.removeprefix("out="))
        elif item.startswith(("data=", "data.")) and "=" in item:
            data.append(item)
        elif item != "traceback=true":
            raise UserError(f"{verb} does not know {item}; it takes out=FILE and data=NAME or data.KEY=VALUE.")
    if out is None:
        name = Path(default_out)
        out = folder / (name.with_stem(f"{name.stem}_new") if data else name)
    config, spec, where = read_config(folder.path)
    encoder = build(config, spec)
    load_state(encoder, where, str(folder.path))
    _choose(cfg, data, spec)
    absolute_paths(cfg)
    cfg.device.accelerator, cfg.device.devices, cfg.device.num_nodes = "auto", 1, 1
    source: Source = make({k: v for k, v in cfg.data.items() if k not in MODULE_KEYS}, "data")
    parts, classes, names, offset = {}, {}, {}, 0
    given = {name: part for name in ("train", "val", "test") if (part := getattr(source, name)) is not None}
    if data and len(given) == 1:
        given = {"new": source.train}
    for name, raw in given.items():
        x, y, scale = fitted(raw, source.spec, spec)
        rows = torch.arange(len(raw.y))
        parts[name] = Part(x, y, rows, rows + offset, scale)
        classes[name] = [source.spec.classes[i] if i >= 0 else "" for i in raw.y.tolist()]
        names[name] = raw.names
        offset += len(rows)
    shape = " x ".join(map(str, spec.shape))
    form = f", of pictures read as {shape} as in training" if data and len(spec.shape) == 3 else ""
    return Opened(folder, cfg, spec, encoder.eval(), parts, classes, names, devices.resolve(cfg), out, form)


def _choose(cfg: Any, overrides: list[str], spec: DataSpec) -> None:
    """Lets `cfg.data` name the wanted data, in the form that the run's encoder reads."""
    if not overrides:
        return
    if any(o.startswith("data=") for o in overrides):
        from sslrun.compose import compose

        cfg.data = OmegaConf.create(OmegaConf.to_container(compose(overrides)[0].data, resolve=True))
    else:
        for item in overrides:
            key, _, value = item.partition("=")
            if key.removeprefix("data.") not in cfg.data:
                raise UserError(f"key {key} is unknown; this run's data has {', '.join(cfg.data)}.")
            OmegaConf.update(cfg, key, OmegaConf.create(f"value: {value}").value)
    given = {o.partition("=")[0] for o in overrides}
    form: dict[str, Any] = {"groups": None}  # nothing is split here
    if spec.modality == "image" and len(spec.shape) == 3:
        form |= {"image_size": list(spec.shape[1:]), "channels": spec.shape[0]}
    if spec.modality == "table":
        form["categorical"] = [f.name for f in spec.fields if f.kind == "categorical"] or None
    for key, value in form.items():
        if key in cfg.data and f"data.{key}" not in given:
            cfg.data[key] = value
