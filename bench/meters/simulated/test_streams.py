"""Streams and events of a simulated device, used as recipes use them."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
import torch

from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.simulated.conftest import CUDA, DEVICE, numbers, peak
from bench.meters.simulated.ledger import in_place
from bench.meters.simulated.peaks import device_peaks
from bench.meters.simulated.simulated_device import NotSimulated, SimulatedDevice

# Named as a recipe may name them when it is imported.
from torch.cuda import Event, Stream, stream  # isort: skip

MIB = 2**20


def reserved(world: SimulatedDevice) -> int:
    return device_peaks(in_place(world.ledger.events, DEVICE), AllocatorSettings())["reserved"].bytes


def test_nothing_is_ever_busy(world: SimulatedDevice) -> None:
    side, event = torch.cuda.Stream(CUDA), torch.cuda.Event()
    event.synchronize()
    side.wait_stream(torch.cuda.current_stream(CUDA))
    with torch.cuda.stream(side):
        event.record()
    event.record(side)
    event.wait()
    event.wait(side)
    side.wait_event(event)
    assert event.query()
    assert side.query()
    assert side.record_event().query()
    assert side.record_event(event) is event
    for each in (event, side):
        each.synchronize()
    tensor = numbers(10, device=CUDA)
    tensor.record_stream(side)


def test_a_block_sets_the_current_stream_and_puts_the_one_before_back(world: SimulatedDevice) -> None:
    default, one, other = torch.cuda.default_stream(), torch.cuda.Stream(), torch.cuda.Stream()
    assert len({default, one, other}) == 3
    assert torch.cuda.current_stream() == default
    with torch.cuda.stream(one):
        assert torch.cuda.current_stream(CUDA) == torch.cuda.current_stream(0) == one
        with other, torch.cuda.stream(None), one:
            assert torch.cuda.current_stream() == one
        with pytest.raises(ZeroDivisionError), other:
            raise ZeroDivisionError
        assert torch.cuda.current_stream() == one
    assert torch.cuda.current_stream() == default
    torch.cuda.set_stream(one)
    torch.cuda.set_stream(None)  # type: ignore[arg-type]
    assert torch.cuda.current_stream() == one != default
    torch.cuda.set_stream(default)


def test_each_thread_has_a_current_stream(world: SimulatedDevice) -> None:
    side, barrier = torch.cuda.Stream(), Barrier(2, timeout=30)

    def inside() -> bool:
        with torch.cuda.stream(side):
            barrier.wait()
            barrier.wait()
            return bool(torch.cuda.current_stream() == side)

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(inside)
        barrier.wait()
        other = pool.submit(lambda: torch.cuda.current_stream() == torch.cuda.default_stream())
        assert other.result()
        assert torch.cuda.current_stream() == torch.cuda.default_stream()
        barrier.wait()
        assert one.result()


def test_streams_are_handed_out_in_turn_by_priority(world: SimulatedDevice) -> None:
    made = [torch.cuda.Stream() for _ in range(33)]
    assert len(set(made)) == 32
    assert made[0] == made[32]
    urgent = [torch.cuda.Stream(CUDA, -1), torch.cuda.Stream(priority=-1)]
    assert len({*made, *urgent, torch.cuda.default_stream()}) == 35


def test_they_are_there_under_all_their_names(world: SimulatedDevice) -> None:
    side: Any = Stream(CUDA)
    assert isinstance(side, torch.cuda.Stream)
    assert isinstance(side, torch.Stream)
    assert isinstance(Event(enable_timing=True), torch.Event)
    with stream(side):
        assert torch.accelerator.current_stream() == side
    torch.accelerator.set_stream(side)
    assert torch.cuda.current_stream() == side
    assert (side.device, side.device_index) == (torch.device("cuda", 0), 0)
    assert torch.Stream(CUDA) != side
    torch.cuda.set_stream(torch.cuda.default_stream())


def test_what_only_a_gpu_has_is_refused(world: SimulatedDevice) -> None:
    event = torch.cuda.Event(enable_timing=True)
    with pytest.raises(NotSimulated, match="the time between two events, which is not simulated"):
        event.elapsed_time(event)
    with pytest.raises(NotSimulated, match="an event of two processes"):
        event.ipc_handle()
    for ask in (torch.cuda.ExternalStream, torch.cuda.get_stream_from_external):
        with pytest.raises(NotSimulated, match="a stream that is not PyTorch's own"):
            ask(1)
    with pytest.raises(NotSimulated, match="a stream of device cpu"):
        torch.Stream("cpu")


def test_what_a_stream_cached_serves_no_other(world: SimulatedDevice) -> None:
    side = torch.cuda.Stream()
    numbers(3 * MIB, device=CUDA)
    with torch.cuda.stream(side):
        numbers(3 * MIB, device=CUDA)
        numbers(3 * MIB, device=CUDA)
    assert reserved(world) == 24 * MIB
    torch.cuda.empty_cache()
    numbers(3 * MIB, device=CUDA)
    assert reserved(world) == 24 * MIB


def test_a_conversion_on_the_way_is_the_current_streams(world: SimulatedDevice) -> None:
    side = torch.cuda.Stream()
    ring, destination = numbers(3 * MIB, pin_memory=True), torch.empty(3 * MIB, dtype=torch.float16, device=CUDA)
    before = len(in_place(world.ledger.events, DEVICE))
    with torch.cuda.stream(side):
        destination.copy_(ring, non_blocking=True)
    came, went = in_place(world.ledger.events, DEVICE)[before:]
    assert (came.bytes, came.stream, went.bytes) == (12 * MIB, side.stream_id, -12 * MIB)
    torch._C._host_emptyCache()


def test_threads_convert_one_after_the_other(world: SimulatedDevice) -> None:
    """Figures do not differ from run to run: the memory that a copy takes in between is too short to be seen."""
    ring, destination = numbers(100, pin_memory=True), torch.empty(100, dtype=torch.float16, device=CUDA)
    world.ledger.restart()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: destination.copy_(ring, non_blocking=True), range(200)))
    finally:
        sys.setswitchinterval(interval)
    assert peak(world) == 400
