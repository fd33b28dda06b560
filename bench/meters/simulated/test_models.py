"""Models on a simulated device, moved and filled as people do it."""

import copy
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.simulated.conftest import CUDA, DEVICE, LINEAR_BYTES, held, linear, numbers, peak
from bench.meters.simulated.ledger import HOST, in_place
from bench.meters.simulated.peaks import device_peaks
from bench.meters.simulated.simulated_device import NotSimulated, SimulatedDevice


def test_a_module_moves_tensor_by_tensor_and_keeps_its_parameters(world: SimulatedDevice) -> None:
    model = linear()
    weight = model.weight
    assert model.to(CUDA).weight is weight
    assert weight.device.type == "cuda"
    assert isinstance(weight, nn.Parameter)
    assert held(world) == peak(world) == LINEAR_BYTES


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
def test_a_module_moves_however_it_is_told(world: SimulatedDevice, move: Callable[[nn.Module], nn.Module]) -> None:
    model = move(linear())
    assert all(parameter.is_cuda for parameter in model.parameters())
    assert held(world) == LINEAR_BYTES


def test_a_lazy_module_is_initialised_by_its_first_call(world: SimulatedDevice) -> None:
    def called() -> nn.Sequential:
        model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
        model(torch.ones(2, 4))
        return model

    model = called().to(CUDA)
    assert all(tensor.is_cuda for tensor in model.state_dict().values())
    taken = held(world)
    assert taken == sum(tensor.nbytes for tensor in model.state_dict().values())
    with torch.device("meta"):
        skeleton = called()
    assert all(tensor.is_meta for tensor in skeleton.state_dict().values())
    assert held(world) == taken


def test_tied_weights_stay_tied_when_they_move_and_are_untied_by_to_empty(world: SimulatedDevice) -> None:
    """`Module.to` sets `param.data`, `to_empty` of a skeleton makes a parameter for every name, as on CUDA."""

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


def test_data_can_be_set_from_host_to_device_and_back_to_a_skeleton(world: SimulatedDevice) -> None:
    parameter = nn.Parameter(numbers(10))
    parameter.data = numbers(10).to(CUDA)
    assert parameter.device.type == "cuda"
    assert parameter.requires_grad
    assert held(world) == 40
    parameter.data = torch.empty(0, device=CUDA)
    assert held(world) == 0


def test_a_skeletons_data_cannot_be_set_and_a_state_dict_not_loaded_into_the_host(world: SimulatedDevice) -> None:
    with torch.device("meta"):
        skeleton = linear()
    with pytest.raises(RuntimeError, match="incompatible tensor type"):
        skeleton.weight.data = numbers(8, device=CUDA).view(4, 2)
    # `load_state_dict` makes a `RuntimeError` of its own of every exception.
    state_dict = linear().to(CUDA).state_dict()
    with pytest.raises(NotSimulated):
        linear().load_state_dict(state_dict)


def test_a_model_leaves_the_device_for_a_skeleton(world: SimulatedDevice) -> None:
    model = linear().to(CUDA)
    assert model.to("meta").weight.is_meta
    assert held(world) == 0


def test_building_under_the_device_makes_the_model_there(world: SimulatedDevice) -> None:
    with CUDA:
        model = linear()
    assert model.weight.is_cuda
    assert held(world) == LINEAR_BYTES
    assert peak(world, HOST) == 0


def test_the_device_can_be_the_default_one(world: SimulatedDevice) -> None:
    torch.set_default_device("cuda")
    try:
        model = linear()
    finally:
        torch.set_default_device(None)
    assert model.weight.is_cuda
    assert held(world) == LINEAR_BYTES


def test_the_device_is_there_for_who_asks(world: SimulatedDevice) -> None:
    assert torch.cuda.is_available()
    assert (torch.cuda.device_count(), torch.cuda.current_device()) == (1, 0)
    tensor = numbers(10, device=CUDA)
    torch.cuda.synchronize(device=CUDA)
    assert torch.cuda.memory_allocated() == tensor.nbytes
    with pytest.raises(NotSimulated, match="which is not simulated; use --device cpu or cuda"):
        torch.cuda.get_device_properties(0)


def test_a_converted_model_takes_less(world: SimulatedDevice) -> None:
    model = linear().to(CUDA, torch.bfloat16)
    assert held(world) == peak(world) == LINEAR_BYTES // 2
    model.float()
    assert held(world) == LINEAR_BYTES


def with_gradients() -> nn.Linear:
    model = nn.Linear(2, 4)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    return model


@pytest.mark.parametrize("swap", [False, True])
def test_gradients_go_to_the_device_with_their_model(world: SimulatedDevice, swap: bool) -> None:
    model = with_gradients()
    gradient = model.weight.grad
    torch.__future__.set_swap_module_params_on_conversion(swap)
    try:
        model.to(CUDA)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert held(world) == 2 * LINEAR_BYTES
    assert model.weight.grad is gradient
    assert gradient is not None
    assert gradient.is_cuda
    model.zero_grad()
    del gradient
    assert model.weight.grad is None
    assert held(world) == LINEAR_BYTES


def test_a_gradient_stays_on_the_host_when_its_weights_move(world: SimulatedDevice) -> None:
    weight = with_gradients().weight
    weight.data = weight.data.to(CUDA)
    assert weight.grad is not None
    assert (weight.is_cuda, weight.grad.is_cuda) == (True, False)
    weight.grad.data = weight.grad.data.to(CUDA)
    assert weight.grad.is_cuda
    assert held(world) == 2 * weight.nbytes
    weight.grad = None
    assert weight.grad is None
    assert held(world) == weight.nbytes


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_goes_to_the_device_without_cudnn(
    world: SimulatedDevice, kind: Callable[..., nn.Module]
) -> None:
    model = kind(8, 8).to(CUDA)
    assert held(world) == sum(weight.nbytes for weight in model.parameters())


def test_a_copied_model_takes_twice(world: SimulatedDevice) -> None:
    model = linear().to(CUDA)
    twin = copy.deepcopy(model)
    assert twin.weight.is_cuda
    assert held(world) == 2 * LINEAR_BYTES


@pytest.mark.parametrize("assign", [False, True])
def test_a_state_dict_is_copied_or_assigned(world: SimulatedDevice, assign: bool) -> None:
    with torch.device("meta"):
        skeleton = linear()
    model = skeleton if assign else skeleton.to_empty(device=CUDA)
    model.load_state_dict({name: tensor.to(CUDA) for name, tensor in linear().state_dict().items()}, assign=assign)
    assert held(world) == LINEAR_BYTES
    assert peak(world) == LINEAR_BYTES * (1 if assign else 2)
    assert all(tensor.is_cuda for tensor in model.parameters())


def test_threads_load_too(world: SimulatedDevice) -> None:
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda count: numbers(count).to(CUDA), (10, 20)))
    thread = threading.Thread(target=lambda: made.append(numbers(30, device=CUDA)))
    thread.start()
    thread.join()
    timer = threading.Timer(0, lambda: made.append(numbers(40, device=CUDA)))
    timer.start()
    timer.join()
    assert held(world) == 400


def test_threads_do_not_get_in_each_others_way(checkpoint: Path, world: SimulatedDevice) -> None:
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
