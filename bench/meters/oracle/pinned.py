"""Random allocations and frees of page-locked memory: PyTorch's allocator for it beside the model of it."""

import random
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence

import torch

from bench.meters.allocations import AllocationEvent
from bench.meters.oracle.agreement import CaseGroup, Figures
from bench.meters.oracle.sequences import (
    ALLOCATE,
    EMPTY,
    FREE,
    RESET,
    Player,
    Step,
    add_sequence_options,
    compare,
    draw_steps,
    seeds_of,
)
from bench.meters.simulated.ledger import PINNED
from bench.meters.simulated.pinned import host_stats

# Figures of `torch.cuda.host_memory_stats` in bytes and blocks; its others are times.
FIGURES = ("allocations", "allocated_bytes", "active_requests", "active_bytes")
KINDS = ("current", "peak", "allocated", "freed")

# More would take memory of the host: a page-locked page is there.
MOST_BITS = 22

# Weights of the kinds of steps.
WEIGHTS = {ALLOCATE: 50, FREE: 42, EMPTY: 4, RESET: 4}


def add_options(parser: ArgumentParser) -> None:
    add_sequence_options(parser, "sequences", steps=150)


def groups(options: Namespace) -> Iterator[CaseGroup]:
    yield compare("page-locked memory", _pair, drawn, seeds_of(options), options.steps, options.at_once)


def drawn(rng: random.Random, length: int) -> Sequence[Step]:
    return draw_steps(rng, length, WEIGHTS, lambda number: Step(ALLOCATE, number, _size(rng)))


def _size(rng: random.Random) -> int:
    """A power of two, which is the size of a block, or one byte beside it, or any other size."""
    power = 1 << rng.randint(0, MOST_BITS)
    return max(1, rng.choice((power - 1, power, power, power + 1, int(2 ** rng.uniform(0, MOST_BITS)))))


class RealPinned:
    """PyTorch's allocator of page-locked memory, emptied."""

    def __init__(self) -> None:
        # Before that the allocator tells nothing.
        torch.cuda.init()
        self._tensors: dict[int, torch.Tensor] = {}
        self._empty_cache()
        torch.cuda.reset_accumulated_host_memory_stats()
        torch.cuda.reset_peak_host_memory_stats()

    def play(self, step: Step) -> None:
        if step.kind == ALLOCATE:
            self._tensors[step.number] = torch.empty(step.bytes, dtype=torch.uint8, pin_memory=True)
        elif step.kind == FREE:
            self._tensors.pop(step.number, None)
        elif step.kind == EMPTY:
            self._empty_cache()
        else:
            torch.cuda.reset_peak_host_memory_stats()

    def figures(self) -> Figures:
        stats = torch.cuda.host_memory_stats()
        return {f"{figure} {kind}": stats[f"{figure}.{kind}"] for figure in FIGURES for kind in KINDS}

    def close(self) -> None:
        self._tensors.clear()
        self._empty_cache()

    def _empty_cache(self) -> None:
        torch._C._host_emptyCache()  # noqa: SLF001 - torch 2.10 has no public name for it


class SimulatedPinned:
    """The model of it, which is given the events of a ledger."""

    def __init__(self) -> None:
        self._events: list[AllocationEvent] = []
        self._sizes: dict[int, int] = {}
        self._since = 0

    def play(self, step: Step) -> None:
        if step.kind == ALLOCATE:
            self._sizes[step.number] = step.bytes
            self._add(step.number, step.bytes)
        elif step.kind == FREE:
            if size := self._sizes.pop(step.number, 0):
                self._add(step.number, -size)
        elif step.kind == EMPTY:
            self._add(-1, 0)
        else:
            self._since = len(self._events)

    def figures(self) -> Figures:
        stats = host_stats(self._events, self._since)
        return {f"{figure} {kind}": stats[figure][kind] for figure in FIGURES for kind in KINDS}

    def close(self) -> None:
        pass

    def _add(self, number: int, came: int) -> None:
        self._events.append(AllocationEvent(PINNED, number, came, None))


def _pair() -> tuple[Player, Player]:
    return RealPinned(), SimulatedPinned()
