"""Processes that load a model together: started by `torchrun`, one of which this process is, or by this one alone."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

# What `torchrun` says of a process that is a number.
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")

# Of a plan: GPUs of one node, as most have them.
NODE_RANKS = 8


@dataclass(frozen=True)
class RankGroup:
    """The ranks of a run: `count` in all, of which this process measures `local`, on devices from `first_device` on.

    A node has `node_count` of them. `address` is where `torchrun` has them meet, as host and port; None: this process
    says where.
    """

    count: int
    local: tuple[int, ...]
    node_count: int
    first_device: int = 0
    address: tuple[str, int] | None = None

    @property
    def leads(self) -> bool:
        """True if this process is the one that prints and records what was measured."""
        return 0 in self.local

    def device_index(self, rank: int) -> int:
        """Return the index, on its node, of the device of a rank of this process."""
        return self.first_device + self.local.index(rank)

    def nodes(self) -> list[range]:
        """Return the ranks of every node."""
        return [
            range(first, min(first + self.node_count, self.count)) for first in range(0, self.count, self.node_count)
        ]


def local_group(count: int) -> RankGroup:
    """Return a group of which all ranks are processes of this one's."""
    return RankGroup(count, tuple(range(count)), count)


def torchrun_group(environment: Mapping[str, str] = os.environ) -> RankGroup | None:
    """Read what `torchrun` says of this process; None where it did not start it.

    Raises `ValueError` if it says too little.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    try:
        rank, count, place, node_count, port = (int(environment[name]) for name in NUMBERS)
        address = environment["MASTER_ADDR"], port
    except KeyError as missing:
        raise ValueError(
            f"RANK is set, and {missing.args[0]} is not; start pytest with torchrun, or unset RANK"
        ) from None
    except ValueError:
        name = next(name for name in NUMBERS if not environment[name].strip().isdecimal())
        text = f"{name} is {environment[name]!r}, not a number"
        raise ValueError(f"{text}; start pytest with torchrun, or unset RANK") from None
    return RankGroup(count, (rank,), node_count, place, address)
