"""What a command line says of loads by many processes."""

from collections.abc import Mapping
from typing import Any

import torch

from bench.meters.driver.variables import CARD
from bench.sharded.rank_group import NODE_RANKS, RankGroup, local_group, torchrun_group
from model.parallel import PARALLELISMS

DEFAULT_RANKS = 2
MOST_RANKS = 2**20

SHARDED_OPTIONS = (
    (
        *("--sharded", False, None),
        "measure loads that many processes do together, started by torchrun or by this run",
    ),
    (
        *("--ranks", None, "LIST"),
        "number of processes that load a model together; for a plan a comma list, such as 8,64,1024 (default: those "
        f"of torchrun, else one per GPU, else {DEFAULT_RANKS})",
    ),
    (
        *("--parallelism", "all", "LIST"),
        f"how to divide the model among processes: a comma list of {', '.join(PARALLELISMS)}; all: these",
    ),
)

# What is measured of one process only.
ALONE = {
    "--model": "model",
    "--checkpoint": "checkpoint",
    "--strategy": "strategy",
    "--cast": "cast",
    "--device-memory": "device_memory",
    "--host-memory": "host_memory",
    "--find-minimum": "find_minimum",
    "--conformance": "conformance",
    "--versus": "versus",
}


def teams(options: Any, device: str, environment: Mapping[str, str]) -> tuple[RankGroup, ...]:
    """The teams that a run measures; none without `--sharded`. Raises `ValueError`, in a line."""
    started = torchrun_group(environment)
    if not options.sharded:
        if options.ranks is not None:
            raise ValueError("--ranks: one process loads a model by itself; add --sharded")
        if started and started.count > 1:
            raise ValueError(f"torchrun has started {started.count} processes that would do the same; add --sharded")
        return ()
    for name, attribute in ALONE.items():
        if getattr(options, attribute, None):
            raise ValueError(f"{name}: it is of loads by one process; leave it out, or --sharded")
    if options.cache == "cold":
        raise ValueError("--cache cold: ranks of one machine share its page cache; leave it out, or --sharded")
    counts = _counts(options.ranks) if options.ranks is not None else ()
    if not options.plan:
        return (_measured(counts, started, device, environment),)
    if started:
        raise ValueError("--plan: one process plans all ranks; start it without torchrun")
    return tuple(RankGroup(count, (0,), min(count, NODE_RANKS)) for count in counts or (NODE_RANKS,))


def _measured(
    counts: tuple[int, ...], started: RankGroup | None, device: str, environment: Mapping[str, str]
) -> RankGroup:
    """The team whose loads are measured, of which there is one in a run."""
    if len(counts) > 1:
        raise ValueError("--ranks: one number at a time is measured; give a list with --plan")
    if device.startswith("cuda:"):
        raise ValueError(f"--device {device}: every rank has a device of its own; use --device cuda")
    if device == "cuda" and CARD in environment:
        raise ValueError(
            "--sharded: ranks on cuda need NCCL, which the stand-in for a GPU has not; use --device sim or cpu"
        )
    if started and counts and counts != (started.count,):
        raise ValueError(f"--ranks {counts[0]}: torchrun has started {started.count}; leave it out")
    gpus = torch.cuda.device_count() if device == "cuda" else 0
    team = started or local_group(*(counts or (max(gpus, DEFAULT_RANKS),)))
    if team.count < DEFAULT_RANKS:
        raise ValueError("--sharded: torchrun has started one process, which has nobody to share with; start more")
    if device == "cuda" and team.node_count > gpus:
        raise ValueError(
            f"{team.node_count} ranks of this machine, and {gpus} CUDA devices: every rank has one of its own; start "
            "fewer, or use --device sim or cpu"
        )
    return team


def _counts(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 1 < int(part) <= MOST_RANKS for part in parts):
        raise ValueError(
            f"--ranks: {text!r} is no number of processes from 2 to {MOST_RANKS:,}; give one as 2, or with --plan a "
            "list as 8,64"
        )
    return tuple(dict.fromkeys(map(int, parts)))
