"""Accelerator, precision, threads and processes of a run, resolved once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy

from sslrun.contracts import UserError

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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = cfg.device.threads or max(1, cores // devices)
    if cfg.precision != "auto" and cfg.precision not in PRECISIONS:
        raise UserError(f"precision={cfg.precision} is unknown; choose one of auto, {', '.join(PRECISIONS)}.")
    precision = _fast_precision(wanted) if cfg.precision == "auto" else cfg.precision
    return Device(wanted, devices, int(cfg.device.num_nodes), int(threads), precision)


def _fast_precision(accelerator: str) -> str:
    """bf16 where the hardware multiplies it faster than fp32: Ampere and later GPUs, CPUs with AMX or AVX-512 BF16."""
    if accelerator == "gpu":
        return "bf16" if torch.cuda.get_device_capability()[0] >= 8 else "fp32"
    if accelerator == "cpu":
        checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        return "bf16" if any(getattr(torch.cpu, c, lambda: False)() for c in checks) else "fp32"
    return "fp32"


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
    return "LOCAL_RANK" in os.environ or "SLURM_PROCID" in os.environ


@contextlib.contextmanager
def ranks(count: int, arguments: list[str]) -> Iterator[None]:
    """Starts ranks 1 to count - 1 as `python -m sslrun.run ARGUMENTS` while this process is rank 0.

    The children read the run's saved configuration, so that neither the command line nor a notebook is run twice.
    When a child dies, this process is interrupted instead of waiting in a collective for ever; when the block ends,
    the children are ended and the environment is as it was.
    """
    before = dict(os.environ)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), NODE_RANK="0", WORLD_SIZE=str(count))
    children = []
    for r in range(1, count):
        env = {**os.environ, "LOCAL_RANK": str(r), "RANK": str(r)}
        children.append(subprocess.Popen([sys.executable, "-m", "sslrun.run", *arguments], env=env))
    os.environ.update(LOCAL_RANK="0", RANK="0")
    done = threading.Event()
    failed: list[int] = []

    def watch() -> None:
        while not done.wait(0.5):
            codes = [c.poll() for c in children]
            if any(code for code in codes):
                failed.append(next(i + 1 for i, code in enumerate(codes) if code))
                os.kill(os.getpid(), signal.SIGINT)
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if failed:
            raise RuntimeError(f"rank {failed[0]} of {count} stopped with an error (printed above)") from None
        raise
    finally:
        done.set()
        for child in children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(10)
            child.kill()
        os.environ.clear()
        os.environ.update(before)
