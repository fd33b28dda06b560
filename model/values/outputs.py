"""Outputs of a model, compared with those of the saved model, and buffers that a forward pass changes."""

import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from model.digest import bytes_of
from model.state_dict import EXTRA_STATE
from model.values.bits import difference, same_value

# Largest error of outputs, relative to the largest finite one: the weights are equal to the bit, but another device or
# another number of threads adds their products in another order. At least one step of the dtype.
TOLERANCE = {torch.bfloat16: 5e-2, torch.float16: 1e-2}
LEAST_TOLERANCE = 1e-3


class Comparability(StrEnum):
    """Devices on which two models with the same weights have the same outputs."""

    ANYWHERE = "anywhere"
    # Random numbers of one seed differ between kinds of devices.
    ON_HOST = "on the host"
    NOWHERE = "nowhere"
    # The checkpoint lacks some weights, which differ between models.
    IN_PART_NEW = "nowhere: a part is new"


@dataclass(frozen=True)
class ReferenceOutputs:
    """First outputs of a saved model, and where those of another one can be compared with them.

    `changed` are names of state that a forward pass writes to, replaces or adds.
    """

    outputs: list[Tensor]
    compared: Comparability = Comparability.ANYWHERE
    changed: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """A sentence on a model whose outputs are not compared everywhere; None of others."""
        return {
            Comparability.NOWHERE: "answers differently when it is asked twice, so its outputs are not compared, only "
            "its weights",
            Comparability.ON_HOST: "draws random numbers in its forward pass, so its outputs are compared on the CPU "
            "alone",
        }.get(self.compared)

    def difference(self, outputs: list[Tensor]) -> str | None:
        """Return the difference to the outputs of another model; None if they are equal, or cannot be compared."""
        on_host = all(output.device.type == "cpu" for output in outputs)
        if self.compared in (Comparability.NOWHERE, Comparability.IN_PART_NEW) or (
            self.compared == Comparability.ON_HOST and not on_host
        ):
            return None
        return difference_in_outputs(outputs, self.outputs)


def reference_outputs(model: nn.Module, ask: Callable[[int], list[Tensor]], seed: int) -> ReferenceOutputs:
    """Run a forward pass twice, with another seed the second time, and a third time where that made a difference.

    `ask(seed)` runs a forward pass. Its changes of the model are undone before the next.
    """
    state = ModelSnapshot(model, {name for name, _ in model.named_buffers()}, summed=True)
    changed: set[str] = set()

    def asked(seed: int) -> list[Tensor]:
        # A copy: it may be a buffer that the next pass writes to.
        outputs = [output.detach().cpu().clone() for output in ask(seed)]
        changed.update(state.changed())
        state.restore()
        return outputs

    first, compared = asked(seed), Comparability.ANYWHERE
    if difference_in_outputs(asked(seed + 1), first):
        compared = Comparability.NOWHERE if difference_in_outputs(asked(seed), first) else Comparability.ON_HOST
    return ReferenceOutputs(first, compared, tuple(sorted(changed)))


