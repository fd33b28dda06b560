"""Simulated CUDA, held against what CUDA does: what takes memory and when, and what it can't be asked."""

import copy
import gc
import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.meters.simulated.allocator_settings import AllocatorSettings
from bench.meters.simulated.ledger import FILE, HOST, Ledger, in_place
from bench.meters.simulated.peaks import device_peaks, sum_peak
from bench.meters.simulated.simulation import simulation
from bench.meters.simulated.world import NotSimulated, World

CUDA = torch.device("cuda")
DEVICE = "cuda:0"

# What stands for a model: 40 bytes of weight, 16 of bias.
LINEAR_BYTES = 56


@pytest.fixture(params=[False, True], ids=["sim", "plan"])
def planned(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def world(planned: bool) -> Iterator[World]:
    with simulation(Ledger(__file__), planned=planned) as world:
        yield world
    if any(world.ledger.held_bytes(place) for place in (DEVICE, HOST, FILE)):
        gc.collect()
    for place in (DEVICE, HOST, FILE):
        assert world.ledger.held_bytes(place) == 0, place


def linear() -> nn.Linear:
    return nn.Linear(2, 4, dtype=torch.float32).to(torch.float32).requires_grad_(False)


def peak(world: World, place: str = DEVICE) -> int:
    return sum_peak(in_place(world.ledger.events, place)).bytes


def held(world: World) -> int:
    return world.ledger.held_bytes(DEVICE)


def numbers(count: int, **options: Any) -> Tensor:
    return torch.ones(count, dtype=torch.float32, **options)


# --- what takes memory -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: numbers(10, device="cuda"),
        lambda: numbers(10, device=CUDA),
        lambda: numbers(10, device=0),
        lambda: torch.empty(10, device="cuda:0"),
        lambda: torch.full((10,), 3.0, device=CUDA),
        lambda: torch.tensor([1.0] * 10, device=CUDA),
        lambda: torch.as_tensor([1.0] * 10, device=CUDA),
        lambda: torch.empty_like(numbers(10), device=CUDA),
        lambda: torch.zeros_like(torch.empty(10, device="meta"), device=CUDA),
        lambda: numbers(3).new_empty((10,), device=CUDA),
        lambda: numbers(10).to(CUDA),
        lambda: numbers(10).to("cuda", torch.float32),
        lambda: numbers(10).to(0),
        lambda: numbers(10).cuda(),
        lambda: numbers(20).to(CUDA, torch.float16),
        lambda: numbers(10).to(torch.empty(0, device=CUDA)),
        lambda: nn.Parameter(numbers(10).to(CUDA)),
        lambda: torch.UntypedStorage(40, device=CUDA),
        lambda: numbers(10).to(device=0),
        lambda: numbers(10).to(CUDA, torch.float32, False, True),
        lambda: numbers(10).type_as(torch.empty(0, device=CUDA)),
        lambda: torch.as_tensor(numbers(10), device=CUDA),
        lambda: torch.asarray(numbers(10), device=CUDA),
        lambda: torch.empty(0, device=CUDA).new_tensor([1.0] * 10),
        lambda: torch.empty(0, device=CUDA).new(10),
        lambda: torch.empty(0, device=CUDA).new_zeros(10),
        lambda: numbers(10).untyped_storage().to(device=CUDA),
        lambda: torch.add(numbers(10), 1).cuda(memory_format=torch.contiguous_format),
    ],
)
def test_what_is_made_on_the_device_takes_what_it_asks_for(world: World, make: Callable[[], object]) -> None:
    made = make()
    assert held(world) == peak(world) == 40
    del made
    assert held(world) == 0


def test_a_tensor_of_the_device_says_so(world: World) -> None:
    tensor = numbers(10, device=CUDA)
    assert tensor.device == torch.device("cuda", 0)
    assert (tensor.is_cuda, tensor.is_meta, tensor.is_cpu, tensor.get_device()) == (True, False, False, 0)
    assert (tensor + 1).mul(2).device.type == "cuda"
    host = numbers(10)
    assert (host.device.type, host.is_cpu, host.is_cuda, host.is_meta) == ("cpu", True, False, False)


