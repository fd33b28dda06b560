"""Streams and events of a simulated device. Nothing on it is ever busy: what they are asked to wait for is done.

But memory belongs to the stream that was current where it was allocated, so each thread has one, as on CUDA. Which
streams there are is told by `c10/cuda/CUDAStream.cpp`: for each priority so many, handed out in turn.
"""

from itertools import count
from typing import Any

import torch

from bench.meters.simulated.simulated_device import SimulatedDevice
from bench.meters.simulated.storages import Replacement

# From 0 down.
PRIORITIES = 4
STREAMS_OF_A_PRIORITY = 32


class Stream:
    """A stream that is known by its number; 0 is the default one."""

    def __init__(self, world: SimulatedDevice, stream_id: int, priority: int) -> None:
        self._world = world
        self.stream_id = self.cuda_stream = stream_id
        self.priority = priority
        self.device = torch.device("cuda", 0)
        self.device_index = 0
        # PyTorch's number of CUDA.
        self.device_type = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.stream_id == self.stream_id

    def __hash__(self) -> int:
        return hash(self.stream_id)

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"

    def __enter__(self) -> "Stream":
        thread = self._world.ledger.thread
        thread.entered.append(thread.stream)
        thread.stream = self.stream_id
        return self

    def __exit__(self, *_: object) -> None:
        thread = self._world.ledger.thread
        thread.stream = thread.entered.pop()

    def wait_event(self, event: "StreamEvent") -> None:
        pass

    def wait_stream(self, stream: "Stream") -> None:
        pass

    def record_event(self, event: "StreamEvent | None" = None) -> "StreamEvent":
        return StreamEvent(self._world) if event is None else event

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class StreamEvent:
    """An event of a stream, which has always happened: CUDA does not wait for one that was not recorded."""

    def __init__(self, world: SimulatedDevice) -> None:
        self._world = world

    def record(self, stream: Stream | None = None) -> None:
        pass

    def wait(self, stream: Stream | None = None) -> None:
        pass

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, _: "StreamEvent") -> float:
        raise self._world.lack("the time between two events")

    def ipc_handle(self) -> bytes:
        raise self._world.lack("an event of two processes")


def replacements(world: SimulatedDevice) -> list[Replacement]:
    """Return the replacements of both classes, and of the calls that tell or set the current stream."""
    stream_class, event_class = _stream_class(world), _event_class(world)

    def current_stream(device: Any = None) -> Stream:
        return stream_class(device, stream_id=world.ledger.thread.stream)

    def default_stream(device: Any = None) -> Stream:
        return stream_class(device, stream_id=0)

    def set_stream(stream: Stream | None) -> None:
        if stream is not None:
            world.ledger.thread.stream = stream.stream_id

    def lack(*_args: Any, **_options: Any) -> None:
        raise world.lack("a stream that is not PyTorch's own")

    modules = (torch, torch.cuda, torch.cuda.streams)
    return [
        *((owner, "Stream", stream_class) for owner in modules),
        *((owner, "Event", event_class) for owner in modules),
        # Under names that a recipe gave them when it was imported.
        (torch.cuda.Stream, "__new__", lambda _, *args, **options: stream_class(*args, **options)),
        (torch.cuda.Event, "__new__", lambda _, *args, **options: event_class(*args, **options)),
        *((owner, "ExternalStream", lack) for owner in modules[1:]),
        (torch.cuda, "get_stream_from_external", lack),
        *((owner, "current_stream", current_stream) for owner in (torch.cuda, torch.accelerator)),
        *((owner, "set_stream", set_stream) for owner in (torch.cuda, torch.accelerator)),
        (torch.cuda, "default_stream", default_stream),
        # The work of another stream on a tensor is done.
        (torch.Tensor, "record_stream", lambda _tensor, _stream: None),
    ]


def _stream_class(world: SimulatedDevice) -> Any:
    numbers = [count() for _ in range(PRIORITIES)]

    class SimulatedStream(Stream):
        def __init__(self, device: Any = None, priority: int = 0, *, stream_id: int | None = None, **_: Any) -> None:
            if device is not None and not str(world.target(device)[1]).startswith("cuda"):
                raise world.lack(f"a stream of device {device}")
            if stream_id is None:
                pool = min(max(-priority, 0), PRIORITIES - 1)
                stream_id = 1 + pool * STREAMS_OF_A_PRIORITY + next(numbers[pool]) % STREAMS_OF_A_PRIORITY
            super().__init__(world, stream_id, priority)

    return SimulatedStream


def _event_class(world: SimulatedDevice) -> Any:
    class SimulatedEvent(StreamEvent):
        def __init__(self, *_: Any, **_options: Any) -> None:
            super().__init__(world)

    return SimulatedEvent
