"""sslrun: self-supervised, semi-supervised and unsupervised learning experiments, one command each.

`sslrun.run(["method=simclr", "data=digits"])` runs an experiment and returns its metrics; `sslrun.load("<run>")` gives
the trained encoder back.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for, so that the command line starts without torch."""
    if name == "load":
        return import_module("sslrun.record.encoder").load
    if name == "run":
        return import_module("sslrun.run")  # the module can be called
    raise AttributeError(f"module 'sslrun' has no attribute {name!r}")
