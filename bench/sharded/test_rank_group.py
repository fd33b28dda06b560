import pytest

from bench.sharded.rank_group import NUMBERS, RankGroup, local_group, torchrun_group


@pytest.mark.parametrize(
    ("count", "node_count", "nodes"),
    [
        (16, 8, [range(8), range(8, 16)]),
        (5, 2, [range(2), range(2, 4), range(4, 5)]),
        (3, 3, [range(3)]),
        (1, 1, [range(1)]),
    ],
)
def test_every_rank_is_in_one_node(count: int, node_count: int, nodes: list[range]) -> None:
    assert RankGroup(count, (0,), node_count).nodes() == nodes


def test_ranks_of_one_process_have_devices_in_their_order() -> None:
    assert [local_group(3).device_index(rank) for rank in range(3)] == [0, 1, 2]


def test_a_rank_of_torchrun_has_the_device_of_its_place_in_the_node_and_the_first_of_all_leads() -> None:
    environment = {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    groups = [torchrun_group(environment | {"RANK": str(rank), "LOCAL_RANK": str(rank % 4)}) for rank in range(8)]
    assert [group.device_index(rank) for rank, group in enumerate(groups) if group] == [0, 1, 2, 3] * 2
    assert [group.leads for group in groups if group] == [True] + 7 * [False]
    assert local_group(2).leads


def test_what_is_no_number_is_told_in_a_line() -> None:
    environment = dict.fromkeys(NUMBERS, "1") | {"MASTER_ADDR": "10.0.0.1", "WORLD_SIZE": "many"}
    with pytest.raises(ValueError, match=r"WORLD_SIZE is 'many', not a number; start pytest with torchrun"):
        torchrun_group(environment)
