"""A rank's place in its process group, taken in the process of its load."""

import os
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

import torch
from torch import distributed
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from bench.sharded.fake_collectives import unheard

LOOPBACK = "lo"


@dataclass(frozen=True)
class RankContext:
    """Rank `rank` of `count` in the group `name`, whose ranks find each other at `address`.

    `simulated`: there are no others, and what they would send is not sent; see `fake_collectives`. `node_count` of them
    share the cores of this machine, and are `alone` if there are no others.
    """

    rank: int
    count: int
    name: str
    address: tuple[str, int]
    node_count: int
    timeout_seconds: float
    simulated: bool = False
    alone: bool = True

    def store(self) -> "distributed.Store":
        """Return the store in which ranks of this group find each other."""
        limit = timedelta(seconds=self.timeout_seconds)
        store = distributed.TCPStore(*self.address, is_master=False, wait_for_workers=False, timeout=limit)
        return distributed.PrefixStore(self.name, store)

    def join(self, device: torch.device) -> None:
        """Make the process group of this process."""
        if distributed.is_initialized():
            return
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.node_count))
        if self.alone and (Path("/sys/class/net") / LOOPBACK).exists():
            # Not by the name of this machine, which need not lead to it.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
        limit = timedelta(seconds=self.timeout_seconds)
        if self.simulated:
            from torch.testing._internal.distributed.fake_pg import FakeStore  # noqa: PLC0415 - registers its backend

            distributed.init_process_group("fake", store=FakeStore(), rank=self.rank, world_size=self.count)
            return
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.set_device(device)
        distributed.init_process_group(
            "nccl" if on_gpu else "gloo",
            store=self.store(),
            rank=self.rank,
            world_size=self.count,
            timeout=limit,
            device_id=device if on_gpu else None,
        )


@cache
def mesh_of(device_type: str, count: int) -> DeviceMesh:
    """Return a mesh of all ranks, in a row."""
    with unheard():
        return init_device_mesh(device_type, (count,))
