"""Sequences without CUDA: where two players part is found, and what leads there is made short."""

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest

from bench.meters.oracle import pinned, steps
from bench.meters.oracle.agreement import Figures
from bench.meters.oracle.forks import ForkFailed
from bench.meters.oracle.sequences import (
    ALLOCATE,
    FREE,
    Parting,
    Player,
    Step,
    compare,
    parting,
    shortened,
)

LONG = [Step(ALLOCATE, number, 100 + number) for number in range(40)]


class Sum:
    """Counts bytes, all but those of one allocation that comes behind another one."""

    def __init__(self, before: int = -1, forgotten: int = -1) -> None:
        self._before, self._forgotten = before, forgotten
        self._alive: dict[int, int] = {}

    def play(self, step: Step) -> None:
        if step.kind == ALLOCATE and not (step.number == self._forgotten and self._before in self._alive):
            self._alive[step.number] = step.bytes
        elif step.kind == FREE:
            self._alive.pop(step.number, None)

    def figures(self) -> Figures:
        return {"bytes": sum(self._alive.values()), "one": 1}

    def close(self) -> None:
        self._alive.clear()


def alike() -> tuple[Player, Player]:
    return Sum(), Sum()


def unlike() -> tuple[Player, Player]:
    return Sum(), Sum(before=7, forgotten=23)


def failing() -> tuple[Player, Player]:
    raise RuntimeError("no device")


def test_players_that_agree_never_part() -> None:
    assert parting(LONG, alike) is None


def test_they_part_at_the_first_step_that_differs_in_the_figures_that_do() -> None:
    assert parting(LONG, unlike) == Parting(23, {"bytes": 24 * 100 + 276}, {"bytes": 23 * 100 + 253})


def test_of_the_steps_that_lead_there_those_that_count_are_left() -> None:
    def parts(shorter: Sequence[Step]) -> int | None:
        parted = parting(shorter, unlike)
        return parted.at if parted else None

    assert list(shortened(LONG[:24], parts)) == [LONG[7], LONG[23]]


@pytest.mark.parametrize("at_once", [1, 3])
def test_steps_are_counted_until_they_differ_and_of_a_kind_one_is_shown(at_once: int) -> None:
    group = compare("sums", unlike, lambda _, length: LONG[:length], range(2), 40, at_once)
    assert (group.compared, group.different, group.same) == (48, 2, 46)
    [difference] = group.differences
    assert difference.what == "seed 0"
    assert difference.steps == ("allocate 7: 107 bytes on stream 0", "allocate 23: 123 bytes on stream 0")
    assert str(group).splitlines()[0] == "DIFFERENT sums: 46 of 48 steps the same"


@pytest.mark.parametrize("at_once", [1, 2, 50])
def test_all_seeds_are_played(at_once: int) -> None:
    group = compare("sums", alike, lambda _, length: LONG[:length], range(31), 10, at_once)
    assert (group.compared, group.different) == (310, 0)
    assert str(group) == f"same      sums: {group.compared} of {group.compared} steps the same"


def test_what_cannot_be_played_is_told_in_a_line() -> None:
    with pytest.raises(ForkFailed, match=r"^RuntimeError: no device$"):
        compare("sums", failing, lambda _, length: LONG[:length], range(1), 10)


def test_drawn_sequences_are_the_same_for_a_seed_and_free_what_is_there_once() -> None:
    for draw in (lambda rng: steps.drawn(rng, 300, 3), lambda rng: pinned.drawn(rng, 300)):
        sequence = draw(random.Random(4))
        assert sequence == draw(random.Random(4)) != draw(random.Random(5))
        assert len(sequence) == 300
        alive = set()
        for step in sequence:
            if step.kind == ALLOCATE:
                assert step.number not in alive
                assert step.bytes > 0
                alive.add(step.number)
            elif step.kind == FREE:
                alive.remove(step.number)
        numbers = [step.number for step in sequence if step.kind == ALLOCATE]
        assert all(one < other for one, other in pairwise(numbers))
    assert {step.stream for step in steps.drawn(random.Random(4), 300, 3)} == {0, 1, 2}