def test_a_skeleton_is_one_and_costs_nothing(world: World) -> None:
    with torch.device("meta"):
        model = nn.Linear(1000, 1000)
    assert model.weight.is_meta
    assert model.weight.device == torch.device("meta")
    assert "meta" in repr(model.weight)
    assert (model.weight * 2).is_meta
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor; no data!"):
        model.to(CUDA)
    assert (peak(world), peak(world, HOST)) == (0, 0)


def test_a_view_shares_the_storage_that_counts(world: World) -> None:
    tensor = numbers(10, device=CUDA)
    views = [tensor.view(2, 5), tensor[3:], tensor.detach(), tensor.expand(4, 10), *tensor.chunk(2)]
    assert held(world) == 40
    del tensor
    assert held(world) == 40
    del views
    assert held(world) == 0


def test_what_operations_make_counts_for_as_long_as_it_lives(world: World) -> None:
    tensor = numbers(10, device=CUDA)
    assert torch.cat([tensor, tensor + 1]).shape == (20,)
    assert held(world) == 40
    assert peak(world) == 40 + 40 + 80


def test_a_temporary_in_the_middle_of_an_expression_is_gone_before_the_next(world: World) -> None:
    destination = numbers(10, device=CUDA)
    for _ in range(3):
        destination.copy_(numbers(10).to(CUDA))
    assert peak(world) == 80


def test_resizing_holds_both_sizes_for_a_moment(world: World) -> None:
    tensor = numbers(10, device=CUDA)
    tensor.resize_(20)
    assert (held(world), peak(world)) == (80, 120)
    tensor.untyped_storage().resize_(0)
    assert held(world) == 0
    tensor.untyped_storage().resize_(80)
    assert held(world) == 80


def test_what_an_operation_is_given_for_its_result_grows(world: World) -> None:
    result = torch.empty(0, device=CUDA)
    torch.add(numbers(10, device=CUDA), 1, out=result)
    assert held(world) == 40


def test_a_number_can_be_put_into_a_tensor(world: World) -> None:
    tensor = numbers(10, device=CUDA)
    tensor[3] = 2
    tensor[2:5] = 0.5
    tensor[...] = 1
    assert peak(world) == 40


def test_what_is_made_on_the_host_from_the_device_without_its_values_is_on_the_host(world: World) -> None:
    like = numbers(10, device=CUDA)
    assert like.new_zeros(3, device="cpu").device.type == "cpu"
    assert torch.empty_like(like, device="cpu").device.type == "cpu"
    assert peak(world) == 40


def test_a_copied_storage_is_another(world: World) -> None:
    one = numbers(10, device=CUDA)
    other = one.untyped_storage().clone()
    assert held(world) == 80
    assert other.data_ptr() != one.data_ptr()


def test_set_lets_go_of_the_storage_before(world: World) -> None:
    one, other = numbers(10, device=CUDA), numbers(5, device=CUDA)
    one.set_(other)  # type: ignore[call-overload]
    assert held(world) == 20


def test_swapped_tensors_keep_their_storages(world: World) -> None:
    model, replacement = linear().to(CUDA), nn.Parameter(numbers(100, device=CUDA), requires_grad=False)
    torch.utils.swap_tensors(model.weight, replacement)
    assert held(world) == 400 + LINEAR_BYTES - 8
    del replacement
    assert held(world) == 400 + LINEAR_BYTES - 40


# --- models ------------------------------------------------------------------------------------------------------


def test_a_module_moves_tensor_by_tensor_and_keeps_its_parameters(world: World) -> None:
    model = linear()
    weight = model.weight
    assert model.to(CUDA).weight is weight
    assert weight.device.type == "cuda"
    assert isinstance(weight, nn.Parameter)
    assert held(world) == peak(world) == LINEAR_BYTES - 8


