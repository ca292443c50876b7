"""One sentence for an error, whoever raised it."""

from __future__ import annotations

import difflib
import re

from sslrun.cli import Config


def explain(error: BaseException) -> str:
    """A user's mistake in our words, Hydra's errors with the nearest names, others with their type."""
    text, kind = " ".join(str(error).split()), type(error).__name__
    if kind == "UserError":
        return text
    if kind == "MissingConfigException":
        group, _, name = (getattr(error, "missing_cfg_file", None) or "").rpartition("/")
        options = sorted(getattr(error, "options", None) or [])
        near = difflib.get_close_matches(name, options, 3, 0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        return f"{group}={name} is unknown; {hint}known: {', '.join(options)}."
    if kind in ("ConfigCompositionException", "ConfigAttributeError", "ConfigKeyError", "OverrideParseException"):
        cause = error.__cause__ or error
        return _unknown_key(" ".join(str(cause).split()), text)
    if kind == "OSError" and getattr(error, "errno", None) == 28:
        return f"the disk is full ({text}); free some space, then `sslrun resume RUN` goes on from the last checkpoint."
    return f"{kind}: {text} (traceback=true shows where)"


def _unknown_key(cause: str, text: str) -> str:
    for pattern in (r"Key '([^']+)' (?:is not in struct|not in 'Config')", r"Could not override '([^']+)'"):
        found = re.search(pattern, cause) or re.search(pattern, text)
        if found:
            full = re.search(r"full_key: (\S+)", cause)
            key = (full.group(1) if full else found.group(1)).rstrip(".")
            known = [f.name for f in Config.__dataclass_fields__.values()]
            near = difflib.get_close_matches(key.split(".")[0], known, 3, 0.6) if "." not in key else []
            hint = f"did you mean {' or '.join(near)}? " if near else ""
            return f"key {key} is unknown; {hint}`sslrun --cfg job` with your other overrides lists the keys there are."
    return cause or text
