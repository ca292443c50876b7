"""`sslrun board [DIR]`: TensorBoard on this machine only, on a free port."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sslrun.contracts import UserError


def main(argv: list[str]) -> None:
    folder = Path(argv[0] if argv else "outputs")
    if not any(folder.rglob("events.out.tfevents.*")):
        raise UserError(f"{folder} holds no TensorBoard files yet; run an experiment first, or name another folder.")
    port = next((a.removeprefix("port=") for a in argv[1:] if a.startswith("port=")), "0")
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "localhost", "--port", port]
    subprocess.run([*command, "--load_fast=false"], check=False)