@pytest.mark.parametrize(
    "move",
    [
        lambda model: model.to("cuda"),
        lambda model: model.to(0),
        lambda model: model.to(device=CUDA),
        lambda model: model.to(device="cuda", dtype=torch.float32),
        lambda model: model.to(torch.empty(0, device=CUDA)),
        lambda model: model.cuda(),
        lambda model: model.cuda(0),
    ],
)
def test_a_module_moves_however_it_is_told(world: World, move: Callable[[nn.Module], nn.Module]) -> None:
    model = move(linear())
    assert all(parameter.is_cuda for parameter in model.parameters())
    assert held(world) == LINEAR_BYTES - 8


def test_tied_weights_stay_tied_when_they_move_and_are_untied_by_to_empty(world: World) -> None:
    """As on CUDA: `Module.to` sets `param.data`, `to_empty` of a skeleton makes a parameter for every name."""

    def tied() -> nn.Sequential:
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        model[1].weight = model[0].weight
        return model

    moved = tied().to(CUDA)
    assert moved[0].weight is moved[1].weight
    assert held(world) == 36
    del moved
    with torch.device("meta"):
        skeleton = tied()
    emptied = skeleton.to_empty(device=CUDA)
    assert emptied[0].weight is not emptied[1].weight
    assert held(world) == 72


def test_data_can_be_set_from_host_to_device_and_back_to_a_skeleton(world: World) -> None:
    parameter = nn.Parameter(numbers(10))
    parameter.data = numbers(10).to(CUDA)
    assert parameter.device.type == "cuda"
    assert parameter.requires_grad
    assert held(world) == 40
    parameter.data = torch.empty(0, device=CUDA)
    assert held(world) == 0


def test_a_skeletons_data_cannot_be_set_and_a_state_dict_not_loaded_into_the_host(world: World) -> None:
    with torch.device("meta"):
        skeleton = linear()
    with pytest.raises(RuntimeError, match="incompatible tensor type"):
        skeleton.weight.data = numbers(8, device=CUDA).view(4, 2)
    # `load_state_dict` makes a `RuntimeError` of its own of every exception.
    state_dict = linear().to(CUDA).state_dict()
    with pytest.raises(NotSimulated):
        linear().load_state_dict(state_dict)


def test_a_model_leaves_the_device_for_a_skeleton(world: World) -> None:
    model = linear().to(CUDA)
    assert model.to("meta").weight.is_meta
    assert held(world) == 0


def test_building_under_the_device_makes_the_model_there(world: World) -> None:
    with CUDA:
        model = linear()
    assert model.weight.is_cuda
    assert held(world) == LINEAR_BYTES - 8
    assert peak(world, HOST) == 0


def test_the_device_can_be_the_default_one(world: World) -> None:
    torch.set_default_device("cuda")
    try:
        model = linear()
    finally:
        torch.set_default_device(None)
    assert model.weight.is_cuda
    assert held(world) == LINEAR_BYTES - 8


def test_the_device_is_there_for_who_asks(world: World) -> None:
    assert torch.cuda.is_available()
    assert (torch.cuda.device_count(), torch.cuda.current_device()) == (1, 0)
    tensor = numbers(10, device=CUDA)
    torch.cuda.synchronize(device=CUDA)
    assert torch.cuda.memory_allocated() == tensor.nbytes
    with pytest.raises(NotSimulated, match="which is not simulated; use --device cpu or cuda"):
        torch.cuda.get_device_properties(0)


@pytest.mark.parametrize("ask", [lambda: numbers(10).pin_memory(), lambda: torch.empty(10, pin_memory=True)])
def test_page_locked_memory_is_refused(world: World, ask: Callable[[], Tensor]) -> None:
    with pytest.raises(NotSimulated, match="page-locked memory, which is not simulated"):
        ask()


