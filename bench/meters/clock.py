"""How long a load takes, again and again in one process, with nothing left of the round before."""

import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import torch
from torch import nn

from bench.meters.device import DeviceMeter
from bench.meters.host import release_memory
from bench.meters.process import Child, child_process, telling_failures


class ModelKept(Exception):
    """What a round loaded was still there when the next was to begin."""


class LoadClock:
    """Times loads until their first logits, and checks the model of every one of them.

    `load(device)` returns a model, `use(model)` runs until its first logits, `check(model)` raises if a
    weight is wrong. The lists of seconds grow by one entry a load: until it returned, until its first logits, a
    later forward pass alone, and all of the load: a first forward pass that takes longer than a later one
    fetches weights that the load only mapped.
    """

    def __init__(
        self,
        load: Callable[[torch.device], nn.Module],
        use: Callable[[nn.Module], object],
        check: Callable[[nn.Module], object],
        meter: DeviceMeter,
    ) -> None:
        self._load = load
        self._use = use
        self._check = check
        self._meter = meter
        self._model: nn.Module | None = None
        self.load_seconds: list[float] = []
        self.first_logits_seconds: list[float] = []
        self.forward_seconds: list[float] = []
        self.whole_load_seconds: list[float] = []

    def load_and_use(self) -> None:
        """The timed body. It keeps the model: a result would stay alive in the round that follows."""
        start = time.perf_counter()
        self._model = self._load(self._meter.device)
        self._meter.synchronize()
        self.load_seconds.append(time.perf_counter() - start)
        self._use(self._model)
        self._meter.synchronize()
        self.first_logits_seconds.append(time.perf_counter() - start)

    def finish_round(self) -> None:
        """Before a round and after the last: time what a forward pass takes alone, check the model, drop it.

        Raises `ModelKept` if something else holds on to it.
        """
        if self._model is not None:
            model = weakref.ref(self._model)
            try:
                self._time_forward(self._model)
                self._check(self._model)
            finally:
                self._model = None
            # A load in a fresh process finds neither freed memory nor a filled cache of the device's allocator.
            release_memory()
            if model() is not None or self._meter.held_bytes():
                raise ModelKept("the strategy keeps the model of the round before, or some of its memory")
        self._meter.start()

    def _time_forward(self, model: nn.Module) -> None:
        start = time.perf_counter()
        self._use(model)
        self._meter.synchronize()
        self.forward_seconds.append(time.perf_counter() - start)
        first_forward_seconds = self.first_logits_seconds[-1] - self.load_seconds[-1]
        fetch_seconds = max(0.0, first_forward_seconds - self.forward_seconds[-1])
        self.whole_load_seconds.append(self.load_seconds[-1] + fetch_seconds)


@dataclass(frozen=True)
class Seconds:
    """What a clock has measured by now, an entry a load; see `LoadClock`."""

    load: tuple[float, ...]
    first_logits: tuple[float, ...]
    forward: tuple[float, ...]
    whole_load: tuple[float, ...]


@dataclass(frozen=True)
class RemoteClock:
    """A `LoadClock` in a process of its own. Its methods raise `LoadDied` and `LoadFailed` beside."""

    child: Child

    def load_and_use(self) -> None:
        self._ask("load_and_use")

    def finish_round(self) -> None:
        self._ask("finish_round")

    def seconds(self) -> Seconds:
        return self._ask("")

    def _ask(self, method: str) -> Seconds:
        # Of a process that has ended, the answer says how it did.
        with suppress(ConnectionError):
            self.child.connection.send(method)
        return self.child.receive(Seconds, self.child.deadline())


@contextmanager
def clock_apart(make_clock: Callable[[], LoadClock], limit_seconds: float) -> Iterator[RemoteClock]:
    """A clock that is made, and times, in a process of its own; each of its methods may take `limit_seconds`."""
    with child_process(_serve, make_clock, limit_seconds) as child:
        yield RemoteClock(child)


def _serve(connection: Connection, make_clock: Callable[[], LoadClock]) -> None:
    """Call what is asked for, until it fails or nobody asks any more, and send what was measured by then."""
    with telling_failures(connection):
        clock = make_clock()
        while True:
            try:
                method = connection.recv()
            except EOFError:
                return
            if method:
                getattr(clock, method)()
            seconds = (clock.load_seconds, clock.first_logits_seconds, clock.forward_seconds, clock.whole_load_seconds)
            connection.send(Seconds(*map(tuple, seconds)))
