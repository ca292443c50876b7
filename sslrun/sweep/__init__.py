"""Studies: many runs of one definition that go on where they were, one process a job."""

from __future__ import annotations

from collections.abc import Sequence

from sslrun.catalogue import add_folder
from sslrun.compose import composer


def ran(overrides: Sequence[str], config_dir: str | None, asked: bool) -> bool:
    """Runs a study where `-m` asked for one, or the experiment brings axes along; false where neither does."""
    if config_dir:
        add_folder(config_dir)
    with composer() as composed:
        if not asked and not composed([o for o in overrides if o.startswith("experiment=")]).sweep.over:
            return False
        from sslrun.sweep.start import sweep

        sweep(overrides, composed)
    return True
