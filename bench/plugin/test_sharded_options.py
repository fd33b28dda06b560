from collections.abc import Mapping
from typing import Any

import pytest

from bench.meters.driver.variables import CARD
from bench.plugin.options import parsed
from bench.plugin.rank_groups import rank_groups
from bench.plugin.test_options import given
from bench.sharded.rank_group import RankGroup, local_group

# What `torchrun --nnodes 2 --nproc-per-node 4` says to the second process of the second node.
TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}
STARTED = RankGroup(8, (5,), 4, 1, ("10.0.0.1", 29500))
# And to the only one of a node.
TORCHRUN_OF_ONE = TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}


def chosen(
    options: Mapping[str, Any], *, device: str = "sim", environment: Mapping[str, str] | None = None
) -> tuple[RankGroup, ...]:
    return rank_groups(parsed(given(**options)), device, environment or {})


@pytest.mark.parametrize("environment", [{}, {"RANK": "3"}, {"WORLD_SIZE": "3"}, TORCHRUN_OF_ONE])
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


@pytest.mark.parametrize(
    ("options", "device", "environment", "message"),
    [
        ({"ranks": "2"}, "sim", {}, "--ranks: one process loads a model by itself; add --sharded"),
        ({"ranks": ""}, "sim", {}, "--ranks: one process loads a model by itself; add --sharded"),
        ({"wrap": ["Block"]}, "sim", {}, "--wrap: one process has all of a model; add --sharded"),
        ({"tp_plan": "mine.py:plan"}, "sim", {}, "--tp-plan: one process has all of a model; add --sharded"),
        ({}, "sim", TORCHRUN, "torchrun has started 8 processes that would do the same; add --sharded"),
        *(
            (
                {"sharded": True, name: value},
                "sim",
                {},
                f"--{name.replace('_', '-')}: it is of loads by one process; leave it out, ",
            )
            for name, value in {
                "loader": ["mine.py:load"],
                "allow_missing": ["head.*"],
                "find_minimum": True,
                "conformance": True,
                "versus": "main",
            }.items()
        ),
        *(
            (
                {"sharded": True, name: "1GB"},
                "sim",
                {},
                f"--{name.replace('_', '-')}: only planned ranks have a budget; add --plan, or leave it out",
            )
            for name in ("device_memory", "host_memory")
        ),
        (
            {"sharded": True, "ranks_per_node": "4"},
            "sim",
            {},
            "--ranks-per-node: only a plan chooses its nodes; add --plan, or leave it out",
        ),
        (
            {"plan": True, "ranks_per_node": "4"},
            "sim",
            {},
            "--ranks-per-node: one process loads a model by itself; add --sharded",
        ),
        *(
            (
                {"sharded": True, "plan": True, "ranks_per_node": count},
                "sim",
                {},
                f"--ranks-per-node: {count!r} is no number of processes from 1 to 1,048,576; give one as 8",
            )
            for count in ("", "0", "-1", "eight", "2.5", "8,4", str(2**20 + 1))
        ),
        (
            {"sharded": True},
            "cuda",
            {CARD: "name"},
            "--sharded: ranks on cuda need NCCL, which the stand-in for a GPU has not; use --device sim or cpu",
        ),
        (
            {"sharded": True, "cache": "cold"},
            "cpu",
            {},
            "--cache cold: ranks of one machine share its page cache; leave it out, or --sharded",
        ),
        (
            {"sharded": True, "plan": True},
            "sim",
            TORCHRUN_OF_ONE,
            "--plan: one process plans all ranks; start it without torchrun",
        ),
        (
            {"sharded": True, "ranks": "2,8"},
            "cpu",
            TORCHRUN,
            "--ranks 2,8: torchrun has started 8; leave it out",
        ),
        (
            {"sharded": True, "ranks": "2,4"},
            "cuda",
            {},
            "4 ranks of this machine, and 3 CUDA devices: every rank has one of its own; start fewer, or use ",
        ),
        *(
            (
                {"sharded": True, "ranks": ranks, "plan": plan},
                "sim",
                {},
                f"--ranks: {ranks!r} is no number of processes from 2 to 1,048,576; give one as 2, or a list as 8,64",
            )
            for ranks in ("", "0", "1", "-1", "two", "2.5", "8,,64", str(2**20 + 1))
            for plan in (False, True)
        ),
        (
            {"sharded": True},
            "cuda:1",
            {},
            "--device cuda:1: every rank has a device of its own; use --device cuda",
        ),
        (
            {"sharded": True, "ranks": "2"},
            "cpu",
            TORCHRUN,
            "--ranks 2: torchrun has started 8; leave it out",
        ),
        (
            {"sharded": True, "ranks": "4"},
            "cuda",
            {},
            "4 ranks of this machine, and 3 CUDA devices: every rank has one of its own; start fewer, or use ",
        ),
        (
            {"sharded": True},
            "cpu",
            TORCHRUN_OF_ONE,
            "--sharded: torchrun has started one process, which has nobody to share with; start more",
        ),
        # Those of another node have others.
        ({"sharded": True}, "cuda", TORCHRUN, "4 ranks of this machine, and 3 CUDA devices: "),
        *(
            (
                {"sharded": True},
                "cpu",
                {name: value for name, value in TORCHRUN.items() if name != missing},
                f"RANK is set, but not {missing}: start it with torchrun, or unset RANK",
            )
            for missing in ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
        ),
    ],
)
def test_what_does_not_fit_together_is_told_in_a_line(
    gpus: Any, options: dict[str, Any], device: str, environment: dict[str, str], message: str
) -> None:
    gpus(3)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - what it says is compared as it is
        chosen(options, device=device, environment=environment)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
