"""`python -m sslrun.rank FOLDER [resume]`: a further process of a run, started by `device.ranks`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from omegaconf import OmegaConf

from sslrun.device import rank
from sslrun.explain import explain
from sslrun.run import run


def main(folder: str, *more: str) -> None:
    """Runs the configuration saved in the folder as one of its ranks; says in a sentence why it ends early."""
    if hasattr(signal, "SIGUSR2"):  # a cluster asks all processes to make room; rank 0 answers for all
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    cfg = OmegaConf.load(Path(folder) / "config.yaml")
    try:
        run(cfg, folder, resume="resume" in more)
    except KeyboardInterrupt:
        pass  # rank 0 says so
    except Exception as error:
        if cfg.traceback:
            raise
        print(f"sslrun, rank {rank()}: {explain(error)}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
