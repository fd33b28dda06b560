from collections.abc import Mapping
from typing import Any

import pytest

from bench.meters.driver.variables import CARD
from bench.plugin.options import parsed
from bench.plugin.rank_groups import rank_groups
from bench.plugin.test_options import given
from bench.selftest.messages.situations import ALONE, TORCHRUN
from bench.sharded.rank_group import RankGroup, local_group

STARTED = RankGroup(8, (5,), 4, 1, ("10.0.0.1", 29500))


def chosen(
    options: Mapping[str, Any], *, device: str = "sim", environment: Mapping[str, str] | None = None
) -> tuple[RankGroup, ...]:
    return rank_groups(parsed(given(**options)), device, environment or {})


@pytest.mark.parametrize("environment", [{}, {"RANK": "3"}, {"WORLD_SIZE": "3"}, ALONE])
def test_one_process_that_loads_by_itself_is_no_team(environment: dict[str, str]) -> None:
    assert chosen({}, environment=environment) == ()


@pytest.mark.parametrize(
    ("options", "device", "environment", "expected"),
    [
        ({}, "sim", {}, [local_group(2)]),
        ({}, "cpu", {}, [local_group(2)]),
        ({}, "cpu", {CARD: "name"}, [local_group(2)]),
        # One a GPU.
        ({}, "cuda", {}, [local_group(4)]),
        ({"ranks": "3"}, "sim", {}, [local_group(3)]),
        ({"ranks": "4"}, "cuda", {}, [local_group(4)]),
        ({"ranks": " 5 "}, "sim", {}, [local_group(5)]),
        ({"ranks": "4,2"}, "cpu", {}, [local_group(4), local_group(2)]),
        ({}, "cpu", TORCHRUN, [STARTED]),
        ({}, "cuda", TORCHRUN, [STARTED]),
        ({"ranks": "8"}, "cpu", TORCHRUN, [STARTED]),
        # A plan asks nobody, and its nodes have eight.
        ({"plan": True}, "sim", {}, [RankGroup(8, (0,), 8)]),
        ({"plan": True, "ranks": "2"}, "sim", {}, [RankGroup(2, (0,), 2)]),
        (
            {"plan": True, "ranks": "1024, 2,1024,64"},
            "cpu",
            {},
            [RankGroup(1024, (0,), 8), RankGroup(2, (0,), 2), RankGroup(64, (0,), 8)],
        ),
        ({"plan": True, "ranks": str(2**20)}, "sim", {}, [RankGroup(2**20, (0,), 8)]),
        (
            {"plan": True, "ranks": "2,64", "ranks_per_node": "4", "device_memory": "1GiB", "host_memory": "1TiB"},
            "sim",
            {},
            [RankGroup(2, (0,), 2), RankGroup(64, (0,), 4)],
        ),
        ({"plan": True, "ranks": "2", "ranks_per_node": "1"}, "sim", {}, [RankGroup(2, (0,), 1)]),
    ],
)
def test_a_team_is_of_torchrun_or_of_this_machine(
    gpus: Any, options: dict[str, Any], device: str, environment: dict[str, str], expected: list[RankGroup]
) -> None:
    gpus(4)
    assert list(chosen({"sharded": True} | options, device=device, environment=environment)) == expected
