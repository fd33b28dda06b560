import threading
from collections.abc import Iterator

import pytest

from bench.meters.simulated.ledger import Ledger
from bench.strategies.streamed import streamed


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.enumerate()
    yield
    assert [thread for thread in threading.enumerate() if thread not in before] == []


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(streamed.__code__.co_filename)
