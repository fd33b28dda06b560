"""Tests of the bytes of a file that are those of a shard."""

from collections.abc import Iterator
from math import prod
from multiprocessing.connection import Connection

import pytest
import torch
from hypothesis import given, strategies
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import RowwiseParallel, parallelize_module
from torch.testing._internal.distributed.fake_pg import FakeStore

from bench.meters.process import child_process, telling_failures
from bench.strategies.reading.shards import batches, is_replicated, local, materialize, part, runs

LIMIT_SECONDS = 60.0


@pytest.fixture(autouse=True)
def no_group_is_left() -> Iterator[None]:
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


@strategies.composite
def parts(draw: strategies.DrawFn) -> tuple[tuple[int, ...], tuple[slice, ...]]:
    """A shape, and a part of it."""
    shape = tuple(draw(strategies.lists(strategies.integers(0, 5), max_size=4)))
    starts = [draw(strategies.integers(0, size)) for size in shape]
    return shape, tuple(slice(at, draw(strategies.integers(at, size))) for at, size in zip(starts, shape, strict=True))


@given(parts(), strategies.sampled_from([torch.uint8, torch.int16, torch.float32, torch.complex128]))
def test_the_bytes_are_those_of_the_part_in_its_order(
    drawn: tuple[tuple[int, ...], tuple[slice, ...]], dtype: torch.dtype
) -> None:
    shape, slices = drawn
    whole = torch.arange(prod(shape) * dtype.itemsize).to(torch.uint8)
    wanted = whole.view(dtype).view(shape)[slices].contiguous().reshape(-1).view(torch.uint8)
    found = [value for start, end in runs(shape, slices, dtype.itemsize) for value in whole[start:end].tolist()]
    assert found == wanted.tolist()


def test_what_lies_together_is_read_at_once() -> None:
    assert list(runs((6, 5), (slice(2, 4), slice(0, 5)), 4)) == [(40, 80)]
    assert list(runs((6, 5), (slice(0, 2), slice(1, 3)), 4)) == [(4, 12), (24, 32)]
    assert list(runs((6, 5), (slice(0, 6), slice(0, 5)), 4)) == [(0, 120)]


@given(
    strategies.lists(strategies.tuples(strategies.integers(0, 99), strategies.integers(0, 30))),
    strategies.integers(1, 40),
)
def test_batches_have_all_bytes_in_order_and_one_size(spans: list[tuple[int, int]], step: int) -> None:
    ranges = [(start, start + size) for start, size in spans]
    found = list(batches(ranges, step))
    every = [byte for start, end in ranges for byte in range(start, end)]
    assert [byte for batch in found for start, end in batch for byte in range(start, end)] == every
    sizes = [sum(end - start for start, end in batch) for batch in found]
    assert all(size == step for size in sizes[:-1])
    assert all(0 < size <= step for size in sizes[-1:])
    assert sum(sizes) == len(every)


class Tied(nn.Module):
    """Sizes that three ranks do not divide, a parameter of two names, and a buffer."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 7)
        self.second = nn.Linear(3, 7, bias=False)
        self.second.weight = self.first.weight
        self.register_buffer("mask", torch.zeros(4, dtype=torch.int64))


def divided(rank: int, ranks: int) -> Tied:
    distributed.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
    with torch.device("meta"):
        model = Tied()
    fully_shard(model, mesh=init_device_mesh("cpu", (ranks,)))
    return model


def tell_rows(connection: Connection, place: tuple[int, int]) -> None:
    """In a rank: which rows of a weight are its own."""
    with telling_failures(connection):
        weight = divided(*place).first.weight
        rows, columns = part(weight)
        assert local(weight).shape == (rows.stop - rows.start, 3)
        assert columns == slice(0, 3)
        connection.send(range(rows.start, rows.stop))


@pytest.mark.parametrize("ranks", [2, 9])
def test_the_parts_of_all_ranks_are_the_whole(ranks: int) -> None:
    """Each in a process of its own: PyTorch keeps what it was told of a mesh."""
    found: list[int] = []
    for rank in range(ranks):
        with child_process(tell_rows, (rank, ranks), LIMIT_SECONDS) as child:
            found += child.receive(range, child.deadline())
    assert found == list(range(7))


def test_what_is_made_keeps_ties_and_is_where_it_was_asked_for() -> None:
    model = divided(1, 2)
    materialize(model, torch.device("cpu"))
    assert model.first.weight is model.second.weight
    assert not is_replicated(model.first.weight)
    assert model.first.weight.requires_grad
    assert is_replicated(model.mask)
    assert part(model.mask) == (slice(0, 4),)
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"cpu"}


def test_a_part_may_be_of_columns_and_a_distributed_tensor_whole() -> None:
    distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    with torch.device("meta"):
        model = nn.Linear(7, 3)
    parallelize_module(model, init_device_mesh("cpu", (2,)), RowwiseParallel(), src_data_rank=None)
    assert part(model.weight) == (slice(0, 3), slice(4, 7))
    assert local(model.weight).shape == (3, 3)
    assert not is_replicated(model.weight)
    assert isinstance(model.bias, DTensor)
    assert is_replicated(model.bias)
    assert part(model.bias) == (slice(0, 3),)
    assert not isinstance(local(model.bias), DTensor)
