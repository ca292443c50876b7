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


@dataclass
class Opened:
    """A run opened for use: its encoder, and every sample of the data under the part it came in."""

    folder: RunFolder
    cfg: Any
    spec: DataSpec
    encoder: Encoder
    parts: dict[str, Part]
    names: dict[str, list[str] | None]
    device: devices.Device
    out: Path


def open_inputs(argv: list[str], verb: str, default_out: str) -> Opened:
    """Reads `RUN [out=FILE] [data=NAME] [data.KEY=VALUE ...]`.

    Raises:
        UserError: no run, an unknown argument, or data that do not fit the run's encoder.
    """
    if not argv:
        raise UserError(f"{verb} needs a run folder: sslrun {verb} RUN [out={default_out}] [data.root=DIR]")
    folder = open_run(argv[0])
    cfg = OmegaConf.load(folder / "config.yaml")
    out, data = folder / default_out, []
    for item in argv[1:]:
        if item.startswith("out="):
            out = Path(item.removeprefix("out="))
        elif item.startswith(("data=", "data.")):
            data.append(item)
        elif item != "traceback=true":
            raise UserError(f"{verb} does not know {item}; it takes out=FILE and data=NAME or data.KEY=VALUE.")
    if any(o.startswith("data=") for o in data):
        from sslrun.compose import compose

        cfg.data = OmegaConf.create(OmegaConf.to_container(compose(data)[0].data, resolve=True))
    else:
        OmegaConf.set_struct(cfg, True)
        try:
            cfg.merge_with_dotlist(data)
        except Exception as error:
            raise UserError(
                f"{' '.join(data)} does not fit this run's data; its keys: {', '.join(cfg.data)}."
            ) from error
    absolute_paths(cfg)
    config, spec, where = read_config(folder.path)
    source: Source = make({k: v for k, v in cfg.data.items() if k not in MODULE_KEYS}, "data")
    if source.spec.shape[0] != spec.shape[0] or source.spec.modality != spec.modality:
        ours, theirs = (" x ".join(map(str, s.shape)) for s in (spec, source.spec))
        raise UserError(
            f"the run's encoder reads {spec.modality} data of {ours}, and these are {source.spec.modality} {theirs}."
        )
    encoder = build(config, spec)
    load_state(encoder, where, str(folder.path))
    parts, names, offset = {}, {}, 0
    for name in ("train", "val", "test"):
        raw = getattr(source, name)
        if raw is not None:
            rows = torch.arange(len(raw.y))
            parts[name] = Part(raw.x, raw.y, rows, rows + offset, source.spec.scale)
            names[name] = raw.names
            offset += len(rows)
    return Opened(folder, cfg, spec, encoder.eval(), parts, names, devices.resolve(cfg), out)
