"""One sentence for an error, whoever raised it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from sslrun.catalogue import folders
from sslrun.schema import Config
from sslrun.verbs import USAGE

WANTED = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}
LISTING = "`sslrun --cfg job` with your other overrides lists the keys there are."


def explain(error: BaseException) -> str:
    """A user's mistake in our words, Hydra's errors with the nearest names, others with their type."""
    text, kind = " ".join(str(error).split()), type(error).__name__
    if "UserError" in (base.__name__ for base in type(error).__mro__):
        return text
    if kind == "MissingConfigException":
        group, _, name = (getattr(error, "missing_cfg_file", None) or "").rpartition("/")
        options = sorted(getattr(error, "options", None) or _options(group))
        return f"{group}={name} is unknown; {nearest(name, options)}known: {', '.join(options)}."
    if kind == "SearchPathException":
        return f"--config-dir: {text}."
    if kind == "OverrideParseException":
        return _unreadable(str(getattr(error, "override", text)))
    if kind in ("ConfigCompositionException", "ConfigAttributeError", "ConfigKeyError", "ValidationError"):
        return _composition(error.__cause__ or error, text)
    if isinstance(error, OSError) and error.errno is not None:
        return _system(error)
    if "No space left on device" in text or "file write failed" in text:
        return _FULL.format(text)
    return f"{kind}: {text} (traceback=true shows where)"


def _options(group: str) -> list[str]:
    """Hydra does not say what a group has where it was asked for a list."""
    return [path.stem for folder in folders() for path in Path(folder).glob(f"{group}/*.yaml")]


def nearest(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """`did you mean a or b? `, or nothing."""
    near = difflib.get_close_matches(name, list(known), 3, cutoff)
    return f"did you mean {' or '.join(near)}? " if near else ""


def _unreadable(override: str) -> str:
    word = override.strip()
    if "=" not in word:
        return (
            f"{word} is neither a verb nor KEY=VALUE; {nearest(word, [*USAGE, *Config.__dataclass_fields__])}"
            f"verbs: {', '.join(USAGE)}."
        )
    return (
        f"{word} cannot be read; a list is written KEY=[a,b], and a value with spaces, commas or brackets in two "
        "kinds of quotes, 'KEY=\"a, b\"'."
    )


def _composition(cause: BaseException, text: str) -> str:
    """An unknown key, a value of another type, or an override of a group that is not there."""
    said = " ".join(str(getattr(cause, "msg", None) or cause).split())
    key = str(getattr(cause, "full_key", None) or "")
    value = re.search(r"Value '(.*)' of type '\w+' could not be converted to (\w+)", said)
    if value:
        return f"{key}={value[1]} is not {WANTED.get(value[2], 'a ' + value[2])}."
    valid = re.search(r"Value '(.*)' is not a valid (\w+)", said)
    if valid:
        return f"{key}={valid[1]} is not {WANTED.get(valid[2], valid[2])}."
    unknown = re.search(r"Key '([^']+)' (?:is not in struct|not in 'Config')", said)
    if unknown:
        key = key or unknown[1]
        parent = getattr(cause, "parent_node", None)
        known = list(parent) if isinstance(parent, Mapping) or hasattr(parent, "keys") else []
        known = known or list(Config.__dataclass_fields__) * ("." not in key)
        head = key.rpartition(".")[0]
        leaves = [str(k) for k in known if not str(k).startswith("_")]
        listing = f"{head} has {', '.join(leaves)}." if head and leaves else LISTING
        return f"key {key} is unknown; {nearest(key.rpartition('.')[2], leaves, 0.6)}{listing}"
    group = re.search(r"Could not override '([^']+)'", said) or re.search(r"Could not override '([^']+)'", text)
    if group:
        known = list(Config.__dataclass_fields__)
        return f"key {group[1]} is unknown; {nearest(group[1], known, 0.6)}{LISTING}"
    return said or text


_FULL = "the disk is full ({}); free some space, then `sslrun resume RUN` goes on from the last checkpoint."


def _system(error: OSError) -> str:
    if error.errno in (28, 122):  # no space left, quota exceeded
        return _FULL.format(error.filename or error.strerror)
    if error.filename:
        return f"{error.filename} cannot be used ({error.strerror}); choose another place or mend its permissions."
    return f"{type(error).__name__}: {error} (traceback=true shows where)"