def test_a_converted_model_takes_less(world: World) -> None:
    model = linear().to(CUDA, torch.bfloat16)
    assert held(world) == peak(world) == (LINEAR_BYTES - 8) // 2
    model.float()
    assert held(world) == LINEAR_BYTES - 8


def test_a_copied_model_takes_twice(world: World) -> None:
    model = linear().to(CUDA)
    twin = copy.deepcopy(model)
    assert twin.weight.is_cuda
    assert held(world) == 2 * (LINEAR_BYTES - 8)


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_dict_is_copied_or_assigned(world: World, assign: bool) -> None:
    with torch.device("meta"):
        skeleton = linear()
    model = skeleton if assign else skeleton.to_empty(device=CUDA)
    model.load_state_dict({name: tensor.to(CUDA) for name, tensor in linear().state_dict().items()}, assign=assign)
    assert held(world) == LINEAR_BYTES - 8
    assert peak(world) == (LINEAR_BYTES - 8) * (1 if assign else 2)
    assert all(tensor.is_cuda for tensor in model.parameters())


def test_threads_load_too(world: World) -> None:
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda count: numbers(count).to(CUDA), (10, 20)))
    thread = threading.Thread(target=lambda: made.append(numbers(30, device=CUDA)))
    thread.start()
    thread.join()
    timer = threading.Timer(0, lambda: made.append(numbers(40, device=CUDA)))
    timer.start()
    timer.join()
    assert held(world) == 400


def test_threads_do_not_get_in_each_others_way(checkpoint: Path, world: World) -> None:
    """Storages come and go in all of them, while the interpreter changes from one to the other all the time."""

    def load(_: int) -> int:
        mapped = torch.load(checkpoint, weights_only=True, mmap=True)
        read = torch.load(checkpoint, map_location=CUDA, weights_only=True)
        return mapped["own"].to(CUDA).nbytes + read["own"].nbytes

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(load, range(64))) == {80}
    finally:
        sys.setswitchinterval(interval)
    device_peaks(in_place(world.ledger.events, DEVICE), AllocatorSettings())
    assert len({event.storage for event in world.ledger.events if event.bytes > 0}) == sum(
        event.bytes > 0 for event in world.ledger.events
    )


# --- copies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("destination", "source", "non_blocking", "between"),
    [
        (lambda: numbers(100, device=CUDA), lambda: numbers(100), False, 0),
        (lambda: numbers(100, device=CUDA), lambda: numbers(100), True, 0),
        # A conversion is the host's work, unless the copy is not waited for.
        (lambda: numbers(100, device=CUDA), lambda: numbers(100).half(), False, 0),
        (lambda: numbers(100, device=CUDA), lambda: numbers(100).half(), True, 200),
        # What is not contiguous on the device is put together in a contiguous copy there.
        (lambda: numbers(200, device=CUDA)[::2], lambda: numbers(100), False, 400),
        (lambda: numbers(100, device=CUDA), lambda: numbers(200)[::2], False, 0),
        (lambda: numbers(100, device=CUDA).view(10, 10).t(), lambda: numbers(100).view(10, 10).t(), False, 0),
        (lambda: numbers(100, device=CUDA).view(10, 10).t(), lambda: numbers(100).view(10, 10), False, 400),
        (lambda: numbers(100, device=CUDA).view(10, 10)[:, :5], lambda: numbers(100).view(10, 10)[:, :5], False, 200),
        (lambda: numbers(100, device=CUDA).view(10, 10), lambda: numbers(10), False, 0),
        # On one device nothing is needed in between.
        (lambda: numbers(200, device=CUDA)[::2], lambda: numbers(100, device=CUDA).half(), False, 0),
    ],
)
def test_a_copy_makes_in_between_what_cudas_does(
    world: World,
    destination: Callable[[], Tensor],
    source: Callable[[], Tensor],
    non_blocking: bool,
    between: int,
) -> None:
    to, copied = destination(), source()
    world.ledger.restart()
    to.copy_(copied, non_blocking=non_blocking)
    assert peak(world) == between
    assert held(world) == 0


