"""Jobs in a cluster's queue, by submitit: submitted once, found again by another driver, and resumed by the queue."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sslrun.device import resolve
from sslrun.errors import UserError
from sslrun.sweep.job import carry_out, print_to
from sslrun.sweep.study import Job

POLL = 5.0  # seconds between two looks at the files of jobs, which lie on a shared disk
ASKS = 30.0  # seconds between two questions to the queue about jobs that have not ended by themselves


class Task:
    """What runs in the queue: one job. submitit queues it again as it is, and the run's folder knows how far it was."""

    def __init__(self, folder: str, plain: dict[str, Any], overrides: list[str]):
        self.folder, self.plain, self.overrides = folder, plain, overrides

    def __call__(self) -> int:
        print_to(Path(self.folder) / "log.txt")
        requeue, asked = signal.getsignal(signal.SIGUSR2), []

        def save(number: int, frame: Any) -> None:
            asked.append(number)
            os.kill(os.getpid(), signal.SIGINT)

        # submitit would stop where it is; a run that is interrupted saves first
        signal.signal(signal.SIGUSR2, save)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        status = carry_out(self.folder, self._settled(), self.overrides)
        if status == 130:
            if asked and callable(requeue):
                requeue(signal.SIGUSR2, None)
            sys.exit(status)  # without a result, so that the queue's word counts: it may bring the job back
        return status

    def checkpoint(self) -> Any:
        """Called by submitit when it submits the task again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)

    def _settled(self) -> dict[str, Any]:
        """The configuration with the precision that the job began with."""
        before = Path(self.folder) / "config.yaml"
        if before.exists():
            return {**self.plain, "precision": OmegaConf.load(before).precision}
        return {**self.plain, "precision": resolve(OmegaConf.create(self.plain)).precision}


class Worker:
    """A job in the queue."""

    def __init__(self, queued: Any, launcher: Slurm):
        self.queued, self.launcher = queued, launcher

    def known(self) -> bool:
        """Whether the queue has it."""
        return not self.queued.done(force_check=True) and self.queued.state != "UNKNOWN"

    def alive(self) -> bool:
        return not self.queued.done(force_check=self.launcher.due())

    def interrupt(self) -> None:
        """Cancels it: one that waits is gone, one that runs has the cluster's KillWait to save."""
        self.launcher.asks = POLL
        self.queued.cancel(check=False)

    kill = interrupt

    def ending(self) -> str:
        return f"ended in the queue as {self.queued.state}"


class Process(Worker):
    """A job of submitit's local executor."""

    def known(self) -> bool:
        return self.alive()

    def alive(self) -> bool:
        with contextlib.suppress(OSError):  # another process may have its number by now
            return str(self.queued.paths.folder) in Path(f"/proc/{self.queued.job_id}/cmdline").read_text()
        return False

    def interrupt(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGINT)

    def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(self.queued.job_id), number)

    def ending(self) -> str:
        return "ended without a word"


class Slurm:
    """`jobs` at a time in the queue of a cluster, each one task with its `gpus` and `cpus` on one node."""

    def __init__(
        self,
        cluster: str = "slurm",
        jobs: int = 32,
        partition: str | None = None,
        account: str | None = None,
        minutes: int = 240,
        requeues: int = 100,
        gpus: int = 1,
        cpus: int = 8,
        memory: float | None = None,
        parameters: dict[str, Any] | None = None,
    ):
        try:
            import submitit  # noqa: F401
        except ImportError as error:
            raise UserError("launcher=slurm needs the extra: pip install 'sslrun[slurm]'") from error
        if cluster not in ("slurm", "local"):
            raise UserError(f"launcher.cluster={cluster} is unknown; choose one of slurm, local.")
        if cluster == "slurm" and not (shutil.which("sbatch") and shutil.which("srun")):
            raise UserError(
                "launcher=slurm finds no sbatch and srun here; start it on a login node of the cluster, or use "
                "launcher=local."
            )
        self.cluster, self.slots, self.requeues, self.gpus, self.cpus = cluster, jobs, requeues, gpus, cpus
        self.asks, self._asked, self._threads = ASKS, 0.0, cpus
        wanted = {"timeout_min": minutes, "gpus_per_node": gpus, "cpus_per_task": cpus, "mem_gb": memory}
        self.parameters = wanted | {"slurm_partition": partition, "slurm_account": account} | (parameters or {})

    def share(self, cfg: Any) -> dict[str, Any]:
        """The threads of each job; its precision is for the machine that it will run on to say."""
        if cfg.device.num_nodes > 1:
            raise UserError(
                f"device.num_nodes={cfg.device.num_nodes} does not work with launcher=slurm, whose jobs are on one "
                "node each; start a run on several nodes by torchrun."
            )
        return {"threads": max(1, self.cpus // max(1, self.gpus)), "precision": cfg.precision}

    def prepare(self, threads: int) -> None:
        self._threads = threads

    def start(self, job: Job) -> Worker:
        """Submits a job, or finds it in the queue, where an earlier driver has left it.

        Raises:
            UserError: parameters that submitit or the cluster does not take.
        """
        import submitit
        from submitit.core.utils import environment_variables

        folder = job.folder / "submitit"
        kind = {"slurm": submitit.SlurmJob, "local": submitit.LocalJob}[self.cluster]
        for path in sorted(folder.glob("*_submitted.pkl"), key=os.path.getmtime)[-1:]:
            worker = self._worker(kind(folder, path.name.removesuffix("_submitted.pkl")))
            if worker.known():
                return worker
        once_more = {f"{self.cluster}_max_num_timeout": self.requeues}
        try:
            executor = submitit.AutoExecutor(folder, cluster=self.cluster, **once_more)
            executor.update_parameters(name=job.name, **self.parameters)
            with environment_variables(OMP_NUM_THREADS=self._threads, OPENBLAS_NUM_THREADS=self._threads):
                return self._worker(executor.submit(Task(str(job.folder), job.plain, job.overrides)))
        except (NameError, ValueError, AssertionError, TypeError) as error:
            said = str(error).strip().splitlines()
            raise UserError(f"launcher.parameters does not work: {said[0] if said else error}") from error
        except RuntimeError as error:  # sbatch said no
            raise UserError(f"the queue does not take {job.name}: {' '.join(str(error).split())}") from error

    def _worker(self, queued: Any) -> Worker:
        return (Process if self.cluster == "local" else Worker)(queued, self)

    def due(self) -> bool:
        """Whether to ask the queue now; one answer is about all jobs."""
        now = time.monotonic()
        due = now - self._asked > self.asks
        self._asked = now if due else self._asked
        return due

    def wait(self, workers: Sequence[Worker], seconds: float) -> None:
        time.sleep(seconds if self.cluster == "local" else POLL)

    def ended(self, worker: Worker) -> None:
        pass
