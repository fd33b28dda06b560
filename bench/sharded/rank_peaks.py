"""Peaks of a load by many ranks, as fields of a record."""

from collections.abc import Mapping, Sequence

from bench.measure.peak_fields import peaks
from bench.meters.measure import Measurement
from bench.record.record import FIELDS, Fields, ratio
from bench.sharded.sharded_case import ShardedCase

HIGHEST = tuple(one.name for one in FIELDS.values() if one.highest)
OF_A_RANK = tuple(one.name for one in FIELDS.values() if one.of_a_rank)


def of_all_ranks(case: ShardedCase, measured: Mapping[int, Measurement]) -> Fields:
    """Return the highest of all ranks, what they come to together, and each one.

    Of a plan each stands for as many ranks as are `alike`, which do the same.
    """
    ranks = {rank: peaks(measurement, case.state_bytes) for rank, measurement in measured.items()}
    representative = case.representatives(measured)
    highest = {name: _highest(ranks, name) for name in HIGHEST}
    return highest | {
        "device_peak_ratio": ratio(highest["device_requested_peak_bytes"], case.state_bytes),
        "host_peak_ratio": ratio(highest["host_private_peak_bytes"], case.state_bytes),
        "read_bytes": None
        if _maps_in_turn(case)
        else _sum(ranks, representative, range(case.group.count), "read_bytes", "host_file_peak_bytes"),
        "node_private_peak_bytes": _of_a_node(case, ranks, representative, "host_private_peak_bytes"),
        "node_file_peak_bytes": _of_a_node(case, ranks, representative, "host_file_peak_bytes"),
        "timeline": ranks[0]["timeline"],
        "per_rank": [
            {"rank": rank, "alike": representative.count(rank), "share_bytes": case.shares[rank].held_bytes}
            | {name: figures[name] for name in OF_A_RANK}
            for rank, figures in ranks.items()
        ],
    }


def _maps_in_turn(case: ShardedCase) -> bool:
    """Return True if a load maps several files one after the other: their peak is not what was read of all."""
    return case.strategy.bounds.file == "F" and len(case.specification.files) > 1


def _highest(ranks: Mapping[int, Fields], name: str) -> int | None:
    figures = [one[name] for one in ranks.values()]
    return None if None in figures else max(figures)


def _sum(ranks: Mapping[int, Fields], representative: Sequence[int], some: range, *names: str) -> int | None:
    """Return the sum of figures over some ranks; None if one is not known."""
    figures = [ranks[representative[rank]][name] for rank in some for name in names]
    return None if None in figures else sum(figures)


def _of_a_node(case: ShardedCase, ranks: Mapping[int, Fields], representative: Sequence[int], name: str) -> int | None:
    """Return the sum of a peak over the ranks of a node, of the one where it is highest."""
    sums = [_sum(ranks, representative, node, name) for node in case.group.nodes()]
    return None if None in sums else max(filter(None, sums), default=0)
