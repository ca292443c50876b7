"""Who starts the processes of a run."""

import os

import pytest
import torch

from sslrun.device import Device, is_launched, ranks


@pytest.mark.parametrize(
    ("environment", "launched"),
    [
        ({}, False),
        ({"LOCAL_RANK": "1"}, True),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, False),
    ],
)
def test_a_single_task_of_a_cluster_starts_its_own_processes(environment, launched, monkeypatch):
    for name in ("LOCAL_RANK", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_launched() == launched


def test_processes_do_not_inherit_a_tasks_rank(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "1")
    before = dict(os.environ)
    with ranks(1, []):
        assert not {"SLURM_PROCID", "SLURM_NTASKS"} & set(os.environ) and os.environ["RANK"] == "0"
    assert dict(os.environ) == before


def test_threads_are_those_of_the_linear_algebra_too():
    """scipy's minimiser would take every core for sixty numbers, beside other runs."""
    from threadpoolctl import threadpool_info

    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            Device("cpu", 1, 1, threads, "fp32").limit_threads()
            assert torch.get_num_threads() == threads
            assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {threads}
    finally:
        Device("cpu", 1, 1, before, "fp32").limit_threads()
