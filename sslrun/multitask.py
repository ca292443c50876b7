"""What several methods in one run have to agree on, asked before anything is built."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from sslrun.catalogue import files, locate
from sslrun.errors import UserError
from sslrun.record.origin import flat


def refuse(methods: Mapping[str, Mapping[str, Any]], overrides: Sequence[str]) -> None:
    """Refuses methods that cannot be trained together, or that nothing would train.

    Raises:
        UserError: one is named twice, all weights are 0, one is not trained by gradients, or no data suits all.
    """
    refuse_twice(overrides)
    kinds = {name: locate(node["_target_"]) for name, node in methods.items()}
    trained = [name for name, kind in kinds.items() if kind.trains]
    if trained and not any(methods[name].get("weight", 1) for name in trained):
        zeros = " ".join(f"method.{name}.weight=0" for name in trained)
        raise UserError(f"{zeros} leaves nothing to train; weight=1 trains it, and method=none only evaluates.")
    apart = [name for name in kinds if name not in trained]
    if apart and len(kinds) > 1:
        others = ",".join(name for name in kinds if name != apart[0])
        raise UserError(
            f"method={apart[0]} is not trained by gradients and cannot share a run; train method=[{others}] alone, "
            f"and then method={apart[0]} weights=RUN on what it has learned."
        )
    for a, b in combinations(kinds, 2):
        if kinds[a].modalities and kinds[b].modalities and not set(kinds[a].modalities) & set(kinds[b].modalities):
            raise UserError(
                f"method=[{a},{b}] has no data in common: {a} reads {' or '.join(kinds[a].modalities)} data, "
                f"{b} {' or '.join(kinds[b].modalities)} data; leave one of them out."
            )


def refuse_twice(overrides: Sequence[str]) -> None:
    """Composed configurations hold a method once: only what was typed says that it was named twice."""
    for override in overrides:
        if override.startswith("method="):
            value = OverridesParser.create().parse_override(override).value()
            names = Counter(map(str, value if isinstance(value, list) else ()))
            twice = next((name for name, n in names.items() if n > 1), None)
            if twice:
                raise UserError(f"{override} names {twice} twice; method.{twice}.weight=2 gives it twice the weight.")


def settled(plain: Mapping[str, Any]) -> list[str]:
    """Where the methods' own files differ, which one the run follows: `batch_size=128 as in rotation, not 64 (simclr)`.

    Hydra lets the last named win. Silent where the run has another value, which somebody typed.
    """
    own = {name: _settings(name) for name in plain["method"]} if len(plain["method"]) > 1 else {}
    actual = flat({k: v for k, v in plain.items() if k != "method"})
    actual["optimizer"] = plain["optimizer"]["_target_"].rpartition(".")[2]
    told = []
    for key in sorted({key for settings in own.values() for key in settings}):
        wanted = {name: settings[key] for name, settings in own.items() if key in settings}
        followed = [name for name, value in wanted.items() if value == actual.get(key)]
        others = [f"{value} ({name})" for name, value in wanted.items() if name not in followed]
        if followed and others:
            told.append(f"{key}={actual[key]} as in {' and '.join(followed)}, not {', '.join(others)}")
    return told


def _settings(name: str) -> dict[str, Any]:
    """What a method's file sets beside the method itself; interpolations are no settings of their own."""
    node = OmegaConf.to_container(OmegaConf.load(files()[name])) if name in files() else {}
    chosen = {k: v for item in node.pop("defaults", ()) if isinstance(item, Mapping) for k, v in item.items()}
    own = flat({k: v for k, v in node.items() if k != "method"})
    if "override /optimizer" in chosen:
        own["optimizer"] = chosen["override /optimizer"]
    return {k: v for k, v in own.items() if not str(v).startswith("${")}