class ModelSnapshot:
    """A snapshot of a model with the values of `names`, so that a forward pass can be undone.

    `summed`: a checksum of all other tensors is kept, so that a change of their values is noticed.
    """

    def __init__(self, model: nn.Module, names: set[str], *, summed: bool = False) -> None:
        self._model = model
        self._tensors = dict(_tensors(model))
        self._places = {path: [dict(place) for place in _places(one)] for path, one in model.named_modules()}
        others = self._tensors.keys() - names if summed else set()
        self._sums = {name: _checksum(self._tensors[name]) for name in others}
        self._versions = {name: _version(tensor) for name, tensor in self._tensors.items()}
        self._values = {name: tensor.detach().clone() for name, tensor in self._tensors.items() if name in names}
        self._extra = deepcopy(dict(_extra_state(model)))

    def changed(self) -> set[str]:
        """Return the names of state that was written to, replaced, added or removed since."""
        now, extra = dict(_tensors(self._model)), dict(_extra_state(self._model))
        others = {name for name, value in extra.items() if not same_value(value, self._extra.get(name))}
        return others | {name for name in self._tensors.keys() | now.keys() if self._is_changed(name, now.get(name))}

    def _is_changed(self, name: str, now: Tensor | None) -> bool:
        if now is None or now is not self._tensors.get(name) or _version(now) != self._versions[name]:
            return True
        # Some writes to a tensor do not raise its version.
        if name in self._sums:
            return _checksum(now) != self._sums[name]
        return name in self._values and not same_value(now.data, self._values[name])

    def restore(self) -> None:
        """Undo the changes since, as far as the values are known."""
        changed = self.changed()
        # This removes added modules, and brings back tensors that were replaced or filled in.
        for path, kept in self._places.items() if changed else ():
            for place, before in zip(_places(self._model.get_submodule(path)), kept, strict=True):
                place.clear()
                place.update(before)
        for name in changed:
            if name in self._extra:
                self._model.get_submodule(name.rpartition(".")[0]).set_extra_state(self._extra[name])
            elif name in self._values:
                tensor, value = self._tensors[name], self._values[name]
                if tensor.shape == value.shape:
                    tensor.data.copy_(value)
                else:
                    tensor.data = value.clone()


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers that are not on meta."""
    named = (*model.named_parameters(), *model.named_buffers())
    return ((name, tensor) for name, tensor in named if not tensor.is_meta)


def _places(module: nn.Module) -> tuple[dict[str, Any], ...]:
    """Return the dicts of parameters, buffers and modules of a module, None values included."""
    return module._parameters, module._buffers, module._modules  # noqa: SLF001 - no public name sets them to None


def _checksum(tensor: Tensor) -> int | None:
    """Return the CRC-32 of a contiguous tensor on the host; None of others."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        return None
    return zlib.crc32(bytes_of(tensor))


def _extra_state(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the extra state of modules, by its name in a state dict."""
    for path, module in model.named_modules():
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            yield ".".join(filter(None, (path, EXTRA_STATE))), module.get_extra_state()


def _version(tensor: Tensor) -> int:
    """Return the version of a tensor, which most writes raise; 0 for inference tensors, which have none."""
    return 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - its only name


def difference_in_outputs(outputs: list[Tensor], saved: list[Tensor]) -> str | None:
    """Return the difference between the outputs of two models; None if they are equal but for rounding."""
    if len(outputs) != len(saved):
        return f"the model returns {len(outputs)} tensors, where the saved one returned {len(saved)}"
    return next(filter(None, map(_difference, outputs, saved)), None)


def _difference(output: Tensor, saved: Tensor) -> str | None:
    """Return the difference of one tensor.

    Values that are not finite have to be equal; the error of the others is relative to the largest of them.
    """
    if output.shape != saved.shape or output.dtype != saved.dtype:
        return f"the first logits are {_kind_of(output)}, where the saved model's are {_kind_of(saved)}"
    # The common case takes no memory, which would count as that of the load that is checked.
    if difference(output, saved) is None:
        return None
    if not (saved.is_floating_point() or saved.is_complex()):
        return f"the first outputs, {_kind_of(saved)}, are other ones"
    found, wanted = _as_double(output), _as_double(saved)
    finite = wanted.isfinite()
    alike = torch.where(finite, found.isfinite(), (found == wanted) | (found.isnan() & wanted.isnan()))
    if not alike.all():
        first = int((~alike).int().argmax())
        value, expected = found[first].item(), wanted[first].item()
        return f"the first logits are {value:g} at flat index {first:,}, where the saved model's are {expected:g}"
    error, largest = (_largest(one.masked_fill(~finite, 0)) for one in (found - wanted, wanted))
    if error <= tolerance(saved.dtype) * largest:
        return None
    return f"the first logits are off by {error:.3g}, where the saved model's reach {largest:.3g}"


def tolerance(dtype: torch.dtype) -> float:
    """Return the largest error of outputs of a dtype, relative to the largest of them."""
    return TOLERANCE.get(dtype, max(LEAST_TOLERANCE, torch.finfo(dtype).eps))


def _largest(values: Tensor) -> float:
    return values.abs().max().item() if values.numel() else 0.0


def _as_double(tensor: Tensor) -> Tensor:
    """Return the values in one dimension; of complex ones the real and imaginary parts."""
    if tensor.is_complex():
        return torch.view_as_real(tensor.cpu().to(torch.complex128)).flatten()
    return tensor.cpu().double().flatten()


def _kind_of(tensor: Tensor) -> str:
    return f"{tensor.dtype} of shape {list(tensor.shape)}"
