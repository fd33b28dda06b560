"""The card: a process that owns the memory of the devices, counts what is used of it, and computes in it.

It serves two kinds of connections on one socket: of the library (`native/connection.c`), with messages of fixed size,
and of `card_kernels.py`, with pickled messages. It ends when its standard input is closed, by the process that started
it. Its memory is in files without a name, so nothing is left behind.
"""

import ctypes
import json
import mmap
import os
import pickle
import re
import socket
import struct
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection, Listener

import psutil
import torch

from bench.meters.driver.computing import compute
from bench.meters.driver.sent import Computation, SentTensor, SentValues, replaced

# As in `native/stand_in.h` and `native/connection.c`.
MOST_DEVICES = 8
MOST_BYTES = 2**40
HELLO, TAKE, GIVE_BACK, FILL, DROP, HOLDERS = range(6)
DONE, DEVICE_IS_FULL, MACHINE_IS_FULL = range(3)
_REQUEST = struct.Struct("=4q")
_FACTS = struct.Struct(f"={9 + MOST_DEVICES}q")
_ANSWER = struct.Struct("=q")
_HOLDER = struct.Struct("=2q")
_CREDENTIALS = struct.Struct("3i")

# Memory of the machine that stays free for others.
SPARE_BYTES = 512 * 2**20
# Memory that nobody wrote to is not zero: floating-point numbers are NaN.
UNWRITTEN = 0xFF
LEVELS_BYTES = 4096
READY = b"ready\n"


