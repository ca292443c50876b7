"""Gloo processes that live as long as the test session and run one job after the other."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

PRELOAD = ["torch", "lightning.pytorch", "sklearn.linear_model", "hydra", "sslrun.run"]  # imported once, for both


def serve(rank: int, world: int, port: int, jobs: Any) -> None:
    """Runs jobs (function, arguments, keywords) as one rank of some, and answers (worked, result or traceback)."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE=str(world), NODE_RANK="0")
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world, timeout=timedelta(seconds=60))
    while True:
        function, arguments, keywords = jobs.recv()
        try:
            jobs.send((True, function(*arguments, **keywords)))
        except Exception:
            jobs.send((False, traceback.format_exc()))


class Pair:
    """`pair(function, ...)` calls it on all ranks and returns their results; the first call starts them."""

    def __init__(self, world: int = 2) -> None:
        self.world = world
        self.processes: list[Any] = []
        self.jobs: list[Any] = []

    def start(self) -> None:
        # a fork server, since forking after something was computed hangs, and spawning imports everything twice
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        for rank in range(self.world):
            ours, theirs = context.Pipe()
            process = context.Process(target=serve, args=(rank, self.world, port, theirs), daemon=True)
            process.start()
            theirs.close()
            self.processes.append(process)
            self.jobs.append(ours)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
        self.processes, self.jobs = [], []

    def __call__(self, function: Callable, *arguments: Any, timeout: float = 120, **keywords: Any) -> list[Any]:
        if not self.processes:
            self.start()
        answers = []
        try:
            for jobs in self.jobs:
                jobs.send((function, arguments, keywords))
            for rank, jobs in enumerate(self.jobs):
                if not jobs.poll(timeout):
                    raise AssertionError(f"rank {rank} did not answer within {timeout} s")
                worked, answer = jobs.recv()
                if not worked:
                    raise AssertionError(f"rank {rank} failed:\n{answer}")
                answers.append(answer)
        except BaseException:
            self.stop()  # the other rank may wait for this one for ever: the next call starts two new ones
            raise
        return answers
