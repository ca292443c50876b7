"""What a worker process does: one job of a study, in its folder, for as long as the study's driver lives."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sslrun.explain import explain
from sslrun.record.folder import RunFolder, write_atomically

DYING = 10.0  # seconds that a killed driver's workers may still hold a folder


def work(folder: str, plain: dict[str, Any], overrides: list[str], environment: dict[str, str]) -> None:
    """Runs the job, or goes on with it; what it prints goes to log.txt in its folder; exits like a command."""
    os.setsid()  # a Ctrl-C in the terminal reaches the driver, which passes it on once
    os.environ.update(environment)
    _end_with_the_driver()
    print_to(Path(folder) / "log.txt")
    sys.exit(carry_out(folder, plain, overrides))


def carry_out(folder: str, plain: dict[str, Any], overrides: list[str]) -> int:
    """Runs one job, or goes on with it, and returns the exit status."""
    from sslrun.run import run

    write_atomically(Path(folder) / ".hydra/overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(overrides)).encode())
    try:
        _wait_for(folder)
        run(OmegaConf.create(plain), folder, resume=True)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        traceback.print_exc()
        print(f"sslrun: {explain(error)}", file=sys.stderr)
        return 1
    return 0


def _wait_for(folder: str) -> None:
    """Until the folder is free: the worker of a driver that was killed a moment ago may still be ending."""
    mine = RunFolder(folder)
    mine.claim(DYING)
    mine.release()


def _end_with_the_driver() -> None:
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.killpg(0, signal.SIGKILL)  # further ranks as well

    threading.Thread(target=watch, daemon=True).start()


def print_to(path: Path) -> None:
    """Appends to a file what this process and those that it starts print from now on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
