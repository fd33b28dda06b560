"""Messages of a load's process, read within a time limit, whatever a loader has sent in their place."""

import os
import struct
import time
from multiprocessing.connection import Connection, wait

# The largest message of a load's process: a trace has some hundred bytes for every tensor.
MOST_MESSAGE_BYTES = 2**28


def received(connection: Connection, sentinel: int, deadline: float) -> bytes:
    """Return the next message, as `Connection.send_bytes` wrote it.

    `sentinel` is that of the process that writes. Raises `TimeoutError` at the deadline, on the monotonic clock,
    `EOFError` or `ConnectionResetError` when nobody writes any more, and `ValueError` for a length that none has.
    """
    (size,) = struct.unpack("!i", _bytes(connection, sentinel, 4, deadline))
    if not 0 <= size <= MOST_MESSAGE_BYTES:
        raise ValueError(f"a message of {size:,} bytes")
    return _bytes(connection, sentinel, size, deadline)


def _bytes(connection: Connection, sentinel: int, count: int, deadline: float) -> bytes:
    found = bytearray()
    while len(found) < count:
        # A process that the load has started may hold the other end of the connection when the load has died.
        ready = wait([connection, sentinel], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        part = os.read(connection.fileno(), count - len(found)) if connection in ready else b""
        if not part:
            raise EOFError
        found += part
    return bytes(found)
