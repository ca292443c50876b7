"""sslrun: self-supervised, semi-supervised and unsupervised learning experiments, one command each.

`sslrun.run(["method=simclr", "data=digits"])` runs an experiment and returns its metrics; `sslrun.load("<run>")` gives
the trained encoder back.
"""

import os
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin cost a time slice on shared cores


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for, so that the command line starts without torch."""
    if name == "load":
        return import_module("sslrun.record.encoder").load
    if name == "run":
        return import_module("sslrun.run")  # the module can be called
    raise AttributeError(f"module 'sslrun' has no attribute {name!r}")
