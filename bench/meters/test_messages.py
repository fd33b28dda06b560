"""Tests of what a load's process sends: whatever a loader writes there, the run goes on, and says what it was."""

import os
import struct
import time
from multiprocessing.connection import Connection

import pytest

from bench.meters.process import LoadDied, LoadFailed, child_process
from model.verification.tensor_places import PREFIX


def write(connection: Connection, content: bytes) -> None:
    os.write(connection.fileno(), content)
    time.sleep(60)


def message(content: bytes) -> bytes:
    return struct.pack("!i", len(content)) + content


@pytest.mark.parametrize(
    ("content", "error", "told"),
    [
        (b"\0\0\0", LoadDied, r"not done within 1 s$"),
        (message(b"x" * 9)[:7], LoadDied, r"not done within 1 s$"),
        (struct.pack("!i", -1), LoadFailed, r"a message of -1 bytes$"),
        (struct.pack("!i", 2**31 - 1), LoadFailed, r"a message of 2,147,483,647 bytes$"),
        (message(b"no pickle"), LoadFailed, r"what cannot be read: UnpicklingError$"),
        (message(b""), LoadFailed, r"what cannot be read: EOFError$"),
        (message(PREFIX + b"(\xff\xff\xff\x7f"), LoadFailed, r"what cannot be read: UnicodeDecodeError$"),
        (message(PREFIX + b"(" * 10_000), LoadFailed, r"what cannot be read: ValueError$"),
        (message(PREFIX + b"([('x',)], (), 0)"), LoadFailed, r"what cannot be read: ValueError$"),
    ],
)
def test_a_message_that_is_none_is_told_in_a_line(content: bytes, error: type[Exception], told: str) -> None:
    with child_process(write, content, 1.0) as child, pytest.raises(error, match=told):
        child.receive(int, child.deadline())
