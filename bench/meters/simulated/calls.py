"""Hears every call of PyTorch's interface as it was made, with the devices that were named in it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._device import _device_constructors

from bench.meters.simulated.ledger import FILE, HOST
from bench.meters.simulated.world import CPU, META, SKELETON, World, is_meta, storage_of, tensors

# Calls that are given a device and do nothing with it but understand it.
_PARSERS = (torch.device, torch._C._nn._parse_to)


class Calls(TorchFunctionMode):
    """Names the stand-in where a call names a device, and answers for tensors what they would say on CUDA."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        answer = _ANSWERS.get(func)
        with self._world.without_values(_name(func), tensors((args, kwargs.values()))):
            return answer(self._world, *args, **kwargs) if answer else self._call(func, args, kwargs)

    def _call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        world, place = self._world, None
        if (device := kwargs.get("device")) is not None:
            kwargs["device"], place = world.target(device)
        elif func not in _PARSERS and any(isinstance(value, torch.device) for value in args):
            targets = [world.target(value) if isinstance(value, torch.device) else (value, None) for value in args]
            args = tuple(value for value, _ in targets)
            place = next((named for _, named in targets if named), None)
        elif world.planned and func in _device_constructors():
            kwargs["device"], place = META, HOST
        if place is None:
            return func(*args, **kwargs)
        with world.naming(place):
            out = func(*args, **kwargs)
        # `torch.tensor` makes its result where no operation is heard.
        for tensor in tensors((out,)):
            if is_meta(tensor):
                world.adopt(storage_of(tensor), place)
        return out


def _device(world: World, tensor: Tensor) -> torch.device:
    place = world.place(tensor)
    return torch.device({HOST: "cpu", FILE: "cpu", SKELETON: "meta"}.get(place, place))


def _get_device(world: World, tensor: Tensor) -> int:
    index = _device(world, tensor).index
    return -1 if index is None else index


def _set_data(_: World, tensor: Tensor, data: Tensor) -> None:
    """`tensor.data = data`, between a host and a device too, which are not to differ as CPU and meta do."""
    if is_meta(tensor) == is_meta(data):
        Tensor.data.__set__(tensor, data)  # type: ignore[attr-defined]
        return
    new = data.detach()
    new.requires_grad_(tensor.requires_grad)
    # Not `swap_tensors`, which refuses where there are weak references.
    torch._C._swap_tensor_impl(tensor, new)


def _same_kind(world: World, one: Tensor, other: Tensor) -> bool:
    """Whether `one.data = other` would do: host and device have it in common that they are no skeleton."""
    if (world.place(one) == SKELETON) != (world.place(other) == SKELETON):
        return False
    return is_meta(one) != is_meta(other) or torch._has_compatible_shallow_copy_type(one, other)


def _to(world: World, tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    if args and isinstance(args[0], int) and not isinstance(args[0], bool):
        args = (f"cuda:{args[0]}", *args[1:])
    device, dtype, non_blocking, memory_format = torch._C._nn._parse_to(*args, **kwargs)  # As `Module.to` does.
    if args and isinstance(args[0], Tensor):
        device = _device(world, args[0])
    source = world.place(tensor)
    stand_in, target = (tensor.device, None) if device is None else world.target(device)
    target = target or (HOST if stand_in.type == "cpu" else source)
    if source == SKELETON != target:
        raise NotImplementedError(
            "Cannot copy out of meta tensor; no data! Please use torch.nn.Module.to_empty() instead of "
            "torch.nn.Module.to() when moving module from meta to a different device."
        )
    if target == HOST and source.startswith("cuda"):
        raise world.refusal("a copy to the host")
    # Between two places that both are on the meta device PyTorch sees nothing to do.
    moves = is_meta(tensor) and source != target and (source, target) != (FILE, HOST)
    options = {} if memory_format is None else {"memory_format": memory_format}
    with world.naming(target):
        return tensor.to(
            device=stand_in, dtype=dtype or tensor.dtype, non_blocking=non_blocking, copy=copy or moves, **options
        )


def _cuda(world: World, tensor: Tensor, device: Any = None, non_blocking: bool = False) -> Tensor:
    return _to(world, tensor, "cuda" if device is None else device, non_blocking=non_blocking)


def _cpu(world: World, tensor: Tensor) -> Tensor:
    return _to(world, tensor, CPU)


def _data_ptr(world: World, tensor: Tensor) -> int:
    if not world.holds_no_values(storage_of(tensor)):
        return tensor.data_ptr()
    return storage_of(tensor).data_ptr() + int(tensor.storage_offset()) * tensor.element_size()


def _shown(what: Callable[..., Any]) -> Callable[..., Any]:
    """A call that shows a tensor: without values PyTorch shows none, and says nothing of it."""

    def show(world: World, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if world.holds_no_values(storage_of(tensor)):
            raise world.refusal(_name(what))
        return what(tensor, *args, **kwargs)

    return show


def _getter(name: str) -> Any:
    """What reading a property of a tensor is heard as."""
    return getattr(Tensor, name).__get__


_ANSWERS: dict[Any, Callable[..., Any]] = {
    _getter("device"): _device,
    _getter("is_meta"): lambda world, tensor: world.place(tensor) == SKELETON,
    _getter("is_cuda"): lambda world, tensor: _device(world, tensor).type == "cuda",
    _getter("is_cpu"): lambda world, tensor: _device(world, tensor).type == "cpu",
    Tensor.get_device: _get_device,
    Tensor.data.__set__: _set_data,  # type: ignore[attr-defined]
    Tensor.data_ptr: _data_ptr,
    Tensor.to: _to,
    Tensor.cuda: _cuda,
    Tensor.cpu: _cpu,
    torch._has_compatible_shallow_copy_type: _same_kind,
    Tensor.__repr__: _shown(Tensor.__repr__),
    Tensor.__format__: _shown(Tensor.__format__),
}


def _name(func: Any) -> str:
    return resolve_name(func) or getattr(func, "__name__", str(func))
