"""Copies on the stand-in are done when something waits for them.

These tests run on the stand-in, in a process that `test_stand_in.py` starts: elsewhere they are skipped.
"""

import os
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.meters.driver.variables import CARD

pytestmark = pytest.mark.skipif(CARD not in os.environ, reason="runs on the stand-in for a GPU, see test_stand_in.py")


class Copied:
    """A copy from page-locked memory on a stream of its own, and what may be waited for."""

    def __init__(self, source: Tensor) -> None:
        self.source = source
        self.stream: torch.cuda.Stream = torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(self.stream):
            self.copy = source.to("cuda", non_blocking=True)
            self.event = self.stream.record_event()

    def sum_once_reused(self) -> float:
        """Return the sum of the copy if its source is written to by now."""
        self.source.zero_()
        torch.cuda.synchronize()
        return self.copy.sum().item()


def wait_by_stream(copied: Copied) -> None:
    torch.cuda.current_stream().wait_event(copied.event)


def wait_for_stream_that_waits(copied: Copied) -> None:
    wait_by_stream(copied)
    torch.cuda.current_stream().synchronize()


WAITS: dict[str, tuple[Callable[[Copied], object], bool]] = {
    "nothing": (lambda copied: None, False),
    "the stream": (lambda copied: copied.stream.synchronize(), True),
    "the device": (lambda copied: torch.cuda.synchronize(), True),
    "the event": (lambda copied: copied.event.synchronize(), True),
    # A stream that waits makes no host wait.
    "another stream": (wait_by_stream, False),
    "a stream that waits": (wait_for_stream_that_waits, True),
    "a question": (lambda copied: copied.event.query(), False),
    "two questions": (lambda copied: (copied.event.query(), copied.event.query()), True),
    "another device": (lambda copied: torch.cuda.synchronize("cuda:1"), False),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_copy_is_done_when_somebody_waits_for_it(name: str) -> None:
    copied = Copied(torch.ones(1000).pin_memory())
    wait, waits = WAITS[name]
    wait(copied)
    assert copied.sum_once_reused() == (1000 if waits else 0)


def test_an_event_is_there_by_the_second_question() -> None:
    copied = Copied(torch.ones(1000).pin_memory())
    assert [copied.event.query() for _ in range(3)] == [False, True, True]


def test_memory_that_is_not_page_locked_is_read_at_once() -> None:
    assert Copied(torch.ones(1000)).sum_once_reused() == 1000


def test_a_kernel_comes_after_what_its_stream_was_asked_for() -> None:
    source = torch.arange(5.0).pin_memory()
    assert (source.to("cuda", non_blocking=True) * 2).tolist() == [0, 2, 4, 6, 8]
