"""Sequences of steps that two allocators play: where they part, and the shortest sequence after which they do."""

import random
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from bench.meters.oracle.agreement import CaseGroup, Figures, OracleDifference, where_different
from bench.meters.oracle.argument_types import count
from bench.meters.oracle.forks import answered, in_forks

ALLOCATE, FREE, EMPTY, RESET = "allocate", "free", "empty the cache", "reset the peaks"

# One difference of each kind is shortened, which takes some hundred plays.
MOST_SHORTENED = 3


@dataclass(frozen=True)
class Step:
    """One step; `number` is that of the allocation which is made or freed."""

    kind: str
    number: int = 0
    bytes: int = 0
    stream: int = 0

    def __str__(self) -> str:
        if self.kind == ALLOCATE:
            return f"{self.kind} {self.number}: {self.bytes:,} bytes on stream {self.stream}"
        return f"{self.kind} {self.number}" if self.kind == FREE else self.kind


class Player(Protocol):
    """An allocator, real or simulated, that nothing is taken from."""

    def play(self, step: Step) -> None:
        """Do a step; to free what was never allocated is nothing."""

    def figures(self) -> Figures:
        """Return the figures of the allocator after the last step."""

    def close(self) -> None:
        """Free everything."""


# The two that are compared, new.
Pair = Callable[[], tuple[Player, Player]]
Draw = Callable[[random.Random, int], Sequence[Step]]


def add_sequence_options(parser: ArgumentParser, sequences: str, steps: int) -> None:
    """Add the options of drawn sequences; `sequences` is the help of `--seeds`, `steps` the default of `--steps`."""
    parser.add_argument("--seeds", type=count, default=60, help=sequences)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=count, default=steps, help="steps of a sequence")


def seeds_of(options: Namespace) -> range:
    return range(options.first_seed, options.first_seed + options.seeds)


def draw_steps(
    rng: random.Random, length: int, weights: Mapping[str, int], allocation: Callable[[int], Step]
) -> Sequence[Step]:
    """Return `length` steps, kinds by their `weights`; `allocation` draws the allocation of a number."""
    steps: list[Step] = []
    alive: list[int] = []
    for number in range(length):
        [kind] = rng.choices(tuple(weights), tuple(weights.values()))
        if kind == ALLOCATE or (kind == FREE and not alive):
            steps.append(allocation(number))
            alive.append(number)
        elif kind == FREE:
            steps.append(Step(FREE, alive.pop(rng.randrange(len(alive)))))
        else:
            steps.append(Step(kind))
    return steps


@dataclass(frozen=True)
class Parting:
    """The first step after which two players differ, and the figures in which they do."""

    at: int
    real: Figures
    simulated: Figures


def parting(steps: Sequence[Step], pair: Pair) -> Parting | None:
    """Return the first step after which two players of the same steps differ; None if they never do."""
    real, simulated = pair()
    try:
        for at, step in enumerate(steps):
            real.play(step)
            simulated.play(step)
            one, other = real.figures(), simulated.figures()
            if one != other:
                return Parting(at, *where_different(one, other))
        return None
    finally:
        real.close()
        simulated.close()


def shortened(steps: Sequence[Step], parts: Callable[[Sequence[Step]], int | None]) -> Sequence[Step]:
    """Return the shortest sequence found in `steps` that still parts; `parts` returns the step at which one does."""
    width = max(len(steps) // 2, 1)
    while True:
        at = shorter = 0
        while at < len(steps):
            fewer = [*steps[:at], *steps[at + width :]]
            parted = parts(fewer)
            if parted is None:
                at += width
            else:
                steps, shorter = fewer[: parted + 1], shorter + 1
        if width == 1 and not shorter:
            return steps
        width = max(width // 2, 1)


def compare(name: str, pair: Pair, draw: Draw, seeds: range, steps: int, at_once: int = 1) -> CaseGroup:  # noqa: PLR0913, PLR0917
    """Play a sequence of so many steps for each seed, in `at_once` forks."""
    parts = [seeds[first::at_once] for first in range(min(at_once, len(seeds)))]
    calls = [partial(_compare, pair, draw, part, steps) for part in parts]
    played = different = 0
    found: dict[frozenset[str], OracleDifference] = {}
    for answer in in_forks(calls, at_once):
        some_played, some_different, some_found = answered(answer)
        played += some_played
        different += some_different
        found = some_found | found
    return CaseGroup(name, "steps", played, different, tuple(found.values())[:MOST_SHORTENED])


def _compare(
    pair: Pair, draw: Draw, seeds: range, steps: int
) -> tuple[int, int, dict[frozenset[str], OracleDifference]]:
    """Return how many steps were compared, after how many the two differed, and a difference of each kind."""
    played = different = 0
    found: dict[frozenset[str], OracleDifference] = {}
    for seed in seeds:
        sequence = draw(random.Random(seed), steps)  # noqa: S311 - to be drawn again
        parted = parting(sequence, pair)
        played += len(sequence) if parted is None else parted.at + 1
        if parted is not None:
            different += 1
            kind = frozenset(parted.real)
            if kind not in found and len(found) < MOST_SHORTENED:
                found[kind] = _shortest(f"seed {seed}", sequence[: parted.at + 1], kind, pair)
    return played, different, found


def _shortest(what: str, sequence: Sequence[Step], kind: frozenset[str], pair: Pair) -> OracleDifference:
    def parts(steps: Sequence[Step]) -> int | None:
        parted = parting(steps, pair)
        return parted.at if parted and frozenset(parted.real) == kind else None

    short = shortened(sequence, parts)
    parted = parting(short, pair)
    assert parted is not None
    return OracleDifference(what, parted.real, parted.simulated, tuple(map(str, short)))
