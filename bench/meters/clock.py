"""The clock of a load that runs again and again in one process, with nothing left of the round before."""

import resource
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from multiprocessing.connection import Connection
from statistics import median

import torch
from torch import Tensor, nn

from bench.meters.device import DeviceMeter
from bench.meters.host import file_backed, release_memory
from bench.meters.local_tensors import local_tensors
from bench.meters.process import Child, child_process, telling_failures
from model.verification.outside_judge import Judge
from model.verification.tensor_places import teller

# Methods that end a round: its model is judged in them.
FINISHING = ("begin_round", "finish_round")


class ModelKept(Exception):
    """The model of a round that was still alive when the next round was to begin."""


class LoadClock:
    """Times loads until their first logits, and checks the model of each."""

    def __init__(  # noqa: PLR0913 - four things that a round does, and two that it may do
        self,
        load: Callable[[torch.device], nn.Module],
        use: Callable[[nn.Module], object],
        check: Callable[..., object],
        meter: DeviceMeter,
        prepare: Callable[[], float | None] = lambda: None,
        *,
        asks_again: bool = True,
        outputs: Callable[[nn.Module], Sequence[Tensor]] = lambda _: (),
    ) -> None:
        self._load = load
        self._use = use
        self._check = check
        self._meter = meter
        self._prepare = prepare
        self._asks_again = asks_again
        self._outputs = outputs
        self._model: nn.Module | None = None
        self.roofline_bytes_per_second: list[float | None] = []
        self.minor_faults: list[int] = []
        self.major_faults: list[int] = []
        self.load_seconds: list[float] = []
        self.first_logits_seconds: list[float] = []
        self.forward_seconds: list[float] = []
        self.mapped: list[bool | None] = []

    def load_and_use(self) -> None:
        """Load, and use the model. It keeps the model: a returned one would stay alive in the next round."""
        before = resource.getrusage(resource.RUSAGE_SELF)
        start = time.perf_counter()
        self._model = self._load(self._meter.device)
        self._meter.synchronize()
        self.load_seconds.append(time.perf_counter() - start)
        self._use(self._model)
        self._meter.synchronize()
        self.first_logits_seconds.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_SELF)
        self.minor_faults.append(after.ru_minflt - before.ru_minflt)
        self.major_faults.append(after.ru_majflt - before.ru_majflt)

    def begin_round(self, *, told: bool = False) -> None:
        """Finish the round before, and prepare the machine for the next."""
        self.finish_round(told=told)
        self.roofline_bytes_per_second.append(self._prepare())

    def finish_round(self, *, told: bool = False) -> None:
        """Check the model of a round, time a forward pass alone, and delete the model.

        `told`: a judge outside has found its values right, and they are not compared again. Raises `ModelKept` if
        something else holds the model.
        """
        if self._model is not None:
            model = weakref.ref(self._model)
            self.mapped.append(is_mapped(self._model))
            try:
                self._check(self._model, told=True) if told else self._check(self._model)
                if self._asks_again and (self.mapped[-1] is not False or not self.forward_seconds):
                    self._time_forward(self._model)
            finally:
                self._model = None
            # A load in a fresh process finds neither freed memory nor a filled cache of the device's allocator.
            release_memory()
            if model() is not None or self._meter.held_bytes():
                raise ModelKept("leak: the strategy keeps the model of the previous round, or some of its memory")
        self._meter.start()

    def _time_forward(self, model: nn.Module) -> None:
        start = time.perf_counter()
        self._use(model)
        self._meter.synchronize()
        self.forward_seconds.append(time.perf_counter() - start)


def is_mapped(model: nn.Module) -> bool | None:
    """Return True if most bytes of a model on the host are pages of a file; None where the system does not tell."""
    tensors = [tensor for tensor in local_tensors(model) if tensor.device.type == "cpu"]
    try:
        backed = file_backed(tensor.data_ptr() for tensor in tensors)
    except OSError:
        return None
    mapped = sum(tensor.nbytes for tensor, in_file in zip(tensors, backed, strict=True) if in_file)
    return mapped > sum(tensor.nbytes for tensor in tensors) / 2


@dataclass(frozen=True)
class Readings:
    """The readings of a clock, an entry for each load; see `LoadClock`."""

    load_seconds: tuple[float, ...]
    first_logits_seconds: tuple[float, ...]
    forward_seconds: tuple[float, ...]
    roofline_bytes_per_second: tuple[float | None, ...]
    minor_faults: tuple[int, ...]
    major_faults: tuple[int, ...]
    mapped: tuple[bool | None, ...]

    @property
    def whole_load_seconds(self) -> list[float]:
        """Return the seconds of every load, with what its first forward pass takes longer than a later one.

        The first pass fetches weights that the load only mapped. Later passes vary by more than some loads take, so
        their median stands for all of them.
        """
        passes = zip(self.load_seconds, self.first_logits_seconds, self.forward_seconds, strict=True)
        fetch_seconds = median(first_logits - load - forward for load, first_logits, forward in passes)
        return [seconds + max(0.0, fetch_seconds) for seconds in self.load_seconds]


@dataclass(frozen=True)
class RemoteClock:
    """A `LoadClock` in a process of its own. Its methods raise `LoadDied` and `LoadFailed` beside.

    With a `judge` every model is held to what that says before it is dropped; `unjudged` has those that were not yet.
    """

    child: Child
    judge: Judge | None = None
    unjudged: list[None] = field(default_factory=list)

    def load_and_use(self) -> None:
        self.ask("load_and_use")

    def begin_round(self) -> None:
        self.ask("begin_round")

    def finish_round(self) -> None:
        self.ask("finish_round")

    def readings(self) -> Readings:
        return self.ask("")

    def ask(self, method: str) -> Readings:
        """Call a method of the clock, if one is named, and return its readings."""
        # If the process has ended, the answer tells how.
        with suppress(ConnectionError):
            self.child.connection.send((method, self.judge is not None))
        deadline = self.child.deadline()
        if method in FINISHING and self.unjudged:
            self.unjudged.clear()
            self.child.require_right(self.judge, Readings, deadline)
        if method == "load_and_use":
            self.unjudged.append(None)
        return self.child.receive(Readings, deadline)


@contextmanager
def remote_clock(
    make_clock: Callable[[], LoadClock], limit_seconds: float, judge: Judge | None = None
) -> Iterator[RemoteClock]:
    """A clock that is made, and times, in a process of its own; each of its methods may take `limit_seconds`."""
    with child_process(serve, make_clock, limit_seconds) as child:
        yield RemoteClock(child, judge)


def serve(connection: Connection, make_clock: Callable[[], LoadClock]) -> None:
    """Call the methods that are asked for until one fails or nobody asks, and send the readings after each."""
    # Held by this call: whatever methods a loader replaces, it is the model of the clock that is told of.
    tell, state_of = teller(connection.fileno()), LoadClock.__dict__["__dict__"].__get__
    with telling_failures(connection):
        clock = make_clock()
        while True:
            try:
                method, judged = connection.recv()
            except EOFError:
                return
            if method in FINISHING:
                state = state_of(clock)
                model = state["_model"]
                told = judged and model is not None and tell(model, state["_outputs"](model))
                del model
                getattr(clock, method)(told=told)
            elif method:
                getattr(clock, method)()
            connection.send(Readings(**{field.name: tuple(getattr(clock, field.name)) for field in fields(Readings)}))
