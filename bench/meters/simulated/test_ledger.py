import gc
import time

import pytest
import torch

from bench.meters.allocations import AllocationEvent, SourceLine
from bench.meters.simulated.ledger import FILE, HOST, Ledger, MappedPages, Storage

HERE = __file__


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(HERE)


def tensor(size: int) -> torch.Tensor:
    return torch.empty(size, dtype=torch.uint8, device="meta")


def changes(ledger: Ledger) -> list[tuple[str, int]]:
    return [(event.place, event.bytes) for event in ledger.events]


def test_a_storage_is_alive_until_its_last_view_is_gone(ledger: Ledger) -> None:
    whole = tensor(1000)
    ledger.born(whole.untyped_storage(), "cuda:0")
    view = whole[500:]
    del whole
    assert ledger.place(view.untyped_storage()) == "cuda:0"
    assert changes(ledger) == [("cuda:0", 1000)]
    del view
    assert changes(ledger) == [("cuda:0", 1000), ("cuda:0", -1000)]
    assert ledger.held_bytes("cuda:0") == 0


def test_a_storage_that_dies_in_the_middle_of_an_expression_is_seen_to_go(ledger: Ledger) -> None:
    def entered(size: int) -> torch.Tensor:
        made = tensor(size)
        ledger.born(made.untyped_storage(), "cuda:0")
        return made

    assert (entered(10).shape, entered(20).shape) == ((10,), (20,))
    assert changes(ledger) == [("cuda:0", 10), ("cuda:0", -10), ("cuda:0", 20), ("cuda:0", -20)]


def test_a_storage_at_the_address_of_one_that_is_gone_is_another(ledger: Ledger) -> None:
    for size in range(1, 200):
        ledger.born(tensor(size).untyped_storage(), "cuda:0")
    assert len({event.storage for event in ledger.events}) == 199
    assert ledger.held_bytes("cuda:0") == 0


def test_storages_that_are_alive_have_addresses_apart(ledger: Ledger) -> None:
    storages = [tensor(size).untyped_storage() for size in (0, 100, 0, 50)]
    for storage in storages:
        ledger.born(storage, "cuda:0")
    addresses = [ledger.address(storage) or 0 for storage in storages]
    assert all(
        one + storage.nbytes() <= other for one, storage, other in zip(addresses, storages, addresses[1:], strict=False)
    )
    assert len(set(addresses)) == 4
    assert ledger.address(tensor(1).untyped_storage()) is None


def test_a_resized_storage_is_there_twice_while_it_is_copied(ledger: Ledger) -> None:
    storage = tensor(100).untyped_storage()
    ledger.born(storage, "cuda:0")
    storage.resize_(300)
    ledger.resized(storage)
    ledger.resized(storage)
    assert changes(ledger)[1:] == [("cuda:0", 300), ("cuda:0", -100)]
    storage.resize_(0)
    ledger.resized(storage)
    assert ledger.held_bytes("cuda:0") == 0
    storage.resize_(7)
    ledger.resized(storage)
    assert ledger.held_bytes("cuda:0") == 7


def test_what_was_there_before_the_start_counts_no_more(ledger: Ledger) -> None:
    before = tensor(100)
    ledger.born(before.untyped_storage(), "cuda:0")
    ledger.restart()
    assert ledger.place(before.untyped_storage()) == "cuda:0"
    del before
    assert ledger.events == []


def test_so_does_what_was_read_of_a_mapped_file_before(ledger: Ledger) -> None:
    mapping, storage = MappedPages([]), tensor(100).untyped_storage()
    ledger.mapped(storage, mapping)
    ledger.touched(storage, 0, 40)
    ledger.restart()
    ledger.touched(storage, 0, 100)
    assert changes(ledger) == [(FILE, 60)]
    ledger.unmapped(mapping.touched)
    assert changes(ledger) == [(FILE, 60), (FILE, -60)]


def test_places_are_kept_apart(ledger: Ledger) -> None:
    one, other = tensor(100), tensor(200)
    ledger.born(one.untyped_storage(), "cuda:0")
    ledger.born(other.untyped_storage(), HOST)
    assert (ledger.held_bytes("cuda:0"), ledger.held_bytes(HOST), ledger.held_bytes("cuda:1")) == (100, 200, 0)


def test_a_mapped_storage_counts_from_when_it_is_read_until_the_whole_file_is_unmapped(ledger: Ledger) -> None:
    mapping = MappedPages([])
    read, unread = tensor(100).untyped_storage(), tensor(200).untyped_storage()
    ledger.mapped(read, mapping)
    ledger.mapped(unread, mapping)
    assert ledger.events == []
    ledger.touched(read, 0, 60)
    ledger.touched(read, 20, 60)
    ledger.touched(read, 80, 90)
    assert changes(ledger) == [(FILE, 60), (FILE, 10)]
    ledger.touched(read, 0, 100)
    ledger.touched(read, 0, 100)
    del read
    assert changes(ledger)[2:] == [(FILE, 30)]
    ledger.unmapped(mapping.touched)
    assert ledger.held_bytes(FILE) == 0


def test_a_storage_without_bytes_asks_for_nothing(ledger: Ledger) -> None:
    storage: Storage | None = tensor(0).untyped_storage()
    ledger.born(storage, "cuda:0")  # type: ignore[arg-type]
    del storage
    gc.collect()
    assert ledger.events == []


def test_the_line_is_the_innermost_of_the_recipe(ledger: Ledger) -> None:
    storage = tensor(1).untyped_storage()
    first = test_the_line_is_the_innermost_of_the_recipe.__code__.co_firstlineno
    ledger.born(storage, "cuda:0")
    [event] = ledger.events
    assert event._replace(seconds=0.0) == AllocationEvent("cuda:0", 1, 1, SourceLine(HERE, first + 3))
    elsewhere = Ledger("another.py")
    elsewhere.born(storage, "cuda:0")
    assert elsewhere.events[0].line is None


def test_every_event_has_its_time(ledger: Ledger) -> None:
    began = time.monotonic()
    storage = tensor(1).untyped_storage()
    ledger.born(storage, "cuda:0")
    ledger.cache_emptied("cuda:0")
    del storage
    seconds = [began, *(event.seconds for event in ledger.events), time.monotonic()]
    assert len(seconds) == 5
    assert seconds == sorted(seconds)