@dataclass(frozen=True)
class CardSettings:
    """The devices of a card: bytes of memory of each, and how they behave.

    `late`: asynchronous copies are done when somebody waits for them. `discards`: no byte is kept, and nothing
    computed, so that devices may be larger than this machine's memory. A context takes `context_bytes` of its device,
    and `context_host_bytes` of its process.
    """

    memory_bytes: tuple[int, ...]
    late: bool = True
    discards: bool = False
    context_bytes: int = 512 * 2**20
    context_host_bytes: int = 64 * 2**20

    @property
    def device_span(self) -> int:
        """Number of addresses of a device: each expandable segment, two a stream, reserves 9/8 of its memory.

        The card maps those of all devices for each process: for one a device, and some more.
        """
        devices = len(self.memory_bytes)
        return max(4 * max(self.memory_bytes), min(2**41, 2**45 // devices**2))


@dataclass
class _Process:
    """A process that uses the devices: its memory of all of them, and how many bytes of each it has."""

    pid: int
    file: int
    memory: torch.Tensor
    used: dict[int, int] = field(default_factory=lambda: defaultdict(int))


class Card:
    """Serves processes, each connection in a thread."""

    def __init__(self, settings: CardSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._processes: dict[int, _Process] = {}
        self._levels_file = os.memfd_create("levels")
        os.truncate(self._levels_file, LEVELS_BYTES)
        # The used bytes of each device: other processes read them here, without a request.
        self._levels = mmap.mmap(self._levels_file, LEVELS_BYTES)

    def serve(self, listener: Listener) -> None:
        """Accept connections, for as long as this process lives."""
        while True:
            with suppress(OSError, EOFError):
                connection = listener.accept()
                threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: Connection) -> None:
        # Whatever is sent, others go on.
        with suppress(Exception), connection:
            if not _is_of_this_user(connection):
                return
            first = connection.recv_bytes()
            if len(first) == _REQUEST.size:
                self._serve_library(connection, first)
            else:
                self._serve_kernels(connection, pickle.loads(first))  # noqa: S301 - of this user

    # ---- Memory.

    def _serve_library(self, connection: Connection, hello: bytes) -> None:
        kind, _, pid, _ = _REQUEST.unpack(hello)
        if kind != HELLO:
            return
        with self._process(pid) as process:
            connection.send_bytes(self._facts(process))
            while True:
                kind, device, at, count = _REQUEST.unpack(connection.recv_bytes())
                if kind == HOLDERS:
                    connection.send_bytes(self._holders(device)[: count * _HOLDER.size])
                else:
                    connection.send_bytes(_ANSWER.pack(self._changed(process, kind, device, at, count)))

    @contextmanager
    def _process(self, pid: int) -> Iterator[_Process]:
        """Yield a process; its memory is freed when it ends."""
        span = self._settings.device_span * len(self._settings.memory_bytes)
        file = os.memfd_create("device")
        os.truncate(file, span)
        memory = torch.frombuffer(mmap.mmap(file, span), dtype=torch.uint8)
        process = self._processes[pid] = _Process(pid, file, memory)
        try:
            yield process
        finally:
            with self._lock:
                if self._processes.get(pid) is process:
                    del self._processes[pid]
                for device, count in process.used.items():
                    self._count(process, device, -count)
            os.close(file)

    def _facts(self, process: _Process) -> bytes:
        settings = self._settings
        memory = [*settings.memory_bytes, *[0] * (MOST_DEVICES - len(settings.memory_bytes))]
        return _FACTS.pack(
            *(os.getpid(), process.file, self._levels_file, len(settings.memory_bytes)),
            *(settings.late, settings.discards, settings.context_bytes, settings.context_host_bytes),
            settings.device_span,
            *memory,
        )

    def _changed(self, process: _Process, kind: int, device: int, at: int, count: int) -> int:
        if kind == FILL:
            return self._fill(process, at, count)
        if kind == DROP:
            _drop(process.file, at, count)
            return DONE
        with self._lock:
            if kind == TAKE and self._used(device) + count > self._settings.memory_bytes[device]:
                return DEVICE_IS_FULL
            self._count(process, device, count if kind == TAKE else -count)
        return DONE

    def _used(self, device: int) -> int:
        return int(_ANSWER.unpack_from(self._levels, device * _ANSWER.size)[0])

    def _count(self, process: _Process, device: int, count: int) -> None:
        process.used[device] += count
        _ANSWER.pack_into(self._levels, device * _ANSWER.size, self._used(device) + count)

    def _fill(self, process: _Process, at: int, count: int) -> int:
        """Make the pages here: a memory cgroup of the process that asks is not charged for them."""
        if psutil.virtual_memory().available < count + SPARE_BYTES:
            return MACHINE_IS_FULL
        process.memory[at : at + count].fill_(UNWRITTEN)
        return DONE

    def _holders(self, device: int) -> bytes:
        with self._lock:
            holders = [(one.pid, one.used[device]) for one in self._processes.values()]
        return b"".join(_HOLDER.pack(pid, count) for pid, count in holders if count)

    # ---- Values.

    def _serve_kernels(self, connection: Connection, pid: int) -> None:
        connection.send_bytes(pickle.dumps(self._settings.discards))
        memory = self._processes[pid].memory
        while True:
            one = pickle.loads(connection.recv_bytes())  # noqa: S301 - of this user
            try:
                answer: tuple[bool, object] = True, _computed(one, memory)
            except Exception as error:  # noqa: BLE001 - whatever it is, who asked is to be told
                sentence, *_ = re.split(r"[.]\s|\n", str(error))
                answer = False, f"{type(error).__name__}: {sentence}"
            connection.send_bytes(pickle.dumps(answer))


def _computed(one: Computation, memory: torch.Tensor) -> object:
    """Compute `one` in the memory of a process."""

    def placed(one: SentTensor | SentValues) -> torch.Tensor:
        return one.tensor(memory) if isinstance(one, SentTensor) else one.tensor()

    args, kwargs, results = (
        replaced(part, (SentTensor, SentValues), placed) for part in (one.args, one.kwargs, one.results)
    )
    with torch.no_grad():
        computed = compute(Computation(one.name, one.overload, args, kwargs, results, one.seed))
    return replaced(computed, torch.Tensor, SentValues.of)


def _drop(file: int, at: int, count: int) -> None:
    """Give pages back to the system: Python has no `fallocate` that makes holes."""
    keep_size, punch_hole = 1, 2
    place = ctypes.c_int64(at), ctypes.c_int64(count)
    ctypes.CDLL(None).fallocate(file, keep_size | punch_hole, *place)


def _is_of_this_user(connection: Connection) -> bool:
    with socket.socket(fileno=os.dup(connection.fileno())) as other_end:
        credentials = other_end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return bool(_CREDENTIALS.unpack(credentials)[1] == os.getuid())


def main() -> None:
    """Serve until standard input ends: `python -m bench.meters.driver.card NAME SETTINGS`."""
    name, settings = sys.argv[1:]
    loaded = json.loads(settings)
    card = Card(CardSettings(**(loaded | {"memory_bytes": tuple(loaded["memory_bytes"])})))
    listener = Listener(f"\0{name}", family="AF_UNIX", backlog=128)
    threading.Thread(target=card.serve, args=(listener,), daemon=True).start()
    with suppress(BrokenPipeError):
        sys.stdout.buffer.write(READY)
        sys.stdout.flush()
    sys.stdin.buffer.read()
    # Threads that compute are not waited for.
    os._exit(0)


def as_text(settings: CardSettings) -> str:
    """Return settings as `main` takes them."""
    return json.dumps(asdict(settings))


if __name__ == "__main__":
    main()
