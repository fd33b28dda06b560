"""Random allocations and frees on streams: PyTorch's CUDA caching allocator beside the model of it."""

import os
import random
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import product

import torch

from bench.meters.allocator_settings import KIB, MIB, AllocatorSettings, settings_of
from bench.meters.cuda import CudaMeter
from bench.meters.oracle.agreement import CaseGroup, Figures
from bench.meters.oracle.argument_types import numbers
from bench.meters.oracle.sequences import (
    ALLOCATE,
    EMPTY,
    FREE,
    Player,
    Step,
    add_sequence_options,
    compare,
    draw_steps,
    seeds_of,
)
from bench.meters.simulated.allocator import CachingAllocator, OutOfSegments
from bench.meters.simulated.blocks import Block

FIGURES = ("requested", "allocated", "reserved")

# Around these the allocator's rules change, or a setting's do.
EDGES = (1, 512, KIB, MIB // 2, MIB, 2 * MIB, 10 * MIB, 20 * MIB, 32 * MIB, 64 * MIB, 128 * MIB, 256 * MIB)
MOST_BYTES = 300 * MIB

# Weights of the kinds of steps.
WEIGHTS = {ALLOCATE: 55, FREE: 43, EMPTY: 2}


def add_options(parser: ArgumentParser) -> None:
    add_sequence_options(parser, "sequences of each group", steps=300)
    parser.add_argument("--streams", type=numbers, default=[1], help="numbers of streams, a group each")
    parser.add_argument(
        "--capacity-mib", type=numbers, default=[0], help="capacities of the process, a group each; 0: none"
    )
    parser.add_argument(
        "--driver", action="store_true", help="the memory of the device is a limit too: for one that is small and idle"
    )


def groups(options: Namespace) -> Iterator[CaseGroup]:
    """Compare in a group for each number of streams and each capacity; the settings are those of the environment."""
    # A device that is full is full for all processes.
    at_once = 1 if options.driver else options.at_once
    for streams, capacity_mib in product(options.streams, options.capacity_mib):
        pair = partial(_pair, settings_of(os.environ), streams, capacity_mib * MIB or None, driver=options.driver)
        limits = [f"a capacity of {capacity_mib:,} MiB"] * bool(capacity_mib) + ["a full device"] * options.driver
        name = f"{streams} streams, {' and '.join(limits) or 'no limit'}"
        yield compare(name, pair, partial(drawn, streams=streams), seeds_of(options), options.steps, at_once)


def drawn(rng: random.Random, length: int, streams: int) -> Sequence[Step]:
    """Return a sequence of that length: in half of them allocations have a few sizes only, as a model's have."""
    sizes = [_size(rng) for _ in range(rng.randint(2, 8))] if rng.randrange(2) else []

    def allocation(number: int) -> Step:
        size = rng.choice(sizes) if sizes else _size(rng)
        return Step(ALLOCATE, number, size, rng.randrange(streams))

    return draw_steps(rng, length, WEIGHTS, allocation)


def _size(rng: random.Random) -> int:
    near_edge = max(1, rng.choice(EDGES) + rng.choice((-513, -512, -1, 0, 1, 511, 512)))
    # As many between 1 and 2 KiB as between 128 and 256 MiB.
    of_any_length = int(MOST_BYTES ** rng.random())
    return rng.choice((near_edge, rng.randint(1, 2 * MIB), of_any_length))


class RealSteps:
    """PyTorch's allocator, emptied, on streams of this process."""

    def __init__(self, streams: int, capacity: int | None, *, driver: bool) -> None:
        """`capacity` is that of the process; `driver`: the device may be full."""
        self._limited = driver or capacity is not None
        self._streams = _streams(streams)
        self._tensors: dict[int, torch.Tensor] = {}
        self._ooms = 0
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        if torch.cuda.memory_reserved():
            raise RuntimeError("PyTorch's allocator is not empty before the first step")
        if capacity is not None:
            CudaMeter(torch.device("cuda")).limit(capacity)

    def play(self, step: Step) -> None:
        if step.kind == ALLOCATE:
            try:
                with torch.cuda.stream(self._streams[step.stream]):
                    self._tensors[step.number] = torch.empty(step.bytes, dtype=torch.uint8, device="cuda")
            except torch.OutOfMemoryError:
                if not self._limited:
                    raise
                self._ooms += 1
        elif step.kind == FREE:
            self._tensors.pop(step.number, None)
        else:
            torch.cuda.empty_cache()

    def figures(self) -> Figures:
        stats = torch.cuda.memory_stats_as_nested_dict()
        kinds = ("current", "peak")
        figures = {f"{name} {kind}": stats[f"{name}_bytes"]["all"][kind] for name in FIGURES for kind in kinds}
        return figures | {"out of memory": self._ooms}

    def close(self) -> None:
        self._tensors.clear()
        torch.cuda.empty_cache()


class SimulatedSteps:
    """The model of PyTorch's allocator."""

    def __init__(self, allocator: CachingAllocator) -> None:
        self._allocator = allocator
        self._blocks: dict[int, Block] = {}
        self._peaks = dict.fromkeys(FIGURES, 0)
        self._ooms = 0

    def play(self, step: Step) -> None:
        if step.kind == ALLOCATE:
            try:
                self._blocks[step.number] = self._allocator.allocate(step.bytes, step.stream)
            except OutOfSegments:
                self._ooms += 1
        elif step.kind == FREE:
            if block := self._blocks.pop(step.number, None):
                self._allocator.free(block)
        else:
            self._allocator.empty_cache()

    def figures(self) -> Figures:
        figures: dict[str, int | None] = {}
        for name in FIGURES:
            current = getattr(self._allocator, f"{name}_bytes")
            self._peaks[name] = max(self._peaks[name], current)
            figures |= {f"{name} current": current, f"{name} peak": self._peaks[name]}
        # In the middle of a step there may be more than after it.
        return figures | {"reserved peak": self._allocator.reserved_peak_bytes, "out of memory": self._ooms}

    def close(self) -> None:
        pass


def _pair(settings: AllocatorSettings, streams: int, capacity: int | None, *, driver: bool) -> tuple[Player, Player]:
    real = RealSteps(streams, capacity, driver=driver)
    # Less than it has in all, where CUDA's context is on it.
    device_bytes = torch.cuda.mem_get_info()[0] if driver else None
    return real, SimulatedSteps(CachingAllocator(settings, capacity, device_bytes=device_bytes))


@cache
def _streams(number: int) -> list[torch.cuda.Stream]:
    """Return so many streams of this process, the default one first: PyTorch hands out a few, again and again."""
    return [torch.cuda.default_stream(), *(torch.cuda.Stream() for _ in range(number - 1))]
