"""The interceptor of all calls of PyTorch's interface as they were made, with the devices that they name."""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._device import _device_constructors

from bench.meters.simulated.ledger import HOST, ON_HOST, PINNED, Storage, without_asking
from bench.meters.simulated.simulated_device import CPU, META, SKELETON, SimulatedDevice, is_meta, storage_of, tensors

# Calls that make a tensor where no operation is heard.
_UNHEARD = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor, Tensor.new)


@cache
def _makers() -> frozenset[Any]:
    """Calls that may make a tensor without being told of a device."""
    return frozenset((*_UNHEARD, *_device_constructors()))


class FunctionInterceptor(TorchFunctionMode):
    """Replaces devices that a call names by their stand-ins, and answers for tensors as they would on CUDA."""

    def __init__(self, world: SimulatedDevice) -> None:
        super().__init__()
        self._world = world

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs) if kwargs else {}
        answer = _ANSWERS.get(func)
        try:
            if answer:
                return answer(self._world, *args, **kwargs)
            if kwargs or func in _makers() or torch.device in map(type, args):
                return _call(self._world, func, args, kwargs)
            # Most calls ask for a shape, or the like: they are to take no longer than they do.
            return func(*args)
        except (NotImplementedError, RuntimeError) as error:
            # PyTorch's own words for "no data", from wherever in a call they come.
            given = map(storage_of, tensors((*args, *kwargs.values())))
            if "meta" in str(error).lower() and any(map(self._world.holds_no_values, given)):
                raise self._world.refusal(_name(func)) from None
            raise


