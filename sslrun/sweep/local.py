"""Jobs on this machine: one process each, forked from a server that has only imported."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from typing import Any

import torch

from sslrun.device import cores, resolve
from sslrun.sweep.job import work
from sslrun.sweep.study import Job

MOST = 8  # jobs at a time where nobody said: each takes about a gigabyte of memory


class Worker:
    """A job's process."""

    def __init__(self, process: Any, slot: int):
        self.process, self.slot = process, slot

    def alive(self) -> bool:
        return self.process.is_alive()

    def interrupt(self) -> None:
        """Asks it to save and end."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()

    def ending(self) -> str:
        """How it ended, where it could not say so itself."""
        code = self.process.exitcode
        if code is not None and code < 0:
            memory = "; the machine may be out of memory" if code == -signal.SIGKILL else ""
            return f"ended by {signal.Signals(-code).name}{memory}"
        return f"ended with exit status {code}"


class Local:
    """Several jobs at a time on this machine, the cores and GPUs shared out among them.

    `jobs` is how many run at a time; `auto` takes one for each core (or each set of GPUs that a job uses), 8 at most.
    Each job has the threads that its share of the cores allows.
    """

    def __init__(self, jobs: int | str = "auto"):
        self.wanted, self.slots = jobs, 1
        self._free: list[int] = []

    def share(self, cfg: Any) -> dict[str, Any]:
        """Settles how many jobs run at a time, and returns each one's threads and precision."""
        device = resolve(cfg)
        if self.wanted != "auto":
            self.slots = int(self.wanted)
        elif device.accelerator == "gpu":
            self.slots = min(MOST, max(1, torch.cuda.device_count() // device.devices))
        elif device.accelerator == "cpu":
            self.slots = min(MOST, max(1, cores() // device.devices))
        self._device, self._free = device, list(range(self.slots))
        return {"threads": max(1, cores() // (self.slots * device.devices)), "precision": device.precision}

    def prepare(self, threads: int) -> None:
        """Starts the server whose forks are the workers; it imports while the study is read."""
        before = dict(os.environ)
        os.environ.update(OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would take the other jobs' cores
        try:
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(["sslrun.sweep.warm"])
            forkserver.ensure_running()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def start(self, job: Job) -> Worker:
        slot = self._free.pop(0)
        process = self._context.Process(
            target=work, args=(str(job.folder), job.plain, job.overrides, self._environment(slot)), name=job.name
        )
        process.start()
        return Worker(process, slot)

    def _environment(self, slot: int) -> dict[str, str]:
        """The GPUs of a slot, where a job does not take them all."""
        if self._device.accelerator != "gpu" or self.slots == 1:
            return {}
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(
            ","
        )
        n = self._device.devices
        return {"CUDA_VISIBLE_DEVICES": ",".join(visible[(slot * n + i) % len(visible)] for i in range(n))}

    def wait(self, workers: Sequence[Worker], seconds: float) -> None:
        """Until a worker ends, at most so long."""
        wait([worker.process.sentinel for worker in workers], seconds)

    def ended(self, worker: Worker) -> None:
        worker.process.join()
        self._free.append(worker.slot)
