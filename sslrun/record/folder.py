"""The run folder: status, lock, and files that are never half-written."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

from sslrun.contracts import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Writes beside the final name, syncs, then renames: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    try:
        with open(beside, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()  # on a full disk even half a file is in the way
        raise
    os.replace(beside, path)


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, (json.dumps(value, indent=2) + "\n").encode())


def boot_id() -> str:
    """Names this start of the machine, so that a process number left by an earlier one is not taken for alive."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class RunFolder:
    """A run's folder, owned by the living process that opened it."""

    def __init__(self, path: Path | str):
        self.path = Path(path).absolute()
        self._lock: Any = None

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def claim(self) -> None:
        """Takes the folder's lock, which the operating system gives back when this process ends in any way.

        Raises:
            UserError: another living process holds it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.path / ".lock", "a")  # noqa: SIM115 (held for as long as the run lives)
        except OSError as error:
            raise UserError(
                f"the run folder {self.path} cannot be written ({error.strerror}); choose another one."
            ) from error
        try:
            import fcntl

            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # Windows: no advisory lock, the status file has to do
            pass
        except OSError as error:
            owner = self.status().get("pid", "?")
            raise UserError(
                f"the run folder {self.path} is in use by process {owner}; wait for it or stop it first."
            ) from error

    def release(self) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    def set_status(self, status: str, reason: str = "", step: int | None = None) -> None:
        last = self.status().get("step", 0) if step is None else step
        entry = {"status": status, "reason": reason, "step": last}
        write_json(self / "status.json", {**entry, "pid": os.getpid(), "host": socket.gethostname(), "boot": boot_id()})

    def status(self) -> dict[str, Any]:
        try:
            return json.loads((self / "status.json").read_text())
        except (OSError, ValueError):
            return {}


def open_run(path: Path | str) -> RunFolder:
    """An existing run's folder.

    Raises:
        UserError: there is none, or it is not a run.
    """
    folder = RunFolder(path)
    if not (folder / "config.yaml").exists():
        near = [p.parent for p in Path("outputs").glob("*/*/*/config.yaml")][-3:]
        hint = f"; runs here: {', '.join(map(str, near))}" if near else ""
        raise UserError(f"{path} is not a run folder (no config.yaml in it){hint}.")
    return folder
