import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from typing import Any, cast

import pytest
from torch import distributed

from bench.meters.process import Child, LoadDied, LoadFailed
from bench.sharded import rendezvous as rendezvous_module
from bench.sharded.rank_group import RankGroup, local_group
from bench.sharded.rendezvous import LOCALHOST, RankFailed, RankRendezvous

LIMIT_SECONDS = 20.0

# What a rank does when it is asked.
Act = Callable[["StandIn"], Any]


@dataclass
class StandIn:
    """A stand-in for a child and its process."""

    act: Act
    killed: Event = field(default_factory=Event)

    @property
    def process(self) -> "StandIn":
        return self

    def kill(self) -> None:
        self.killed.set()


def children(*acts: Act, first: int = 0) -> dict[int, Child]:
    return {rank: cast("Child", StandIn(act)) for rank, act in enumerate(acts, first)}


def killed(asked: Mapping[int, Child]) -> list[int]:
    return [rank for rank, child in asked.items() if cast("StandIn", child).killed.is_set()]


def ask(rank: int, child: Child) -> Any:
    stand_in = cast("StandIn", child)
    return stand_in.act(stand_in)


def together(rendezvous: RankRendezvous, asked: Mapping[int, Child]) -> dict[int, Any]:
    return rendezvous.together(asked, ask, LIMIT_SECONDS)


def answer(value: object, *, after: Event | None = None, then: Event | None = None) -> Act:
    """It gives a value, or raises it, once something has happened."""

    def act(_: StandIn) -> object:
        assert after is None or after.wait(LIMIT_SECONDS)
        if then:
            then.set()
        if isinstance(value, Exception):
            raise value
        return value

    return act


def wait_for_others(stand_in: StandIn) -> None:
    """Wait as in a collective whose other ranks have gone, until it is ended."""
    assert stand_in.killed.wait(LIMIT_SECONDS)
    raise LoadDied("the process of the load died: killed by SIGKILL, most likely by the kernel, out of memory")


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous_module, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(rendezvous_module, "GRACE_SECONDS", 0.1)


def test_what_all_ranks_answer_comes_in_their_order() -> None:
    second = Event()
    asked = children(answer("a", after=second), answer("b", then=second), answer("c"))
    backwards = dict(reversed(asked.items()))
    assert list(together(RankRendezvous(local_group(3)), backwards).items()) == [(0, "a"), (1, "b"), (2, "c")]
    assert killed(asked) == []


def test_a_rank_that_fails_is_named_and_the_others_are_ended() -> None:
    failed = LoadFailed("MemoryError: no more of it")
    failed.add_note("in load, line 3")
    asked = children(wait_for_others, answer(failed), wait_for_others)
    with pytest.raises(RankFailed) as caught:
        together(RankRendezvous(local_group(3)), asked)
    assert caught.value.message == "rank 1 of 3: MemoryError: no more of it\nin load, line 3"
    assert killed(asked) == [0, 2]


def test_others_have_a_while_to_come_to_their_own_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous_module, "GRACE_SECONDS", LIMIT_SECONDS)
    failed = Event()

    def soon(stand_in: StandIn) -> str:
        assert failed.wait(LIMIT_SECONDS)
        return "was killed" if stand_in.killed.wait(0.2) else "done"

    asked = children(soon, answer(LoadFailed("ValueError: no"), then=failed))
    with pytest.raises(RankFailed, match=r"^rank 1 of 2: ValueError: no$"):
        together(RankRendezvous(local_group(2)), asked)
    assert killed(asked) == []


@pytest.mark.parametrize(
    "consequence",
    [
        LoadFailed("RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711"),
        LoadFailed("DistBackendError: NCCL error in: ProcessGroupNCCL.cpp:3699"),
        LoadFailed("DistNetworkError: The client socket has failed"),
        LoadFailed("AnotherRankFailed: rank 2 has raised"),
    ],
)
@pytest.mark.parametrize(
    "cause",
    [
        LoadDied("the process of the load died: killed by SIGSEGV, a segmentation fault"),
        LoadFailed("KeyError: 'out_head.weight'"),
        # Whatever a process says that has died is no consequence.
        LoadDied("the load was ended: it was not done within 20 s, in gloo"),
    ],
)
def test_what_a_rank_died_of_outranks_what_others_say_of_its_connection(
    cause: Exception, consequence: Exception
) -> None:
    gone = Event()
    asked = children(answer(consequence, then=gone), wait_for_others, answer(cause, after=gone))
    with pytest.raises(RankFailed) as caught:
        together(RankRendezvous(local_group(3)), asked)
    assert str(caught.value) == f"rank 2 of 3: {cause}"


def test_of_two_the_lowest_rank_is_named_whichever_was_first() -> None:
    second = Event()
    asked = children(
        wait_for_others,
        answer(LoadFailed("ValueError: one"), after=second),
        answer(LoadFailed("ValueError: two"), then=second),
    )
    with pytest.raises(RankFailed, match=r"^rank 1 of 3: ValueError: one$"):
        together(RankRendezvous(local_group(3)), asked)