def test_a_conversion_on_the_way_is_made_where_cuda_makes_it() -> None:
    """On the host, or, where the copy is not waited for, on the device: beside what it is made from."""
    with simulation(Ledger(__file__), planned=True) as world:
        tensor = numbers(100)
        world.ledger.restart()
        tensor.to(CUDA, torch.float16)
        assert (peak(world), peak(world, HOST)) == (200, 200)
        world.ledger.restart()
        tensor.to(CUDA, torch.float16, non_blocking=True)
        assert (peak(world), peak(world, HOST)) == (200 + 400, 0)


def test_what_is_not_in_order_is_put_in_order_on_the_host() -> None:
    with simulation(Ledger(__file__), planned=True) as world:
        destination, transposed = numbers(100, device=CUDA).view(10, 10), numbers(100).view(10, 10).t()
        world.ledger.restart()
        destination.copy_(transposed)
        assert (peak(world), peak(world, HOST)) == (0, 400)


# --- checkpoints -------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Two tensors that share a storage of 400 bytes, and one of 40."""
    whole = torch.arange(100, dtype=torch.float32)
    torch.save({"whole": whole, "half": whole[50:], "own": torch.ones(10)}, tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


@pytest.mark.parametrize("location", ["cuda", CUDA, {"cpu": "cuda:0"}, lambda storage, _: storage.cuda()])
def test_a_checkpoint_loads_to_the_device_storage_by_storage(checkpoint: Path, world: World, location: Any) -> None:
    loaded = torch.load(checkpoint, map_location=location, weights_only=True)
    assert all(tensor.is_cuda for tensor in loaded.values())
    assert held(world) == peak(world) == 440
    assert loaded["whole"].data_ptr() + 200 == loaded["half"].data_ptr()
    # One storage after the other goes through the host.
    assert peak(world, HOST) == 400


def test_a_checkpoint_that_stays_on_the_host_takes_nothing_on_the_device(checkpoint: Path, world: World) -> None:
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True)
    assert loaded["own"].device.type == "cpu"
    assert (peak(world), peak(world, HOST)) == (0, 440)


def test_a_mapped_checkpoint_counts_where_it_is_read_and_while_it_is_mapped(checkpoint: Path, world: World) -> None:
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    assert (peak(world, FILE), peak(world, HOST)) == (0, 0)
    moved = loaded["half"].to(CUDA)
    # Of the storage that it shares with another, its own half.
    assert world.ledger.held_bytes(FILE) == 200
    assert held(world) == 200
    loaded["whole"].sum()
    assert world.ledger.held_bytes(FILE) == 400
    del loaded
    assert world.ledger.held_bytes(FILE) == 0
    assert moved.is_cuda


def test_a_mapped_tensor_that_is_converted_is_the_hosts(checkpoint: Path, world: World) -> None:
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    converted = loaded["whole"].to(torch.float16)
    assert converted.device.type == "cpu"
    assert (peak(world, FILE), world.ledger.held_bytes(HOST)) == (400, 200)


def test_of_a_slice_of_a_mapped_tensor_only_that_is_read(checkpoint: Path, world: World) -> None:
    loaded = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    for part in loaded["whole"].chunk(10)[:3]:
        part.to(CUDA)
    assert world.ledger.held_bytes(FILE) == 120


def test_a_checkpoint_mapped_to_the_device_is_read_and_unmapped(checkpoint: Path, world: World) -> None:
    loaded = torch.load(checkpoint, map_location=CUDA, weights_only=True, mmap=True)
    assert loaded["own"].is_cuda
    assert held(world) == 440
    assert (peak(world, FILE), world.ledger.held_bytes(FILE), peak(world, HOST)) == (440, 0, 0)


