"""Requests that a simulated device refuses, and the state after it is gone."""

import io
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.simulated.conftest import CUDA, DEVICE, numbers
from bench.meters.simulated.ledger import Ledger, in_place
from bench.meters.simulated.peaks import device_peaks
from bench.meters.simulated.simulated_device import NotSimulated, SimulatedDevice
from bench.meters.simulated.simulation import simulation

READS: dict[str, Callable[[Tensor], object]] = {
    "item": lambda tensor: tensor[0].item(),
    "float": lambda tensor: float(tensor[0]),
    "int": lambda tensor: int(tensor[0]),
    "bool": lambda tensor: bool(tensor.any()),
    "branch": lambda tensor: 1 if (tensor > 0).all() else 2,
    "print": lambda tensor: print(tensor, file=io.StringIO()),
    "format": lambda tensor: f"{tensor}",
    "format of one": lambda tensor: f"{tensor[0]:.3f}",
    "tolist": lambda tensor: tensor.tolist(),
    "cpu": lambda tensor: tensor.cpu(),
    "to": lambda tensor: tensor.to("cpu"),
    "to dtype": lambda tensor: tensor.to("cpu", torch.float64),
    "equal": lambda tensor: torch.equal(tensor, tensor),
    "allclose": lambda tensor: torch.allclose(tensor, tensor),
    "nonzero": lambda tensor: tensor.nonzero(),
    "mask": lambda tensor: tensor[tensor > 0],
    "unique": lambda tensor: tensor.unique(),
    "copy": lambda tensor: torch.ones(10).copy_(tensor),
    "storage": lambda tensor: tensor.untyped_storage().tolist(),
    "typed storage": lambda tensor: tensor._typed_storage()._untyped_storage[0],
    "storage copy": lambda tensor: torch.UntypedStorage(40, device="cpu").copy_(tensor.untyped_storage()),
    "addition": lambda tensor: torch.ones(10).add_(tensor),
    "pickle": pickle.dumps,
    "save": lambda tensor: torch.save({"weight": tensor}, io.BytesIO()),
}


# In a plan the host has no values to put them beside.
UNPLANNED = ("storage copy",)


@pytest.mark.parametrize("read", READS)
def test_values_cannot_be_read_back_and_the_line_is_named(world: SimulatedDevice, read: str) -> None:
    if world.planned and read in UNPLANNED:
        pytest.skip("a plan's host has no values either")
    tensor = numbers(10).to(CUDA)
    with pytest.raises(NotSimulated) as caught:
        READS[read](tensor)
    message = str(caught.value)
    assert message.startswith("test_simulation.py:")
    assert "reads values" in message
    assert ("leave out --plan" if world.planned else "use --device cpu or cuda") in message
    assert "\n" not in message


def test_the_hosts_values_can_be_read() -> None:
    with simulation(Ledger(__file__), planned=False):
        tensor = torch.arange(10)
        assert tensor.sum().item() == 45
        assert "9" in repr(tensor)
        assert torch.equal(tensor, tensor.clone())
        assert tensor.numpy if hasattr(tensor, "numpy") else True
        assert pickle.loads(pickle.dumps(tensor)).tolist() == list(range(10))  # noqa: S301


@pytest.mark.parametrize(
    "read",
    [
        lambda: torch.arange(10).sum().item(),
        lambda: torch.save(torch.arange(10), io.BytesIO()),
        lambda: torch.serialization.save(torch.arange(10), io.BytesIO()),
        lambda: pickle.dumps(torch.arange(10)),
    ],
)
def test_a_plans_host_has_no_values_to_read_or_write(read: Callable[[], object]) -> None:
    with simulation(Ledger(__file__), planned=True), pytest.raises(NotSimulated, match="leave out --plan"):
        read()


def test_addresses_tell_storages_apart(world: SimulatedDevice) -> None:
    one, other = numbers(10, device=CUDA), numbers(10, device=CUDA)
    assert one.data_ptr() == one.view(5, 2).data_ptr() == one.untyped_storage().data_ptr() != 0
    assert one[3:].data_ptr() == one.data_ptr() + 12
    assert len({one.data_ptr(), other.data_ptr()}) == 2


def test_everything_is_as_before_when_it_ends(planned: bool, checkpoint: Path) -> None:
    replaced = [
        *((torch.UntypedStorage, name) for name in ("data_ptr", "resize_", "from_file")),
        *((torch.serialization, name) for name in ("_get_restore_location", "default_restore_location")),
        *((torch.cuda, name) for name in ("synchronize", "empty_cache", "Stream", "current_stream")),
        *((torch.Tensor, "record_stream"), (torch, "Event"), (torch.cuda.Stream, "__new__")),
        *((torch.UntypedStorage, name) for name in ("is_pinned", "pin_memory")),
        (threading.Thread, "start"),
    ]
    before = [getattr(owner, name) for owner, name in replaced]

    def fail() -> None:
        assert all(getattr(owner, name) is not there for (owner, name), there in zip(replaced, before, strict=True))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), simulation(Ledger(__file__), planned=planned):
        fail()
    assert [getattr(owner, name) for owner, name in replaced] == before
    assert torch.UntypedStorage(8).device.type == "cpu"
    loaded = torch.load(checkpoint, weights_only=True)
    assert loaded["half"].sum().item() == sum(range(50, 100))


def test_an_emptied_cache_gives_back_what_is_reserved(world: SimulatedDevice) -> None:
    for count in (2**23, 2**24):
        numbers(count, device=CUDA)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    peaks = device_peaks(in_place(world.ledger.events, DEVICE), AllocatorSettings())
    assert peaks["reserved"].bytes == 2**26
