"""`sslrun board [DIR]`: TensorBoard on this machine only, on a free port."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from sslrun.errors import UserError
from sslrun.record.summary import console
from sslrun.verbs import USAGE


def main(argv: list[str]) -> None:
    command, url = prepare(argv)
    console().print(f"{url} (Ctrl-C ends it)")
    try:
        ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    except KeyboardInterrupt:
        return
    if ended.returncode:
        said = [line for line in ended.stderr.splitlines() if line.strip()] or [f"exit status {ended.returncode}"]
        raise UserError(f"TensorBoard could not start: {said[-1].strip()}")


def prepare(argv: list[str]) -> tuple[list[str], str]:
    """The command that serves a folder, and the address it will have.

    Raises:
        UserError: an unknown argument, a port that is taken, or nothing to show.
    """
    folders = [a for a in argv if "=" not in a]
    given = dict(a.split("=", 1) for a in argv if "=" in a)
    port = given.get("port", "0")
    if len(folders) > 1 or set(given) - {"port", "traceback"} or not port.isdigit() or int(port) > 65535:
        raise UserError(f"board does not know {' '.join(argv)}: {USAGE['board']}.")
    folder = Path(folders[0] if folders else "outputs")
    if not folder.is_dir() or not any(folder.rglob("events.out.tfevents.*")):
        raise UserError(f"{folder} holds no TensorBoard files yet; run an experiment first, or name another folder.")
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", int(port)))
        except OSError as error:
            raise UserError(
                f"port={port} cannot be used ({error.strerror}); leave it out to get a free one."
            ) from error
        port = str(s.getsockname()[1])
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1", "--port", port]
    return [*command, "--load_fast=false"], f"http://127.0.0.1:{port}/"
