"""An encoder as a folder: model.safetensors and config.yaml, no pickle; and a module from a checkpoint's tensors."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from yaml import YAMLError

from sslrun import __version__
from sslrun.catalogue import locate, trusted
from sslrun.contracts import DataSpec, Encoder, Field, UserError
from sslrun.record.folder import write_atomically


def save_encoder(
    folder: Path, encoder: Encoder, config: dict[str, Any], spec: DataSpec, learned: dict[str, Any] | None = None
) -> None:
    """Writes `model.safetensors` and `config.yaml` (the encoder's keys, the data's specification, the version).

    `learned` says from what: the data's fingerprint, its split_seed, a hash of the test part that was kept away, and
    the number of labels shown.
    """
    state = {k: v.detach().cpu().contiguous().clone() for k, v in encoder.state_dict().items()}
    meta = {"sslrun": __version__, "encoder": config, "spec": dataclasses.asdict(spec), "learned": learned or {}}
    write_atomically(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(meta)).encode())
    write_atomically(folder / "model.safetensors", save(state))


def read_config(run: Path | str) -> tuple[dict[str, Any], DataSpec, Path]:
    """The encoder's configuration, its data's specification and the folder, of a run or of an encoder folder.

    Raises:
        UserError: there is no encoder, it was written by another major version, or its class is not to be trusted.
    """
    folder = Path(run) / "encoder" if (Path(run) / "encoder").is_dir() else Path(run)
    if not (folder / "model.safetensors").exists() or not (folder / "config.yaml").exists():
        begun = f", or finish this one by `sslrun resume {run}`" if (Path(run) / "status.json").exists() else ""
        raise UserError(
            f"{run} has no encoder (looked for {folder / 'model.safetensors'}); name a finished run{begun}."
        )
    try:
        meta = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
        theirs, config, raw = str(meta["sslrun"]), meta["encoder"], dict(meta["spec"])
        fields = tuple(Field(**{k: _tuple(v) for k, v in f.items()}) for f in raw.pop("fields", ()))
        spec = DataSpec(**{k: _tuple(v) for k, v in raw.items()}, fields=fields)
        target = str(config["_target_"])
    except (YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{folder / 'config.yaml'} does not describe an encoder ({type(error).__name__}: "
                        f"{' '.join(str(error).split())}); name a finished run.") from error  # fmt: skip
    if theirs.split(".")[0] != __version__.split(".")[0]:
        raise UserError(f"{run} was written by sslrun {theirs}, and this is {__version__}; use that version.")
    if not trusted(target, ("encoders",)):
        raise UserError(
            f"{run}: the encoder's class {target} is not one of sslrun.encoders, and is not loaded; if you trust it, "
            "add --config-dir DIR, the folder whose YAML names it."
        )
    return config, spec, folder


def read_learned(run: Path | str) -> dict[str, Any]:
    """From what the encoder of a run has learned; empty where it does not say. Raises what `read_config` raises."""
    folder = read_config(run)[2]
    return OmegaConf.to_container(OmegaConf.load(folder / "config.yaml")).get("learned") or {}


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def build(config: dict[str, Any], spec: DataSpec) -> Encoder:
    """An untrained encoder from a configuration that `read_config` returned.

    Raises:
        UserError: its class does not take these arguments, or is no encoder.
    """
    arguments = dict(config)
    kind = locate(arguments.pop("_target_"))
    if not (isinstance(kind, type) and issubclass(kind, Encoder)):
        raise UserError(f"_target_={config['_target_']} is not an encoder.")
    try:
        return kind(spec, **arguments)
    except TypeError as error:
        raise UserError(f"{config['_target_']} does not take what was saved with it ({error}).") from error


def load_state(encoder: Encoder, folder: Path, name: str) -> None:
    """Fills an encoder with the tensors of an encoder folder.

    Raises:
        UserError: keys or shapes differ: names the first mismatch and how much matched.
    """
    try:
        state = load_file(folder / "model.safetensors")
    except SafetensorError as error:
        raise UserError(f"{name}: {folder / 'model.safetensors'} is damaged ({error}).") from error
    own = encoder.state_dict()
    same = [k for k in own if k in state and own[k].shape == state[k].shape]
    wrong = next((k for k in [*own, *state] if k not in own or k not in state or own[k].shape != state[k].shape), None)
    if wrong:
        theirs = tuple(state[wrong].shape) if wrong in state else "missing"
        ours = tuple(own[wrong].shape) if wrong in own else "missing"
        raise UserError(
            f"{name} does not fit: {wrong} is {theirs} there and {ours} here ({len(same)} of {len(own)} "
            "tensors match); use the encoder and a data set of the same shape."
        )
    encoder.load_state_dict(state)


def restore(module: nn.Module, state: dict[str, Tensor], prefix: str) -> None:
    """Fills a module from a checkpoint's tensors; buffers take the size that preparation once gave them."""
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    for name, buffer in dict(module.named_buffers()).items():
        if name in own and own[name].shape != buffer.shape:
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, torch.empty_like(own[name]))
    module.load_state_dict(own)


def load(run: Path | str) -> Encoder:
    """The trained encoder of a run as an nn.Module in eval mode: `encoder(x)` with x (B, C, H, W) scaled to [0, 1]."""
    config, spec, folder = read_config(run)
    encoder = build(config, spec)
    load_state(encoder, folder, str(run))
    return encoder.eval()
