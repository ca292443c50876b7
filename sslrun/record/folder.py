"""The run folder: status, lock, and files that are never half-written."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:
    fcntl = None

from sslrun.errors import UserError


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


def write_table(path: Path, rows: list[dict[str, Any]]) -> None:
    """A CSV file whose columns are the keys of the first row; no file without rows."""
    if rows:
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, text.getvalue().encode())


def boot_id() -> str:
    """Names this start of the machine, so that a process number left by an earlier one is not taken for alive."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class Lock:
    """A file that one living process holds: the operating system gives it back when that process ends in any way."""

    def __init__(self, path: Path):
        self.path = path
        self._held: Any = None

    def take(self, patience: float = 0.0) -> bool:
        """Whether it is ours now; waits up to `patience` seconds for another owner to end. Raises OSError."""
        deadline = time.monotonic() + patience
        held = open(self.path, "a")  # noqa: SIM115 (held for as long as the owner lives)
        while True:
            try:
                if fcntl is not None:  # Windows has no advisory lock; there the status file has to do
                    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._held = held
                return True
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    held.close()
                    return False
                time.sleep(0.05)

    def release(self) -> None:
        if self._held:
            self._held.close()
            self._held = None


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Waits until no other process holds the lock at this path, and holds it meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(path)
    lock.take(math.inf)
    try:
        yield
    finally:
        lock.release()


class RunFolder:
    """A run's folder, owned by the living process that opened it."""

    def __init__(self, path: Path | str):
        self.path = Path(path).absolute()
        self._lock = Lock(self.path / ".lock")

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def claim(self, patience: float = 0.0) -> None:
        """Takes the folder's lock; waits up to `patience` seconds for another process to end.

        Raises:
            UserError: another living process holds it, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            taken = self._lock.take(patience)
        except OSError as error:
            raise UserError(
                f"the run folder {self.path} cannot be written ({error.strerror}); choose another one."
            ) from error
        if not taken:
            owner = self.status().get("pid", "?")
            raise UserError(f"the run folder {self.path} is in use by process {owner}; wait for it or stop it first.")

    def release(self) -> None:
        self._lock.release()

    def set_status(
        self,
        status: str,
        reason: str = "",
        step: int | None = None,
        steps: int | None = None,
        judged: dict[str, Any] | None = None,
    ) -> None:
        """Writes status.json; what is not given of the last three is kept from before.

        It was at `step` of `steps`; `judged` says by which metric of the validation part, and which way is better.
        """
        old = self.status()
        entry = {"status": status, "reason": reason, "step": old.get("step", 0) if step is None else step}
        entry["steps"] = old.get("steps") if steps is None else steps
        entry["judged"] = judged or old.get("judged")
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
    if (folder / "sweep.json").exists():
        raise UserError(f"{path} is a sweep; name one of the runs in it, or go on by the command in its sweep.json.")
    if not (folder / "config.yaml").exists():
        near = [p.parent for p in Path("outputs").glob("*/*/*/config.yaml")][-3:]
        hint = f"; runs here: {', '.join(map(str, near))}" if near else ""
        raise UserError(f"{path} is not a run folder (no config.yaml in it){hint}.")
    return folder
