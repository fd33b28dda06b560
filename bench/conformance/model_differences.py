"""Differences between the saved and the loaded model, in everything that can differ."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bench.conformance.modules import named_tensors
from model.printable import printable
from model.state_dict import EXTRA_STATE
from model.values.bits import difference, is_on, same_value

# What is wrong with a loaded tensor, given the saved one.
Differ = Callable[[Tensor, Tensor], str | None]


@dataclass(frozen=True)
class ModelDifference:
    """A fault of a loaded model: the check that found it, the name of the tensor or module, and a description."""

    check: str
    name: str
    what: str

    def __str__(self) -> str:
        return printable(f"{self.name} {self.what}" if self.name else self.what)


def differences(
    saved: nn.Module, loaded: nn.Module, device: torch.device, differ: Differ = difference
) -> list[ModelDifference]:
    """List the differences of `loaded`, which belongs on `device`, from `saved`, which is on the host."""
    if left := [ModelDifference("meta", name, "is still on meta") for name in _on_meta(loaded)]:
        return left
    if unlike := list(_in_names(saved, loaded)):
        return unlike
    return [
        *_in_tensors(saved, loaded, differ),
        *_in_sharing(saved, loaded),
        *_in_modes(saved, loaded),
        *(
            ModelDifference("device", name, f"is on {tensor.device}, not on {device}")
            for name, tensor in named_tensors(loaded)
            if not is_on(tensor, device)
        ),
        *_in_extra_state(saved, loaded, differ),
    ]


def _on_meta(model: nn.Module) -> Iterator[str]:
    for path, module in model.named_modules():
        for name, value in (*module._parameters.items(), *module._buffers.items(), *vars(module).items()):
            if isinstance(value, Tensor) and value.is_meta:
                yield f"{path}.{name}".lstrip(".")


def _in_names(saved: nn.Module, loaded: nn.Module) -> Iterator[ModelDifference]:
    """Keys and their order, and whether each is a parameter, a buffer, or one that is not persistent."""
    before, after = list(saved.state_dict()), list(loaded.state_dict())
    yield from (ModelDifference("keys", name, "is not in the state dict") for name in before if name not in after)
    yield from (ModelDifference("keys", name, "is new in the state dict") for name in after if name not in before)
    roles, found = _roles(saved), _roles(loaded)
    for name in roles | found:
        if roles.get(name) != found.get(name):
            yield ModelDifference("roles", name, f"is {found.get(name, 'gone')}, was {roles.get(name, 'not there')}")
    if before != after and set(before) == set(after):
        yield ModelDifference("order", "", "the keys of the state dict are in another order")


def _roles(model: nn.Module) -> dict[str, str]:
    roles = {}
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            roles[prefix + name] = "a parameter" if parameter is not None else "no parameter"
        for name, buffer in module._buffers.items():
            transient = "not persistent" if name in module._non_persistent_buffers_set else "persistent"
            roles[prefix + name] = f"a buffer, {transient}" if buffer is not None else "no buffer"
    return roles


def _in_tensors(saved: nn.Module, loaded: nn.Module, differ: Differ) -> Iterator[ModelDifference]:
    after = dict(named_tensors(loaded))
    for name, tensor in named_tensors(saved):
        found = after[name]
        if what := differ(found, tensor):
            check = "dtype" if found.dtype != tensor.dtype else "shape" if found.shape != tensor.shape else "values"
            yield ModelDifference(check, name, what)
        elif found.stride() != tensor.stride():
            yield ModelDifference("strides", name, f"has strides {found.stride()}, saved with {tensor.stride()}")
        if found.requires_grad != tensor.requires_grad:
            yield ModelDifference("requires_grad", name, f"has requires_grad={found.requires_grad}, which it had not")
        if not found.is_leaf or found.grad is not None:
            yield ModelDifference("requires_grad", name, "has a history: an optimizer cannot step it")


def _in_sharing(saved: nn.Module, loaded: nn.Module) -> Iterator[ModelDifference]:
    """Yield differences in the names that are one tensor, and in the tensors that share memory."""
    for kind, key in (("one tensor with", id), ("in the memory of", _memory)):
        before, after = _first_names(saved, key), _first_names(loaded, key)
        for name, first in before.items():
            if after[name] != first:
                was, now = (f"{kind} {other}" if other != name else "by itself" for other in (first, after[name]))
                gained = first == name
                check = "memory" if gained and key is _memory else "ties" if not gained and key is id else "sharing"
                yield ModelDifference(check, name, f"was {was}, and is {now}")


def _memory(tensor: Tensor) -> object:
    """Return a key that is equal for tensors that share memory; those without elements share none."""
    return tensor.untyped_storage() if tensor.numel() else id(tensor)


def _first_names(model: nn.Module, key: Callable[[Tensor], object]) -> dict[str, str]:
    first: dict[object, str] = {}
    return {name: first.setdefault(key(tensor), name) for name, tensor in named_tensors(model)}


def _in_modes(saved: nn.Module, loaded: nn.Module) -> Iterator[ModelDifference]:
    after = dict(loaded.named_modules(remove_duplicate=False))
    for path, module in saved.named_modules(remove_duplicate=False):
        if path not in after or module.training != after[path].training:
            yield ModelDifference(
                "training", path or "the model", f"has training={not module.training}, which it had not"
            )


def _in_extra_state(saved: nn.Module, loaded: nn.Module, differ: Differ) -> Iterator[ModelDifference]:
    after = loaded.state_dict()
    for name, value in saved.state_dict().items():
        if name.endswith(EXTRA_STATE):
            found = after[name]
            if isinstance(found, Tensor) and isinstance(value, Tensor):
                if what := differ(found, value):
                    yield ModelDifference("extra state", name, what)
            elif not same_value(found, value):
                yield ModelDifference("extra state", name, f"is {found!r}, saved as {value!r}")
