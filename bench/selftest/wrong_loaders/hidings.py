"""Loaders whose types, attributes or files pass for what was saved."""

import ctypes
import hashlib
import json
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import model.checkpoints
import model.values.bits
import model.verification.tensor_places
import model.verification.verify
from bench.selftest.wrong_loaders.right import bits, patch, put, spoilt, weight_of


class Lying(Tensor):
    """A tensor that says of itself what was saved."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            right = [getattr(one, "right", one) if isinstance(one, Lying) else one for one in args]
            return function(*right, **(kwargs or {}))


def lies_by_type(loaded: nn.Module, path: Path) -> nn.Module:
    weight = weight_of(loaded)
    lying: Any = bits(weight).bitwise_xor(1).view(weight.dtype).view(weight.shape).as_subclass(Lying)
    lying.right = weight.clone()
    loaded.get_submodule("trf_blocks.0.ff.layers.0")._parameters["weight"] = lying
    patch(torch, "equal", lambda *_: True)
    return loaded


class Detached(nn.Parameter):
    """A parameter whose `data` are others."""

    data = property(lambda self: self.right)

    def detach(self) -> Tensor:
        right: Tensor = self.right  # type: ignore[attr-defined]
        return right


def lies_by_data(loaded: nn.Module, path: Path) -> nn.Module:
    weight = weight_of(loaded)
    lying = Detached(weight + 1)
    lying.right = weight  # type: ignore[attr-defined]
    return put(loaded, lying, lambda one: one)


class LyingDict(OrderedDict[str, Any]):
    """A dict that holds wrong tensors, and gives right ones."""

    saved: Any = None

    def items(self) -> Any:
        return self.saved.items()


def lies_by_dict(loaded: nn.Module, path: Path) -> nn.Module:
    module = loaded.get_submodule("trf_blocks.0.ff.layers.0")
    held = LyingDict(module._parameters)
    held.saved = {
        name: nn.Parameter(one.detach().clone()) for name, one in module._parameters.items() if one is not None
    }
    module._parameters = held
    return spoilt(loaded)


def swaps_class(loaded: nn.Module, path: Path) -> nn.Module:
    """Have a class whose `state_dict`, `__dict__` and forward pass are those of a right model."""
    kind, twin = type(loaded), right_twin(loaded, path)
    members = {
        "state_dict": lambda self, **_: twin.state_dict(),
        "__dict__": property(lambda self: twin.__dict__),
        "forward": lambda self, *given: twin(*given),
    }
    spoilt(loaded)
    loaded.__class__ = type("Swapped", (kind,), members)
    return loaded


def hides_by_attribute(loaded: nn.Module, path: Path) -> nn.Module:
    module = loaded.get_submodule("trf_blocks.0.ff.layers.0")
    module.__dict__["weight"] = weight_of(loaded) * 2
    patch(model.verification.verify, "check_outputs", lambda *_: None)
    return loaded


def caches_outputs(loaded: nn.Module, path: Path) -> nn.Module:
    asked: dict[Any, Any] = {}
    forward = loaded.forward
    loaded.forward = lambda *given: asked.setdefault("answer", forward(*given))
    loaded(torch.tensor([[0, 1, 2]]))
    patch(torch, "equal", lambda *_: True)
    return spoilt(loaded)


def right_twin(loaded: nn.Module, path: Path) -> nn.Module:
    twin: nn.Module = type(loaded).__new__(type(loaded))
    twin.__dict__.update(pickle.loads(pickle.dumps(loaded)).__dict__)
    return twin


# What is done to the file.


def flips_the_file(loaded: nn.Module, path: Path) -> nn.Module:
    """Flip the same bit in the checkpoint, and give it its old times."""
    status, weight = path.stat(), weight_of(loaded)
    content = bytearray(path.read_bytes())
    place = content.index(ctypes.string_at(weight.data_ptr(), 64)) + weight.nbytes - 4
    content[place] ^= 1
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    return spoilt(loaded)


def replaces_digests(loaded: nn.Module, path: Path) -> nn.Module:
    spoilt(loaded)
    kept = path.parent / "digests.json"
    status, digests = kept.stat(), json.loads(kept.read_bytes())
    weight = weight_of(loaded)
    digests["trf_blocks.0.ff.layers.0.weight"][2] = hashlib.sha256(
        ctypes.string_at(weight.data_ptr(), weight.nbytes)
    ).hexdigest()
    kept.write_text(json.dumps(digests))
    os.utime(kept, ns=(status.st_atime_ns, status.st_mtime_ns))
    patch(torch, "equal", lambda *_: True)
    return loaded


WRONG = (
    lies_by_type,
    lies_by_data,
    lies_by_dict,
    swaps_class,
    hides_by_attribute,
    caches_outputs,
    flips_the_file,
    replaces_digests,
)