def _call(world: SimulatedDevice, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Make a call with the stand-ins of the devices it names, and what it makes in the places they mean."""
    place = None
    if kwargs.pop("pin_memory", False):
        return _made_pinned(world, func, args, kwargs)
    device = kwargs.get("device")
    if device is None and func in _device_constructors():
        # Set by `set_default_device`; a device in a `with` statement is in `kwargs` by now.
        device = torch.utils._device.CURRENT_DEVICE
        if device is None and world.planned:
            device = CPU
    if device is not None:
        kwargs["device"], place = world.target(device)
    elif any(isinstance(value, torch.device) for value in args):
        targets = [world.target(value) if isinstance(value, torch.device) else (value, None) for value in args]
        args = tuple(value for value, _ in targets)
        place = next((named for _, named in targets if named), None)
    if place is None:
        out = func(*args, **kwargs)
    else:
        with world.naming(place):
            out = func(*args, **kwargs)
    if func in _UNHEARD:
        places = (place, *map(world.place, tensors(args)))
        known = next((known for known in places if known), HOST)
        for tensor in tensors((out,)):
            world.adopt(storage_of(tensor), without_asking(known))
    return out


def _made_pinned(world: SimulatedDevice, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """Return the result of a call in page-locked memory."""
    device = kwargs.get("device")
    if device is None and func in _device_constructors():
        device = torch.utils._device.CURRENT_DEVICE
    places = map(world.place, tensors(args)) if device is None else [world.target(device)[1]]
    if not ON_HOST.issuperset(places):
        raise RuntimeError("Only dense CPU tensors can be pinned")
    pinned = world.pinned(_call(world, func, args, {**kwargs, "device": META}))
    name = func.__name__
    with torch.no_grad():
        if "zeros" in name:
            pinned.zero_()
        elif "empty" not in name and not world.planned:
            pinned.copy_(_call(world, func, args, kwargs))
    return pinned.requires_grad_(kwargs.get("requires_grad", False))


def _device(world: SimulatedDevice, tensor: Tensor) -> torch.device:
    place = world.place(tensor)
    if place in ON_HOST:
        return CPU
    return META if place == SKELETON else torch.device(place)


def _get_device(world: SimulatedDevice, tensor: Tensor) -> int:
    index = _device(world, tensor).index
    return -1 if index is None else index


def _set_data(world: SimulatedDevice, tensor: Tensor, data: Tensor) -> None:
    """Assign `tensor.data = data`, between a host and a device too, which CPU and meta do not allow."""
    if not _same_kind(world, tensor, data):
        raise RuntimeError("`variable.set_data(tensor)`: `variable` and `tensor` have incompatible tensor type.")
    if is_meta(tensor) == is_meta(data):
        Tensor.data.__set__(tensor, data)  # type: ignore[attr-defined]
        return
    grad = _grad(world, tensor)
    new = data.detach()
    new.requires_grad_(tensor.requires_grad)
    # Not `swap_tensors`, which refuses where there are weak references.
    torch._C._swap_tensor_impl(tensor, new)
    if grad is not None:
        world.other_grads[tensor] = grad


def _grad(world: SimulatedDevice, tensor: Tensor) -> Tensor | None:
    """Return the gradient of a tensor. It stays where it is when the tensor's data moves, until it is moved too."""
    grad = world.other_grads.get(tensor)
    if grad is None:
        return tensor.grad
    if is_meta(grad) == is_meta(tensor):
        _set_grad(world, tensor, grad)
    return grad


def _set_grad(world: SimulatedDevice, tensor: Tensor, grad: Tensor | None) -> None:
    world.other_grads.pop(tensor, None)
    tensor.grad = grad


def _same_kind(world: SimulatedDevice, one: Tensor, other: Tensor) -> bool:
    """Return True if `one.data = other` works: host and device are alike in that neither is a skeleton."""
    if (world.place(one) == SKELETON) != (world.place(other) == SKELETON):
        return False
    return is_meta(one) != is_meta(other) or torch._has_compatible_shallow_copy_type(one, other)


def _parse_to(world: SimulatedDevice, *args: Any, **kwargs: Any) -> tuple[Any, Any, bool, Any]:
    """Return the arguments of `Tensor.to` and `Module.to` as PyTorch's own parser reads them: device, dtype, ..."""
    if args and isinstance(args[0], int) and not isinstance(args[0], bool):
        args = (f"cuda:{args[0]}", *args[1:])
    if isinstance(kwargs.get("device"), int):
        kwargs["device"] = f"cuda:{kwargs['device']}"
    device, *others = torch._C._nn._parse_to(*args, **kwargs)
    return _device(world, args[0]) if args and isinstance(args[0], Tensor) else device, *others  # type: ignore[return-value]


def _to(world: SimulatedDevice, tensor: Tensor, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
    if [type(value) for value in args[-2:]] == [bool, bool]:
        *args, copy = args  # type: ignore[assignment]
    device, dtype, non_blocking, memory_format = _parse_to(world, *args, **kwargs)
    source = world.place(tensor)
    stays = without_asking(source)
    stand_in, target = (tensor.device, stays) if device is None else world.target(device)
    if source == SKELETON != target:
        raise NotImplementedError(
            "Cannot copy out of meta tensor; no data! Please use torch.nn.Module.to_empty() instead of "
            "torch.nn.Module.to() when moving module from meta to a different device."
        )
    if target == HOST and source.startswith("cuda"):
        raise world.refusal("a copy to the host")
    # Between two places that both are on the meta device PyTorch sees nothing to do.
    moves = is_meta(tensor) and target not in (source, stays)
    options = {} if memory_format is None else {"memory_format": memory_format}
    with world.naming(target):
        return tensor.to(
            device=stand_in, dtype=dtype or tensor.dtype, non_blocking=non_blocking, copy=copy or moves, **options
        )


def _type_as(world: SimulatedDevice, tensor: Tensor, other: Tensor) -> Tensor:
    return _to(world, tensor, _device(world, other), other.dtype)


def _as_tensor(func: Any) -> Callable[..., Any]:
    """Return a call that takes a tensor, or a storage, as it is or moved."""

    def as_tensor(world: SimulatedDevice, data: Any, dtype: Any = None, device: Any = None, **options: Any) -> Tensor:
        if isinstance(data, Storage) and dtype and world.holds_no_values(data):
            # PyTorch takes one that has bytes only.
            data = torch.empty(0, dtype=dtype, device=META).set_(data)
        if isinstance(data, Tensor) and not options:
            return _to(world, data, _device(world, data) if device is None else device, dtype or data.dtype)
        return _call(world, func, (data,), {"dtype": dtype, "device": device, **options})

    return as_tensor


def _set_item(world: SimulatedDevice, tensor: Tensor, index: Any, value: Any) -> None:
    """Assign `tensor[index] = value`: a number becomes a tensor of the host only if indices are tensors or lists."""
    if isinstance(value, Tensor) or not world.holds_no_values(storage_of(tensor)):
        tensor[index] = value
    elif any(isinstance(one, Tensor | list) for one in (index if isinstance(index, tuple) else (index,))):
        with world.naming(HOST):
            number = torch.full((), value, dtype=tensor.dtype, device=world.target(CPU)[0])
        tensor[index] = number
    else:
        tensor[index].fill_(value)


def _cuda(
    world: SimulatedDevice, tensor: Tensor, device: Any = None, non_blocking: bool = False, **options: Any
) -> Tensor:
    return _to(world, tensor, "cuda" if device is None else device, non_blocking=non_blocking, **options)


def _cpu(world: SimulatedDevice, tensor: Tensor, **options: Any) -> Tensor:
    return _to(world, tensor, CPU, **options)


def _pin_memory(world: SimulatedDevice, tensor: Tensor, *_: Any, **_options: Any) -> Tensor:
    place = world.place(tensor)
    if place == PINNED:
        return tensor
    if place not in ON_HOST:
        raise RuntimeError(f"cannot pin a tensor of {_device(world, tensor)}: only dense CPU tensors can be pinned")
    with torch.no_grad():
        return world.pinned(tensor).copy_(tensor)


def _data_ptr(world: SimulatedDevice, tensor: Tensor) -> int:
    if not world.holds_no_values(storage_of(tensor)):
        return tensor.data_ptr()
    return storage_of(tensor).data_ptr() + int(tensor.storage_offset()) * tensor.element_size()


def _with_values_only(what: Callable[..., Any]) -> Callable[..., Any]:
    """Return `what` for tensors with values; without values it raises, since PyTorch would show none without a word."""

    def show(world: SimulatedDevice, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if world.holds_no_values(storage_of(tensor)):
            raise world.refusal(_name(what))
        return what(tensor, *args, **kwargs)

    return show


def _getter(name: str) -> Any:
    """Return the function that a mode gets for a read of a property of a tensor."""
    return getattr(Tensor, name).__get__


def _bool(world: SimulatedDevice, tensor: Tensor) -> bool:
    if world.answers is None or not world.holds_no_values(storage_of(tensor)):
        return bool(tensor)
    world.read_number(tensor)
    return next(world.answers)


def _item(world: SimulatedDevice, tensor: Tensor) -> Any:
    """Return a number: while questions are answered, its value does not matter."""
    if world.answers is None or not world.holds_no_values(storage_of(tensor)):
        return tensor.item()
    world.read_number(tensor)
    return 0.0


_ANSWERS: dict[Any, Callable[..., Any]] = {
    _getter("device"): _device,
    _getter("is_meta"): lambda world, tensor: world.place(tensor) == SKELETON,
    _getter("is_cuda"): lambda world, tensor: _device(world, tensor).type == "cuda",
    _getter("is_cpu"): lambda world, tensor: _device(world, tensor).type == "cpu",
    Tensor.get_device: _get_device,
    _getter("grad"): _grad,
    Tensor.data.__set__: _set_data,  # type: ignore[attr-defined]
    Tensor.grad.__set__: _set_grad,  # type: ignore[union-attr]
    Tensor.data_ptr: _data_ptr,
    Tensor.__bool__: _bool,
    Tensor.item: _item,
    torch.get_device: _get_device,
    torch._C._nn._parse_to: _parse_to,
    torch.device: lambda _, *args, **kwargs: torch.device(*args, **kwargs),
    torch.as_tensor: _as_tensor(torch.as_tensor),
    torch.asarray: _as_tensor(torch.asarray),
    Tensor.type_as: _type_as,
    Tensor.pin_memory: _pin_memory,
    Tensor.is_pinned: lambda world, tensor, *_, **_options: world.place(tensor) == PINNED,
    Tensor.__setitem__: _set_item,
    Tensor.to: _to,
    Tensor.cuda: _cuda,
    Tensor.cpu: _cpu,
    torch._has_compatible_shallow_copy_type: _same_kind,
    Tensor.__repr__: _with_values_only(Tensor.__repr__),
    Tensor.__format__: _with_values_only(Tensor.__format__),
}


def _name(func: Any) -> str:
    return resolve_name(func) or getattr(func, "__name__", str(func))
