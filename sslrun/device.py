"""Accelerator, precision, threads and processes of a run, resolved once."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import scipy.linalg  # noqa: F401  loads the library that threads are to be limited of
import torch
from lightning.pytorch.strategies import DDPStrategy
from threadpoolctl import threadpool_limits

from sslrun.contracts import UserError

GRACE = 20.0  # seconds that further processes have to end by themselves
ONE_TASK = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")  # what names a task's rank
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed", "fp64": "64-true"}


@dataclass(frozen=True)
class Device:
    """What a run runs on; `precision` is one of fp32, bf16, fp16, fp64."""

    accelerator: str
    devices: int
    num_nodes: int
    threads: int
    precision: str

    @property
    def world(self) -> int:
        return self.devices * self.num_nodes

    @property
    def torch(self) -> torch.device:
        return torch.device({"gpu": "cuda", "mps": "mps"}.get(self.accelerator, "cpu"))

    @property
    def autocast(self) -> torch.dtype | None:
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)

    def limit_threads(self) -> None:
        """Holds torch, and the linear algebra under NumPy and SciPy, to this run's share of the cores.

        Theirs would take all cores for a handful of numbers, and spin there in the way of the runs beside this one.
        """
        torch.set_num_threads(self.threads)
        threadpool_limits(self.threads)

    def mixed(self) -> torch.autocast:
        """The context in which a network computes outside the trainer."""
        return torch.autocast(self.torch.type, dtype=self.autocast, enabled=self.autocast is not None)


def resolve(cfg: Any) -> Device:
    """Reads the `device` group and `precision`.

    Raises:
        UserError: an accelerator that is not there, or an unknown precision.
    """
    wanted = cfg.device.accelerator
    there = {"cpu": True, "gpu": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = next(name for name in ("gpu", "mps", "cpu") if there[name])
    if wanted not in there:
        raise UserError(f"device.accelerator={wanted} is unknown; choose one of auto, cpu, gpu, mps.")
    if not there[wanted]:
        have = ", ".join(name for name, ok in there.items() if ok)
        raise UserError(f"device.accelerator={wanted} is not available on this machine; it has: {have}.")
    count = torch.cuda.device_count() if wanted == "gpu" else 1
    devices = count if cfg.device.devices == "auto" else int(cfg.device.devices)
    if wanted == "gpu" and devices > count:
        raise UserError(f"device.devices={devices} is more than the {count} GPUs of this machine.")
    if wanted == "gpu":
        # read once; sums in one order, so that resume is exact
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads = cfg.device.threads or max(1, cores() // devices)
    if cfg.precision != "auto" and cfg.precision not in PRECISIONS:
        raise UserError(f"precision={cfg.precision} is unknown; choose one of auto, {', '.join(PRECISIONS)}.")
    precision = _fast_precision(wanted) if cfg.precision == "auto" else cfg.precision
    return Device(wanted, devices, int(cfg.device.num_nodes), int(threads), precision)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fast_precision(accelerator: str) -> str:
    """bf16 where the hardware multiplies it faster than fp32: Ampere and later GPUs, CPUs with AMX or AVX-512 BF16."""
    if accelerator == "gpu":
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp32"
    if accelerator == "cpu":
        checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return "bf16" if any(getattr(torch.cpu, c, lambda: False)() for c in checks) else "fp32"
    return "fp32"


def keep_freed_memory() -> None:
    """Lets the C library keep the large blocks that a step frees for the next step; does nothing outside glibc."""
    # By default glibc hands them back to the system, and each step then faults every page in anew: a tenth of the time
    # of training, and nearly half of that of making views of small pictures.
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of malloc.h
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_threshold, 2**28)
        libc.mallopt(trim_threshold, 2**30)


class Strategy(DDPStrategy):
    """DDP without a reducer where nothing is trained; the process group stays, for sums over the ranks."""

    def configure_ddp(self) -> None:
        if any(p.requires_grad for p in self.model.parameters()):
            super().configure_ddp()


def strategy(device: Device) -> Any:
    if device.world == 1:
        return "auto"
    backend = "nccl" if device.accelerator == "gpu" else "gloo"
    return Strategy(process_group_backend=backend, broadcast_buffers=False)


def rank() -> int:
    """This process's rank, as our launcher, torchrun or SLURM names it."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", os.environ.get("LOCAL_RANK", 0))))


def is_launched() -> bool:
    """Whether somebody else has started the other ranks already."""
    tasks = int(os.environ.get("SLURM_NTASKS", 1))  # one task has one rank, and the run starts the others
    return "LOCAL_RANK" in os.environ or ("SLURM_PROCID" in os.environ and tasks > 1)


@contextlib.contextmanager
def ranks(count: int, arguments: list[str]) -> Iterator[None]:
    """Starts ranks 1 to count - 1 as `python -m sslrun.rank ARGUMENTS` while this process is rank 0.

    The children read the run's saved configuration, so that neither the command line nor a notebook is run twice.
    When a child dies, this process is interrupted instead of waiting in a collective for ever; when the block ends,
    the children are ended and the environment is as it was.

    Raises:
        RuntimeError: a child stopped before this process did.
    """
    before = dict(os.environ)
    for name in ONE_TASK:
        os.environ.pop(name, None)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), NODE_RANK="0", WORLD_SIZE=str(count))
    children = []
    for r in range(1, count):
        env = {**os.environ, "LOCAL_RANK": str(r), "RANK": str(r)}
        children.append(subprocess.Popen([sys.executable, "-m", "sslrun.rank", *arguments], env=env))
    os.environ.update(LOCAL_RANK="0", RANK="0")
    done = threading.Event()

    def stopped() -> int | None:
        return next((r for r, child in enumerate(children, 1) if child.poll()), None)

    def watch() -> None:
        while not done.wait(0.5):
            if stopped():
                os.kill(os.getpid(), signal.SIGINT)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
        _end(children, GRACE)
    except UserError:
        _end(children, 0)
        raise
    except BaseException as error:
        # a broken connection is noticed here before the process at its other end is gone for good
        deadline = time.monotonic() + GRACE / 10
        while not stopped() and not isinstance(error, KeyboardInterrupt) and time.monotonic() < deadline:
            time.sleep(0.05)
        number = stopped()
        _end(children, GRACE if isinstance(error, KeyboardInterrupt) else 0)
        if number is None:
            raise
        code = children[number - 1].returncode
        raise RuntimeError(
            f"rank {number} of {count} stopped with exit status {code} (what it said is above); "
            "`sslrun resume` goes on from the last checkpoint"
        ) from error
    finally:
        done.set()
        os.environ.clear()
        os.environ.update(before)


def _end(children: list[subprocess.Popen], patience: float) -> None:
    deadline = time.monotonic() + patience
    for child in children:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(max(0, deadline - time.monotonic()))
        child.kill()
        child.wait()
