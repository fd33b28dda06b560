import pytest

from bench.meters.budget import Budget
from bench.plugin.preconditions import require_room, require_surroundings


@pytest.mark.parametrize(
    ("options", "optimised", "said"),
    [
        ({"dist": "load", "benchmark_disable": False}, 0, "^pytest-xdist: "),
        ({"dist": "loadfile"}, 0, "^pytest-xdist: "),
    ],
)
def test_what_makes_a_run_worthless_is_a_usage_error(options: dict[str, object], optimised: int, said: str) -> None:
    with pytest.raises(pytest.UsageError, match=said):
        require_surroundings(options, optimised)


@pytest.mark.parametrize("options", [{}, {"dist": "no"}, {"dist": "loadfile", "benchmark_disable": True}])
def test_what_does_not_is_none(options: dict[str, object]) -> None:
    require_surroundings(options, 0)


def test_a_budget_below_an_empty_process_is_a_usage_error() -> None:
    said = r"^--host-memory: 100 MiB is not above the [\d,]+ MiB of an idle process; give at least [\d,]+ MiB$"
    with pytest.raises(pytest.UsageError, match=said):
        require_room(Budget(host_bytes=100 * 2**20), "cpu")
    require_room(Budget(host_bytes=2**40), "cpu")
    require_room(Budget(device_bytes=1), "cpu")


def test_the_ranks_of_a_node_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.plugin.preconditions.empty_process_bytes", lambda *_: 200 * 2**20)
    require_room(Budget(host_bytes=1600 * 2**20 + 1), "sim", 8)
    said = r"^--host-memory: 1\.6 GiB is not above the 1,600 MiB of 8 idle processes; give at least 1,601 MiB$"
    with pytest.raises(pytest.UsageError, match=said):
        require_room(Budget(host_bytes=1600 * 2**20), "sim", 8)


def test_the_context_of_a_cuda_device_is_part_of_an_empty_process(monkeypatch: pytest.MonkeyPatch) -> None:
    empty = {"cuda:1": 600 * 2**20, "sim": 200 * 2**20}
    monkeypatch.setattr("bench.plugin.preconditions.empty_process_bytes", lambda _, device: empty[device])
    budget = Budget(host_bytes=400 * 2**20)
    require_room(budget, "sim")
    with pytest.raises(pytest.UsageError, match=r"the 600 MiB of an idle process with a CUDA context; give"):
        require_room(budget, "cuda:1")
