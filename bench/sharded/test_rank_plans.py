import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from threading import Barrier, Event, Thread
from types import SimpleNamespace
from typing import Any

import pytest

from bench.meters import process, process_tree
from bench.meters.process import child_process
from bench.sharded.metered_ranks import RankPlans
from bench.sharded.rank_group import RankGroup
from bench.sharded.rendezvous import RankFailed
from bench.sharded.sharded_case import ShardedCase

PLANNED = ShardedCase("streamed", "tiny", "sim", "float32", planned=True, group=RankGroup(8, (0,), 8))


def load_of(count: int, measure: Callable[[], Any], *, planned: bool = True) -> Any:
    """A load by so many ranks."""
    case = replace(PLANNED, planned=planned, group=RankGroup(count, (0,), 8))
    return SimpleNamespace(case=case, rendezvous=SimpleNamespace(address=("127.0.0.1", 1)), measure=measure)


@pytest.fixture
def asked() -> list[int]:
    return []


def counted(asked: list[int], count: int) -> Any:
    def measure() -> int:
        asked.append(count)
        return count

    return load_of(count, measure)


def test_every_plan_is_measured_once_whoever_asks_for_it(asked: list[int]) -> None:
    loads = [counted(asked, count) for count in (8, 64, 1024)]
    with RankPlans(lambda: loads[:2], 2) as plans:
        found: list[Any] = [plans.measured(load) for load in (*loads, *loads)]
    assert found == 2 * [8, 64, 1024]
    assert sorted(asked) == [8, 64, 1024]


def test_those_to_come_are_measured_beside_the_one_that_is_waited_for() -> None:
    """Each waits for the other."""
    both = Barrier(2, timeout=30)
    loads = [load_of(count, both.wait) for count in (8, 64)]
    with RankPlans(lambda: loads, 2) as plans:
        assert {plans.measured(load) for load in loads} == {0, 1}  # type: ignore[comparison-overlap]


def test_what_is_no_plan_is_measured_each_time_and_nothing_beside_it(asked: list[int]) -> None:
    def coming() -> Iterator[Any]:
        raise AssertionError("nothing is to come")
        yield

    with RankPlans(coming, 2) as plans:
        load = counted(asked, 2)
        load.case = replace(load.case, planned=False)
        found: list[Any] = [plans.measured(load), plans.measured(load)]
    assert found == [2, 2]
    assert asked == [2, 2]


def test_an_error_is_that_of_its_load(asked: list[int]) -> None:
    def fails() -> None:
        raise RankFailed("rank 1 of 8: gone")

    wrong, right = load_of(8, fails), counted(asked, 64)
    with RankPlans(lambda: [wrong, right], 1) as plans:
        with pytest.raises(RankFailed, match="gone"):
            plans.measured(wrong)
        assert plans.measured(right) == 64  # type: ignore[comparison-overlap]


def test_a_run_that_ends_early_ends_what_it_measures(asked: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins nothing, and ends the processes that nobody waits for."""
    begun, go = Event(), Event()
    monkeypatch.setattr("bench.sharded.metered_ranks.end_server", go.set)

    def waits() -> int:
        begun.set()
        go.wait(30)
        return 8

    loads = [load_of(8, waits), counted(asked, 64), counted(asked, 1024)]
    with RankPlans(lambda: loads, 1) as plans:
        plans._begin(loads)
        begun.wait(30)
    assert go.is_set()
    assert asked == []


def test_a_run_that_ends_early_waits_for_no_process_that_is_being_started() -> None:
    """The server that starts it is stopped, as it is when it ends what it has started."""
    ends: list[type[BaseException]] = []

    def starts() -> None:
        try:
            with child_process(_nothing, None, 60.0):
                pass
        except BaseException as error:
            ends.append(type(error))
            raise

    process.warm_up()
    server = process_tree.server_pid()
    assert server
    os.kill(server, signal.SIGSTOP)
    plans = RankPlans(list, 1)
    plans._begin([load_of(8, starts)])
    time.sleep(0.2)  # Later it would not be waiting yet, and this would test less.
    ending = Thread(target=plans.__exit__, args=(None, None, None), daemon=True)
    ending.start()
    ending.join(30)
    try:
        assert not ending.is_alive()
        assert ends == [EOFError]
    finally:
        process.end_server()


def _nothing(_connection: Any, _task: object) -> None:
    pass