def test_a_simulated_load_reads_the_pages_that_it_copies(tmp_path: Path) -> None:
    """A copy to a real device reads a mapped file: its pages have to become resident here as well."""
    count = 2**22
    torch.save(torch.ones(count), tmp_path / "checkpoint.pt")
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("needs Linux's /proc")

    def resident() -> int:
        [line] = [line for line in status.read_text().splitlines() if line.startswith("RssFile")]
        return int(line.split()[1]) * 1024

    with simulation(Ledger(__file__), planned=False):
        mapped = torch.load(tmp_path / "checkpoint.pt", map_location="cpu", weights_only=True, mmap=True)
        before = resident()
        mapped.to(CUDA)
        assert resident() - before > 3.9 * count


def test_a_plan_touches_no_page_and_opens_a_file_with_holes(tmp_path: Path) -> None:
    """Of 100 GB: more than there may be of memory, of disk, and of addresses that can be mapped."""
    shape = (100, 10**9 // 4)
    with torch._subclasses.FakeTensorMode(), torch.serialization.skip_data(materialize_fake_tensors=True):
        torch.save(torch.empty(shape), tmp_path / "checkpoint.pt")
    with simulation(Ledger(__file__), planned=True) as world:
        for mmap in (False, True):
            loaded = torch.load(tmp_path / "checkpoint.pt", map_location=CUDA, weights_only=True, mmap=mmap)
            assert loaded.shape == shape
        assert peak(world, HOST) == peak(world, FILE) == 10**11
        assert torch.rand(shape).normal_().shape == shape
    assert (tmp_path / "checkpoint.pt").stat().st_blocks * 512 < 2**20


# --- what it cannot be asked -------------------------------------------------------------------------------------

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
def test_values_cannot_be_read_back_and_the_line_is_named(world: World, read: str) -> None:
    if world.planned and read in UNPLANNED:
        pytest.skip("a plan's host has no values either")
    tensor = numbers(10).to(CUDA)
    with pytest.raises(NotSimulated) as caught:
        READS[read](tensor)
    message = str(caught.value)
    assert message.startswith("test_simulation.py:")
    assert "reads values" in message
    assert ("without --plan" if world.planned else "use --device cpu or cuda") in message
    assert "\n" not in message


def test_the_hosts_values_can_be_read() -> None:
    with simulation(Ledger(__file__), planned=False):
        tensor = torch.arange(10)
        assert tensor.sum().item() == 45
        assert "9" in repr(tensor)
        assert torch.equal(tensor, tensor.clone())
        assert tensor.numpy if hasattr(tensor, "numpy") else True
        assert pickle.loads(pickle.dumps(tensor)).tolist() == list(range(10))  # noqa: S301


def test_a_plans_host_has_no_values_to_read() -> None:
    with simulation(Ledger(__file__), planned=True), pytest.raises(NotSimulated, match="measure it without --plan"):
        torch.arange(10).sum().item()


def test_addresses_tell_storages_apart(world: World) -> None:
    one, other = numbers(10, device=CUDA), numbers(10, device=CUDA)
    assert one.data_ptr() == one.view(5, 2).data_ptr() == one.untyped_storage().data_ptr() != 0
    assert one[3:].data_ptr() == one.data_ptr() + 12
    assert len({one.data_ptr(), other.data_ptr()}) == 2


# --- the context -------------------------------------------------------------------------------------------------


def test_everything_is_as_before_when_it_ends(planned: bool, checkpoint: Path) -> None:
    replaced = [
        *((torch.UntypedStorage, name) for name in ("data_ptr", "resize_", "from_file")),
        *((torch.serialization, name) for name in ("_get_restore_location", "default_restore_location")),
        *((torch.cuda, name) for name in ("synchronize", "empty_cache")),
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


def test_an_emptied_cache_gives_back_what_is_reserved(world: World) -> None:
    for count in (2**23, 2**24):
        numbers(count, device=CUDA)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    peaks = device_peaks(in_place(world.ledger.events, DEVICE), AllocatorSettings())
    assert peaks["reserved"].bytes == 2**26
