"""Page-locked memory: what counts as PyTorch's allocator counts it, and what a recipe does with it."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.meters.simulated.conftest import CUDA, numbers, peak
from bench.meters.simulated.ledger import FILE, HOST, PINNED, Ledger, in_place
from bench.meters.simulated.peaks import host_held, host_peak
from bench.meters.simulated.simulated_device import NotSimulated, SimulatedDevice
from bench.meters.simulated.simulation import simulation

MIB = 2**20

STATUS = Path("/proc/self/status")

MAKERS: dict[str, Callable[[], Tensor]] = {
    "empty": lambda: torch.empty(10, pin_memory=True),
    "zeros": lambda: torch.zeros(2, 5, pin_memory=True),
    "ones": lambda: torch.ones(10, pin_memory=True, device="cpu"),
    "tensor": lambda: torch.tensor([1.0] * 10, pin_memory=True),
    "arange": lambda: torch.arange(10, dtype=torch.float32, pin_memory=True),
    "empty_like": lambda: torch.empty_like(numbers(10), pin_memory=True),
    "zeros_like": lambda: torch.zeros_like(numbers(10), pin_memory=True),
    "new_empty": lambda: numbers(3).new_empty(10, pin_memory=True),
    "new_tensor": lambda: numbers(3).new_tensor([1.0] * 10, pin_memory=True),
    "empty_strided": lambda: torch.empty_strided((5, 2), (1, 5), pin_memory=True),
    "pin_memory": lambda: numbers(10).pin_memory(),
    "pin_memory for a device": lambda: numbers(10).pin_memory("cuda"),
    "pin_memory of a view": lambda: numbers(20).narrow(0, 5, 10).pin_memory(),
    "pin_memory of an order": lambda: numbers(10).view(2, 5).t().pin_memory(),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_tensor_can_be_pinned_from_the_start(world: SimulatedDevice, maker: str) -> None:
    tensor = MAKERS[maker]()
    assert tensor.is_pinned()
    assert tensor[:1].is_pinned()
    assert tensor.untyped_storage().is_pinned()
    assert (tensor.device.type, tensor.is_cpu, tensor.numel()) == ("cpu", True, 10)
    assert world.ledger.held_bytes(PINNED) == peak(world, PINNED) == 40
    assert tensor.pin_memory() is tensor
    if not world.planned and "empty" not in maker:
        first = {"zeros": 0.0, "zeros_like": 0.0, "arange": 0.0}.get(maker, 1.0)
        assert (tensor.flatten()[0].item(), tensor.flatten()[9].item()) == (first, 9.0 if maker == "arange" else first)
    del tensor
    assert world.ledger.held_bytes(PINNED) == 0


def test_a_plan_makes_nothing_on_the_way_to_page_locked_memory() -> None:
    with simulation(Ledger(__file__), planned=True) as world:
        tensors = [make() for name, make in MAKERS.items() if "_like" not in name and "pin_" not in name]
        assert len(tensors) == 8
        assert peak(world, HOST) == 12


def test_it_starts_with_a_page(world: SimulatedDevice) -> None:
    tensors = [torch.empty(5, dtype=torch.uint8, pin_memory=True) for _ in range(3)]
    assert {tensor.data_ptr() % 4096 for tensor in tensors} == {0}
    assert len({tensor.data_ptr() for tensor in tensors}) == 3


def test_strides_and_gradients_are_kept(world: SimulatedDevice) -> None:
    assert numbers(10).view(2, 5).t().pin_memory().stride() == (1, 5)
    assert torch.zeros(3, pin_memory=True, requires_grad=True).requires_grad
    assert torch.empty(2, 3, 4, 5, memory_format=torch.channels_last, pin_memory=True).stride()[1] == 1


def test_a_storage_can_be_pinned(world: SimulatedDevice) -> None:
    storage = numbers(10).untyped_storage()
    assert not storage.is_pinned()
    locked = storage.pin_memory()
    assert locked.is_pinned()
    assert locked.nbytes() == world.ledger.held_bytes(PINNED) == 40
    assert locked.pin_memory().data_ptr() == locked.data_ptr()
    if not world.planned:
        assert torch.empty(0).set_(locked).tolist() == [1.0] * 10


def test_what_is_not_asked_to_be_pinned_is_not(world: SimulatedDevice) -> None:
    locked = numbers(10, pin_memory=True)
    plain = [
        *(numbers(10), torch.empty(10, pin_memory=False), torch.empty(0, pin_memory=True)),
        *(locked.clone(), locked + 1, locked.half(), locked.to("cpu", copy=True), torch.empty_like(locked)),
        *(locked.new_tensor([1.0]), torch.empty(0).set_(locked.untyped_storage().clone())),
        numbers(10, device=CUDA),
    ]
    assert not any(tensor.is_pinned() for tensor in plain)
    assert {tensor.device.type for tensor in plain[:-1]} == {"cpu"}
    assert torch.empty(0, 5, pin_memory=True).shape == (0, 5)
    assert world.ledger.held_bytes(PINNED) == 40


def test_what_needs_no_copy_stays_pinned(world: SimulatedDevice) -> None:
    locked = numbers(10, pin_memory=True)
    kept = [locked.to("cpu"), locked.cpu(), locked.float(), torch.as_tensor(locked), locked.view(2, 5), locked.detach()]
    assert all(tensor.is_pinned() for tensor in kept)
    assert locked.untyped_storage().to(device="cpu").is_pinned()
    assert world.ledger.held_bytes(PINNED) == 40
    assert world.ledger.held_bytes(HOST) == 0


@pytest.mark.parametrize("device", ["cuda", "meta"])
def test_only_what_is_on_the_host_can_be_pinned(world: SimulatedDevice, device: str) -> None:
    tensor = torch.empty(10, device=device)
    asked: list[Callable[[], object]] = [
        lambda: torch.empty(10, device=device, pin_memory=True),
        lambda: torch.empty_like(tensor, pin_memory=True),
        tensor.pin_memory,
    ]
    for ask in asked:
        with pytest.raises(RuntimeError, match="nly dense CPU tensors can be pinned"):
            ask()
    with torch.device(device), pytest.raises(RuntimeError, match="can be pinned"):
        torch.empty(10, pin_memory=True)
    torch.set_default_device(device)
    try:
        with pytest.raises(RuntimeError, match="can be pinned"):
            torch.empty(10, pin_memory=True)
    finally:
        torch.set_default_device(None)
    with pytest.raises(TypeError, match="only CPU memory can be pinned"):
        tensor.untyped_storage().pin_memory()


@pytest.mark.parametrize(
    ("dtype", "non_blocking", "on_device", "on_host"),
    # A conversion is the host's work, unless the copy is not waited for: then what was pinned goes over as it is.
    [(torch.float32, True, 0, 0), (torch.bfloat16, False, 0, 200), (torch.bfloat16, True, 400, 0)],
)
def test_page_locked_memory_is_copied_to_the_device(
    world: SimulatedDevice, dtype: torch.dtype, non_blocking: bool, on_device: int, on_host: int
) -> None:
    ring, destination = (
        torch.empty(1000, dtype=torch.uint8, pin_memory=True),
        torch.empty(100, dtype=dtype, device=CUDA),
    )
    world.ledger.restart()
    destination.copy_(ring[200:600].view(torch.float32), non_blocking=non_blocking)
    assert (peak(world), peak(world, PINNED)) == (on_device, 0)
    # What is real is not the ledger's to count.
    assert peak(world, HOST) == (on_host if world.planned else 0)
    assert ring[:400].view(torch.float32).to(CUDA, non_blocking=True).is_cuda


def test_a_mapped_file_is_read_into_page_locked_memory(checkpoint: Path, world: SimulatedDevice) -> None:
    mapped = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    ring = torch.empty(10, pin_memory=True)
    ring.copy_(mapped["own"])
    assert peak(world, FILE) == 40
    assert mapped["half"].pin_memory().is_pinned()
    assert peak(world, FILE) == 240
    assert peak(world, HOST) == 0
    assert peak(world, PINNED) == 240


def test_values_cannot_be_read_back_into_page_locked_memory(world: SimulatedDevice) -> None:
    ring, tensor = torch.empty(10, pin_memory=True), numbers(10, device=CUDA)
    with pytest.raises(NotSimulated, match="reads values"):
        ring.copy_(tensor, non_blocking=True)


def resident() -> int:
    if not STATUS.exists():
        pytest.skip("needs Linux's /proc")
    [line] = [line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def test_it_is_resident_from_the_start_until_the_cache_is_emptied(planned: bool) -> None:
    with simulation(Ledger(__file__), planned=planned) as world:
        before = resident()
        ring = torch.empty(40 * MIB, dtype=torch.uint8, pin_memory=True)
        address = ring.fill_(1).data_ptr()
        assert address % 4096 == 0
        expected = 0 if planned else 64 * MIB
        assert resident() - before == pytest.approx(expected, abs=2 * MIB)
        del ring
        assert resident() - before == pytest.approx(expected, abs=2 * MIB)
        again = torch.zeros(33 * MIB, dtype=torch.uint8, pin_memory=True)
        assert (again.data_ptr() == address) is not planned
        assert resident() - before == pytest.approx(expected, abs=2 * MIB)
        assert planned or not again.any()
        del again
        torch._C._host_emptyCache()
        gc.collect()
        assert resident() - before < 2 * MIB
        assert host_held(in_place(world.ledger.events, HOST, PINNED)) == 0


def test_no_other_memory_is_taken_to_make_zeros() -> None:
    with simulation(Ledger(__file__), planned=False) as world:
        torch.zeros(40 * MIB, dtype=torch.uint8, pin_memory=True)
        torch.empty(40 * MIB, dtype=torch.uint8, pin_memory=True)
        assert peak(world, HOST) == 0


@pytest.mark.parametrize(
    "empty",
    [
        lambda: torch._C._host_emptyCache(),  # noqa: PLW0108 - it is another one while CUDA is simulated
        pytest.param(
            lambda: torch.accelerator.empty_host_cache(),  # noqa: PLW0108 - 2.10 has none
            marks=pytest.mark.skipif(not hasattr(torch.accelerator, "empty_host_cache"), reason="torch 2.10 has none"),
        ),
    ],
)
def test_statistics_are_told_as_on_cuda(world: SimulatedDevice, empty: Callable[[], None]) -> None:
    ring = torch.empty(5, dtype=torch.uint8, pin_memory=True)
    other = torch.empty(100, dtype=torch.uint8, pin_memory=True)
    del other
    stats = torch.cuda.host_memory_stats()
    assert (stats["allocated_bytes.current"], stats["active_bytes.current"]) == (136, 8)
    assert torch.cuda.memory.host_memory_stats() == stats
    empty()
    stats = torch.cuda.host_memory_stats()
    assert (stats["allocated_bytes.current"], stats["allocated_bytes.peak"]) == (8, 136)
    torch.cuda.reset_peak_host_memory_stats()
    assert torch.cuda.host_memory_stats()["allocated_bytes.peak"] == 8
    del ring


def test_what_it_takes_is_explained_where_the_hosts_memory_is(world: SimulatedDevice) -> None:
    plain = torch.empty(50, dtype=torch.uint8)
    ring = torch.empty(5, dtype=torch.uint8, pin_memory=True)
    torch.empty(100, dtype=torch.uint8, pin_memory=True)
    found = host_peak(in_place(world.ledger.events, HOST, PINNED))
    assert found.bytes == 50 + 8 + 128
    assert sorted(one.bytes for one in found.alive) == [8, 50, 128]
    assert any("pin_memory=True" in one.code for one in found.alive)
    del ring, plain
    assert host_held(in_place(world.ledger.events, HOST, PINNED)) == 136
