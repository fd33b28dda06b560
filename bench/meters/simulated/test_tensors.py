"""Memory that tensors take on a simulated device, and for how long."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.meters.simulated.conftest import CUDA, LINEAR_BYTES, held, linear, numbers, peak
from bench.meters.simulated.ledger import HOST, Ledger
from bench.meters.simulated.simulated_device import SimulatedDevice
from bench.meters.simulated.simulation import simulation


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
def test_what_is_made_on_the_device_takes_what_it_asks_for(world: SimulatedDevice, make: Callable[[], object]) -> None:
    made = make()
    assert held(world) == peak(world) == 40
    del made
    assert held(world) == 0


def test_a_tensor_of_the_device_says_so(world: SimulatedDevice) -> None:
    tensor = numbers(10, device=CUDA)
    assert tensor.device == torch.device("cuda", 0)
    assert (tensor.is_cuda, tensor.is_meta, tensor.is_cpu, tensor.get_device()) == (True, False, False, 0)
    assert (tensor + 1).mul(2).device.type == "cuda"
    host = numbers(10)
    assert (host.device.type, host.is_cpu, host.is_cuda, host.is_meta) == ("cpu", True, False, False)


def test_a_skeleton_is_one_and_costs_nothing(world: SimulatedDevice) -> None:
    with torch.device("meta"):
        model = nn.Linear(1000, 1000)
    assert model.weight.is_meta
    assert model.weight.device == torch.device("meta")
    assert "meta" in repr(model.weight)
    assert (model.weight * 2).is_meta
    with pytest.raises(NotImplementedError, match="Cannot copy out of meta tensor; no data!"):
        model.to(CUDA)
    assert (peak(world), peak(world, HOST)) == (0, 0)


def test_a_view_shares_the_storage_that_counts(world: SimulatedDevice) -> None:
    tensor = numbers(10, device=CUDA)
    views = [tensor.view(2, 5), tensor[3:], tensor.detach(), tensor.expand(4, 10), *tensor.chunk(2)]
    assert held(world) == 40
    del tensor
    assert held(world) == 40
    del views
    assert held(world) == 0


def test_what_operations_make_counts_for_as_long_as_it_lives(world: SimulatedDevice) -> None:
    tensor = numbers(10, device=CUDA)
    assert torch.cat([tensor, tensor + 1]).shape == (20,)
    assert held(world) == 40
    assert peak(world) == 40 + 40 + 80


def test_a_temporary_in_the_middle_of_an_expression_is_gone_before_the_next(world: SimulatedDevice) -> None:
    destination = numbers(10, device=CUDA)
    for _ in range(3):
        destination.copy_(numbers(10).to(CUDA))
    assert peak(world) == 80


def test_resizing_holds_both_sizes_for_a_moment(world: SimulatedDevice) -> None:
    tensor = numbers(10, device=CUDA)
    tensor.resize_(20)
    assert (held(world), peak(world)) == (80, 120)
    tensor.untyped_storage().resize_(0)
    assert held(world) == 0
    tensor.untyped_storage().resize_(80)
    assert held(world) == 80


def test_what_an_operation_is_given_for_its_result_grows(world: SimulatedDevice) -> None:
    result = torch.empty(0, device=CUDA)
    torch.add(numbers(10, device=CUDA), 1, out=result)
    assert held(world) == 40


def test_a_number_can_be_put_into_a_tensor(world: SimulatedDevice) -> None:
    tensor = numbers(10, device=CUDA)
    tensor[3] = 2
    tensor[2:5] = 0.5
    tensor[...] = 1
    assert peak(world) == 40


def test_what_is_made_on_the_host_from_the_device_without_its_values_is_on_the_host(world: SimulatedDevice) -> None:
    like = numbers(10, device=CUDA)
    assert like.new_zeros(3, device="cpu").device.type == "cpu"
    assert torch.empty_like(like, device="cpu").device.type == "cpu"
    assert peak(world) == 40


def test_a_copied_storage_is_another(world: SimulatedDevice) -> None:
    one = numbers(10, device=CUDA)
    other = one.untyped_storage().clone()
    assert held(world) == 80
    assert other.data_ptr() != one.data_ptr()


def test_set_lets_go_of_the_storage_before(world: SimulatedDevice) -> None:
    one, other = numbers(10, device=CUDA), numbers(5, device=CUDA)
    one.set_(other)  # type: ignore[call-overload]
    assert held(world) == 20


def test_swapped_tensors_keep_their_storages(world: SimulatedDevice) -> None:
    model, replacement = linear().to(CUDA), nn.Parameter(numbers(100, device=CUDA), requires_grad=False)
    torch.utils.swap_tensors(model.weight, replacement)
    assert held(world) == 400 + LINEAR_BYTES
    del replacement
    assert held(world) == 400 + LINEAR_BYTES - 32


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
    world: SimulatedDevice,
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
    """A conversion is made on the host or, for a non-blocking copy, on the device, beside its source."""
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


def test_a_part_of_a_storage_takes_nothing_and_keeps_all_of_it(world: SimulatedDevice) -> None:
    whole = torch.empty(512, dtype=torch.uint8, device=CUDA)
    part = whole.untyped_storage()[128:256]
    tensor = torch.empty(0, device=CUDA).set_(part)
    assert (part.nbytes(), tensor.shape, tensor.device.type) == (128, (32,), "cuda")
    assert tensor.data_ptr() == whole.data_ptr() + 128
    assert held(world) == peak(world) == 512
    del whole, part
    assert held(world) == 512
    del tensor
    assert held(world) == 0


def test_so_does_one_on_the_host(world: SimulatedDevice) -> None:
    tensor = torch.empty(0, dtype=torch.uint8).set_(torch.empty(512, dtype=torch.uint8).untyped_storage()[:64])
    assert (tensor.device.type, tensor.nbytes) == ("cpu", 64)
    assert world.ledger.held_bytes(HOST) == 512
    copied = tensor.to(CUDA)
    assert held(world) == copied.nbytes == 64
    del tensor
    assert world.ledger.held_bytes(HOST) == 0
