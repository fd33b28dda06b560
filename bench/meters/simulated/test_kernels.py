"""Memory beside a result. All byte figures are those of torch 2.14.1's allocator, run on the stand-in as an H100."""

import inspect
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.sim import SimMeter
from bench.meters.simulated.conftest import CUDA, held, peak
from bench.meters.simulated.kernels import workspace_bytes
from bench.meters.simulated.ledger import HOST, PINNED
from bench.meters.simulated.simulated_device import NotSimulated, SimulatedDevice

MIB = 2**20
WORKSPACE = 32 * MIB


def square(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(100, 100, dtype=dtype, device=CUDA)


def count(end: int, **options: Any) -> Tensor:
    return torch.arange(end, **{"device": "cpu", **options})


def numbered(tensor: Tensor, index: Any, value: Any = 1.0) -> None:
    tensor[index] = value


def peak_of(world: SimulatedDevice, call: Callable[..., object], *given: Tensor) -> int:
    """Return the most bytes that exist beside the arguments of a call."""
    world.ledger.restart()
    made = call(*given)
    most = peak(world)
    del made
    torch._C._cuda_clearCublasWorkspaces()
    return most


def of_index(index: Callable[[], Any]) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor[index()]


def to_index(index: Callable[[], Any]) -> Callable[[Tensor], None]:
    return lambda tensor: numbered(tensor, index())


INDEXED: dict[str, tuple[Callable[[Tensor], object], int]] = {
    "one": (of_index(lambda: count(5)), 40 + 2000),
    "of two dimensions": (of_index(lambda: count(4).view(2, 2)), 32 + 1600),
    "behind": (of_index(lambda: (slice(None), count(7))), 56 + 2800),
    "list": (of_index(lambda: [1, 2, 3]), 24 + 1200),
    "int32": (of_index(lambda: count(4, dtype=torch.int32)), 32 + 1600),
    "expanded": (of_index(lambda: count(1).expand(5)), 40 + 2000),
    "two alike": (of_index(lambda: (count(4), count(4))), 32 + 32 + 16),
    "two in two orders": (of_index(lambda: (count(4)[:, None], count(5))), 160 + 160 + 80),
    "on the device": (of_index(lambda: count(4, device=CUDA)), 32 + 1600),
    "number": (to_index(lambda: count(5)), 4 + 40),
    "number, two": (to_index(lambda: (count(4)[:, None], count(5))), 4 + 32 + 40 + 160 + 160),
    "number, no tensor": (to_index(lambda: (slice(3), 0)), 0),
    "rows": (lambda tensor: numbered(tensor, [1, 2], torch.empty(2, 100, device=CUDA)), 800 + 16),
}


@pytest.mark.parametrize("index", INDEXED)
def test_an_index_is_brought_to_the_device(world: SimulatedDevice, index: str) -> None:
    call, taken = INDEXED[index]
    assert peak_of(world, call, square()) == taken


@pytest.mark.parametrize("planned", [False], indirect=True)
def test_a_mask_of_the_host_is_brought_as_the_numbers_of_its_rows(world: SimulatedDevice) -> None:
    assert peak_of(world, of_index(lambda: count(100) > 50), square()) == 392 + 19600
    assert peak_of(world, to_index(lambda: count(100) > 50), square()) == 4 + 392
    assert peak_of(world, of_index(lambda: count(10_000).view(100, 100) >= 0), square()) == 160_000 + 40_000


def test_a_mask_of_the_device_takes_nothing_where_it_says_what_gets_a_number(world: SimulatedDevice) -> None:
    mask = square(torch.bool)
    assert peak_of(world, lambda tensor: numbered(tensor, mask), square()) == 0
    for value in (torch.empty((), device=CUDA), torch.empty(3, device=CUDA)):
        with pytest.raises(NotSimulated, match="reads values"):
            numbered(square(), mask, value)


@pytest.mark.parametrize(
    ("call", "dtype", "taken"),
    [
        (lambda mask, tensor: torch.where(mask, tensor, 0.0), torch.float32, 40_004),
        (lambda mask, tensor: torch.where(mask, 0, tensor), torch.float32, 40_004),
        (lambda mask, tensor: torch.where(mask, tensor, 0.0), torch.float16, 20_002),
        (lambda mask, tensor: torch.where(mask, tensor, torch.tensor(0.0)), torch.float16, 20_002),
        (lambda mask, tensor: torch.where(mask, tensor, 0.5), torch.int32, 80_004),
        (lambda mask, _: torch.where(mask, 1.0, 0.0), torch.int32, 40_008),
        (lambda mask, tensor: torch.where(mask, tensor, tensor), torch.float32, 40_000),
    ],
)
def test_a_number_to_choose_is_brought_to_the_device(
    world: SimulatedDevice, call: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype, taken: int
) -> None:
    assert peak_of(world, call, square(torch.bool), square(dtype)) == taken


@pytest.mark.parametrize(
    ("value", "on_device", "pinned"),
    [
        (lambda: 0.0, 0, 0),
        (lambda: torch.tensor(0.0), 0, 0),
        # Its value is read, through page-locked memory.
        (lambda: torch.empty((), device=CUDA), 4, 4),
    ],
)
def test_a_number_to_fill_masked_places_with_is_read(
    world: SimulatedDevice, value: Callable[[], Any], on_device: int, pinned: int
) -> None:
    mask, tensor = square(torch.bool), square()
    assert peak_of(world, lambda: tensor.masked_fill_(mask, value())) == on_device
    assert peak(world, PINNED) == pinned
    assert peak_of(world, lambda: tensor.masked_fill(mask, value())) == 40_000 + on_device
    assert peak_of(world, lambda: tensor[:1].masked_fill(mask, value())) == 40_000 + on_device
    filled = tensor.masked_fill(mask, value())
    assert filled.is_cuda
    assert peak_of(world, lambda: square(torch.float16).masked_fill(mask, value())) == 40_000 + on_device


PRODUCTS: dict[str, tuple[Callable[[Tensor], object], int]] = {
    "mm": (lambda a: a @ a, 40_000 + WORKSPACE),
    "transposed": (lambda a: a.t() @ a, 40_000 + WORKSPACE),
    "with gaps": (lambda a: a[:, ::2] @ a[:50], 40_000 + 20_000 + WORKSPACE),
    "columns": (lambda a: a[:, :50] @ a[:50], 40_000 + WORKSPACE),
    "bmm": (lambda a: a.expand(3, 100, 100) @ a.expand(3, 100, 100), 120_000 + WORKSPACE),
    "mv": (lambda a: a @ a[0], 400 + WORKSPACE),
    "dot": (lambda a: a[0] @ a[0], 4 + WORKSPACE),
    "linear": (lambda a: nn.functional.linear(a, a, a[0]), 40_000 + WORKSPACE),
    "in place": (lambda a: a.addmm_(a, a), WORKSPACE),
    "merged": (lambda a: a.add_(a[:, :8] @ a[:8]), 40_000 + WORKSPACE),
    "outer": (lambda a: torch.outer(a[0], a[0]), 40_000),
    "empty": (lambda a: a[:0] @ a, 0),
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_matrix_product_takes_a_workspace(world: SimulatedDevice, product: str) -> None:
    call, taken = PRODUCTS[product]
    assert peak_of(world, call, square()) == taken


def test_a_workspace_stays_with_its_stream_and_thread(world: SimulatedDevice) -> None:
    matrix = square()

    def multiply() -> None:
        matrix @ matrix

    world.ledger.restart()
    multiply()
    multiply()
    assert held(world) == WORKSPACE
    with torch.cuda.stream(torch.cuda.Stream()):
        multiply()
    assert held(world) == 2 * WORKSPACE
    for _ in range(2):
        # The second gets the first one's handle of cuBLAS.
        thread = threading.Thread(target=multiply)
        thread.start()
        thread.join()
    assert held(world) == 3 * WORKSPACE
    torch._C._cuda_clearCublasWorkspaces()
    assert held(world) == 0


def test_a_workspace_counts_for_each_load_and_is_not_what_a_load_keeps() -> None:
    sim = SimMeter(torch.device("cuda"), __file__, AllocatorSettings(), planned=True)
    with sim.watching():
        matrix = square()
        matrix @ matrix
        sim.start()
        matrix @ matrix
        assert sim.peaks().requested_bytes == 40_000 + WORKSPACE
        assert sim.held_bytes() == 0


@pytest.mark.parametrize(
    ("config", "size"),
    [(None, WORKSPACE), (":16:8", 131_072), (":4096:2:16:8", 8192 * 1024 + 131_072), ("nonsense", WORKSPACE)],
)
def test_a_workspace_has_the_size_that_is_asked_for(config: str | None, size: int) -> None:
    assert workspace_bytes({"CUBLAS_WORKSPACE_CONFIG": config} if config else {}) == size


def filled(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=CUDA)


# None of these takes anything beside its result, on no GPU.
WHOLE: dict[str, tuple[Callable[[], Tensor], int]] = {
    "few": (lambda: filled(65_280).sum(), 4),
    "rows": (lambda: filled(4096, 4096).amax(1), 16_384),
    "few rows": (lambda: filled(1000, 1000).amax(0), 4000),
    "rows of two dimensions": (lambda: filled(8, 16, 255).mean((1, 2)), 32),
    "norm of rows": (lambda: filled(1000, 4000).norm(dim=1), 4000),
}

# These take 496 bytes, 134,217,728 and 8,192,032 bytes, and others, where there are 132 multiprocessors.
SPLIT: dict[str, Callable[[], object]] = {
    "sum": lambda: filled(131_072).sum(),
    "columns": lambda: filled(4096, 4096).amax(0),
    "few columns": lambda: filled(1024, 1000).amax(0),
    "not in order": lambda: filled(1000, 1024).t().amax(0),
    "indices": lambda: filled(4096, 4096).max(0),
    "any": lambda: filled(1_000_000, dtype=torch.bool).any(),
    "norm": lambda: filled(1_000_000).norm(),
    "sorted": lambda: filled(100_000).sort(),
    "permutation": lambda: torch.randperm(10, device=CUDA),
    "running sum": lambda: filled(100_000).cumsum(0),
}


@pytest.mark.parametrize("reduction", WHOLE)
def test_a_reduction_that_no_gpu_splits_takes_its_result(world: SimulatedDevice, reduction: str) -> None:
    call, size = WHOLE[reduction]
    result = call()
    assert result.nbytes == held(world) == size


@pytest.mark.parametrize("reduction", SPLIT)
def test_what_depends_on_the_gpu_is_refused_by_name(world: SimulatedDevice, reduction: str) -> None:
    with pytest.raises(NotSimulated) as caught:
        SPLIT[reduction]()
    message = str(caught.value)
    assert message.startswith("test_kernels.py:")
    assert " uses aten." in message
    assert "depends on the GPU" in message
    assert message.endswith("use --device cpu or cuda")


def test_the_host_may_reduce_whatever_it_has(world: SimulatedDevice) -> None:
    assert torch.ones(1_000_000).sum().device.type == torch.randperm(10).device.type == "cpu"


@pytest.mark.parametrize(
    ("call", "taken", "on_host"),
    [
        (lambda tensor: tensor.conj().to(CUDA), 800, 800),
        (lambda tensor: tensor.conj().cuda(), 800, 800),
        (lambda tensor: tensor.conj().imag.to(CUDA), 400, 400),
        (lambda tensor: tensor.conj().to(CUDA, torch.complex128, non_blocking=True), 1600 + 800, 800),
    ],
)
def test_a_conjugate_is_made_on_the_host_and_taken_once(
    world: SimulatedDevice, call: Callable[[Tensor], Tensor], taken: int, on_host: int
) -> None:
    tensor = torch.ones(10, 10, dtype=torch.complex64)
    assert peak_of(world, call, tensor) == taken
    assert peak(world, HOST) == on_host


asks_for_values = "any()" in inspect.getsource(nn.init._no_grad_trunc_normal_)


@pytest.mark.skipif(not asks_for_values, reason="this torch draws truncated normals without asking for values")
@pytest.mark.parametrize(
    ("bounds", "bytes_a_value"),
    # Drawn again twice and more often, once, and never: masks, what is drawn again, and what is chosen of both.
    [({}, 13), ({"a": -3.5, "b": 3.5}, 9), ({"std": 0.02}, 3)],
)
def test_truncated_normals_take_what_drawing_again_does(
    world: SimulatedDevice, bounds: dict[str, float], bytes_a_value: int
) -> None:
    weight = torch.empty(200, 200, device=CUDA)
    world.ledger.restart()
    nn.init.trunc_normal_(weight, **bounds)  # type: ignore[arg-type]
    assert (peak(world), held(world)) == (bytes_a_value * 40_000, 0)
    # What is asked for passes through page-locked memory: whether any value is out of bounds.
    assert peak(world, PINNED) == 1


@pytest.mark.skipif(not asks_for_values, reason="this torch draws truncated normals without asking for values")
def test_truncated_normals_of_a_small_share_are_refused(world: SimulatedDevice) -> None:
    with pytest.raises(NotSimulated, match="reads values"):
        nn.init.trunc_normal_(torch.empty(10, 10, device=CUDA), a=1.5, b=3.0)