def test_a_consequence_is_told_where_nothing_else_is_known() -> None:
    asked = children(wait_for_others, answer(LoadFailed("RuntimeError: Connection reset by peer")))
    with pytest.raises(RankFailed, match=r"^rank 1 of 2: RuntimeError: Connection reset by peer$"):
        together(RankRendezvous(local_group(2)), asked)


def test_a_traceback_is_told_in_a_line() -> None:
    failed = LoadFailed("RuntimeError: worker failed\nTraceback:\n  File x\nValueError: wrong\n")
    with pytest.raises(RankFailed, match=r"^rank 0 of 1: RuntimeError: worker failed: ValueError: wrong$"):
        together(RankRendezvous(local_group(1)), children(answer(failed)))


def test_what_is_raised_here_is_told_with_its_class() -> None:
    with pytest.raises(RankFailed, match=r"^rank 0 of 1: ZeroDivisionError: by nothing$"):
        together(RankRendezvous(local_group(1)), children(answer(ZeroDivisionError("by nothing"))))


def test_an_interrupt_ends_all_ranks_at_once() -> None:
    def interrupted(_: StandIn) -> None:
        raise KeyboardInterrupt

    asked = children(wait_for_others, interrupted)
    with pytest.raises(KeyboardInterrupt):
        together(RankRendezvous(local_group(2)), asked)
    assert 0 in killed(asked)


def test_one_process_agrees_with_itself() -> None:
    alone = RankRendezvous(local_group(3))
    assert alone.agree("no NumPy", LIMIT_SECONDS) == "no NumPy"
    assert alone.agree(None, LIMIT_SECONDS) is None


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RankRendezvous, RankRendezvous]]:
    """Makes what two processes that `torchrun` has started have each, at the store of its agent."""
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    store = distributed.TCPStore(LOCALHOST, 0, is_master=True, wait_for_workers=False)
    address = (LOCALHOST, store.port)
    yield RankRendezvous(RankGroup(2, (0,), 2, 0, address)), RankRendezvous(RankGroup(2, (1,), 2, 1, address))
    del store


def at_once(*steps: Callable[[], Any]) -> list[Any]:
    """Return the result of each, or what it raised."""

    def caught(step: Callable[[], Any]) -> Any:
        try:
            return step()
        except RankFailed as failed:
            return failed.message

    with ThreadPoolExecutor(len(steps)) as pool:
        return list(pool.map(caught, steps))


def test_two_processes_have_the_same_answers(two: tuple[RankRendezvous, RankRendezvous]) -> None:
    first, second = two
    for step in range(2):
        values = at_once(
            partial(together, first, children(answer(("a", step)))),
            partial(together, second, children(answer(("b", step)), first=1)),
        )
        assert values == [{0: ("a", step), 1: ("b", step)}] * 2
    assert first.address == second.address
    assert first.name() == second.name() != first.name()


def test_two_processes_end_in_the_same_way(two: tuple[RankRendezvous, RankRendezvous]) -> None:
    failed = LoadFailed("MemoryError: no more of it")
    failed.add_note("in load, line 3")
    here, there = children(wait_for_others), children(answer(failed), first=1)
    messages = at_once(partial(together, two[0], here), partial(together, two[1], there))
    assert messages == ["rank 1 of 2: MemoryError: no more of it\nin load, line 3"] * 2
    assert (killed(here), killed(there)) == ([0], [])
    # And go on with the next step.
    assert at_once(*(partial(one.agree, None, LIMIT_SECONDS) for one in two)) == [None, None]


def test_two_processes_agree_on_what_the_first_has_to_object(two: tuple[RankRendezvous, RankRendezvous]) -> None:
    def messages(*objections: str | None) -> list[Any]:
        steps = (partial(one.agree, objection, LIMIT_SECONDS) for one, objection in zip(two, objections, strict=True))
        return at_once(*steps)

    assert messages(None, None) == [None, None]
    assert messages(None, "no NumPy") == ["rank 1: no NumPy"] * 2
    assert messages("too small", "no NumPy") == ["rank 0: too small"] * 2


def test_one_that_says_nothing_is_named_after_the_limit(
    two: tuple[RankRendezvous, RankRendezvous], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous_module, "HEARING_SECONDS", 0.1)
    start = time.monotonic()
    with pytest.raises(RankFailed, match=r"^rank 1 of 2: it sent nothing for 0\.5 s$"):
        two[0].together(children(answer("a")), ask, 0.5)
    assert two[0].agree(None, 0.5) == "rank 1: it sent nothing for 0.5 s"
    assert 0.5 < time.monotonic() - start < 5.0


def test_what_a_rank_died_of_outranks_that_another_says_nothing(
    two: tuple[RankRendezvous, RankRendezvous], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous_module, "HEARING_SECONDS", 0.1)
    with pytest.raises(RankFailed, match=r"^rank 1 of 2: it died$"):
        two[1].together(children(answer(LoadDied("it died")), first=1), ask, 0.5)
