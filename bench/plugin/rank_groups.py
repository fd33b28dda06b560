"""Rank groups of a run, started by `torchrun` or by the run itself."""

from collections.abc import Mapping

import torch

from bench.meters import kind_of
from bench.meters.driver.variables import CARD
from bench.plugin.option_texts import DEFAULT_RANKS
from bench.plugin.options import Options
from bench.sharded.rank_group import NODE_RANKS, RankGroup, local_group, torchrun_group


def rank_groups(options: Options, device: str, environment: Mapping[str, str]) -> tuple[RankGroup, ...]:
    """Return the rank groups that a run measures; none without `--sharded`. Raises `ValueError` with one line."""
    started = torchrun_group(environment)
    if not options.sharded:
        if started and started.count > 1:
            raise ValueError(f"torchrun started {started.count} processes, and each would do the same; add --sharded")
        return ()
    if not options.plan:
        return _measured(options.ranks or (), started, device, environment)
    if started:
        raise ValueError("--plan: one process plans all ranks; start pytest without torchrun")
    of_a_node = options.ranks_per_node or NODE_RANKS
    return tuple(RankGroup(count, (0,), min(count, of_a_node)) for count in options.ranks or (NODE_RANKS,))


def rank_prefix(environment: Mapping[str, str]) -> str:
    """Return what an error of a process of `torchrun` begins with, `rank 1: `; "" for others."""
    return f"rank {environment['RANK']}: " if "RANK" in environment and "LOCAL_RANK" in environment else ""


def _measured(
    counts: tuple[int, ...], started: RankGroup | None, device: str, environment: Mapping[str, str]
) -> tuple[RankGroup, ...]:
    """Return the rank groups whose loads are measured: that of torchrun, or one for each number of ranks."""
    if kind_of(device).is_numbered and ":" in device:
        raise ValueError(f"--device {device}: every rank has a device of its own; use --device cuda")
    if kind_of(device).is_gpu and CARD in environment:
        raise ValueError(
            "--sharded: ranks on cuda need NCCL, which the stand-in for a GPU does not have; use --device sim or cpu"
        )
    if started and counts and counts != (started.count,):
        raise ValueError(f"--ranks {','.join(map(str, counts))}: torchrun started {started.count}; leave out --ranks")
    gpus = torch.cuda.device_count() if kind_of(device).is_gpu else 0
    teams = (started,) if started else tuple(map(local_group, counts or (max(gpus, DEFAULT_RANKS),)))
    for team in teams:
        if team.count < DEFAULT_RANKS:
            raise ValueError("--sharded: torchrun started one process; start at least 2")
        if kind_of(device).is_gpu and team.node_count > gpus:
            raise ValueError(
                f"--sharded: {team.node_count} ranks need a CUDA device each, and this machine has {gpus}; start "
                "fewer, or use --device sim or cpu"
            )
    return teams
