"""A model to save and load, as a value that describes it fully and can be shrunk and printed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.conformance.modules import BlueprintModule, BlueprintModuleWithState, named_tensors
from bench.conformance.poison import payload, poisoned
from model.state_dict import EXTRA_STATE

Shape = tuple[int, ...]

# The order of a tensor that skips elements of its memory.
GAPPED = "every second"

# How a tensor's elements lie in its memory.
ORDERS: dict[str, Callable[[Shape, torch.dtype], Tensor]] = {
    "contiguous": lambda shape, dtype: torch.empty(shape, dtype=dtype),
    "transposed": lambda shape, dtype: torch.empty(shape[::-1], dtype=dtype).permute(*reversed(range(len(shape)))),
    "channels_last": lambda shape, dtype: torch.empty(shape, dtype=dtype, memory_format=torch.channels_last),
    GAPPED: lambda shape, dtype: torch.empty((*shape[:-1], 2 * shape[-1]), dtype=dtype)[..., ::2],
}

# Extra state that stands for a tensor: a specimen is a value, which a tensor is not.
A_TENSOR = "a tensor"


@dataclass(frozen=True)
class Stored:
    """A tensor with memory of its own. `special`: its values are such as arithmetic treats apart."""

    dtype: str = "float32"
    shape: Shape = (2,)
    order: str = "contiguous"
    parameter: bool = True
    requires_grad: bool = True
    special: bool = False

    def make(self, _: list[Tensor]) -> Tensor:
        tensor = ORDERS[self.order](self.shape, getattr(torch, self.dtype))
        return nn.Parameter(tensor, self.requires_grad) if self.parameter else tensor

    def __str__(self) -> str:
        kind = "parameter" if self.parameter else "buffer"
        traits = ["" if self.requires_grad or not self.parameter else "frozen", self.order.replace("contiguous", "")]
        traits.append("special values" if self.special else "")
        return " ".join(filter(None, (*traits, f"{kind} {self.dtype}{list(self.shape)}")))


@dataclass(frozen=True)
class View:
    """Another tensor in the memory of an earlier one: of all of it, or of all but its first element."""

    of: int
    whole: bool = True
    parameter: bool = False

    def make(self, tensors: list[Tensor]) -> Tensor:
        seen = tensors[self.of].detach()
        seen = seen if self.whole else seen.view(-1)[1:]
        return nn.Parameter(seen) if self.parameter else seen

    def __str__(self) -> str:
        return f"{'parameter' if self.parameter else 'buffer'} that sees {'all' if self.whole else 'the tail'} of "


@dataclass(frozen=True)
class PlaceName:
    """One name of a tensor, which may have others; of no tensor, `register_buffer(name, None)`."""

    path: str
    tensor: int | None = 0
    persistent: bool = True


@dataclass(frozen=True)
class Blueprint:
    """A tree of modules: its tensors, their names in the order of registration, and what else there is.

    `extra_state` holds the path of a module and a value, `evaluating` the paths of modules in evaluation mode.
    """

    tensors: tuple[Stored | View, ...]
    names: tuple[PlaceName, ...]
    extra_state: tuple[tuple[str, Any], ...] = ()
    evaluating: tuple[str, ...] = ()

    def build(self) -> nn.Module:
        """Build the model before a load; tensors that no checkpoint holds have their values already."""
        made: list[Tensor] = []
        for plan in self.tensors:
            made.append(plan.make(made))
        model = self._module("")
        for name in self.names:
            module, _, own = name.path.rpartition(".")
            tensor = None if name.tensor is None else made[name.tensor]
            if isinstance(tensor, nn.Parameter):
                self._descend(model, module).register_parameter(own, tensor)
            else:
                self._descend(model, module).register_buffer(own, tensor, persistent=name.persistent)
        for index in self._unsaved():
            made[index].fill_(made[index].dtype != torch.bool)
        for path, _ in self.extra_state:
            self._descend(model, path)
        for path in self.evaluating:
            self._descend(model, path).training = False
        return model

    def saved(self) -> nn.Module:
        """Build the model that is saved: every tensor of a checkpoint has values of its own."""
        with poisoned():
            model = self.build()
        generator = torch.Generator().manual_seed(1)
        tensors, unsaved = dict(named_tensors(model)), self._unsaved()
        for index, path in {name.tensor: name.path for name in self.names}.items():
            stored = None if index is None else self.tensors[index]
            if isinstance(stored, Stored) and index not in unsaved:
                tensor = tensors[path]
                storage = tensor.untyped_storage()
                count = storage.nbytes() // tensor.element_size()
                values = payload(tensor.dtype, count, generator, special=stored.special)
                torch.empty(0, dtype=tensor.dtype).set_(storage).copy_(values)
        for path, value in self.extra_state:
            self._descend(model, path).extra = torch.tensor([1.5, 2.5]) if value == A_TENSOR else value
        return model

    def state_dict(self, model: nn.Module) -> dict[str, Any]:
        """Return the part of the saved model that is written to the checkpoint."""
        return model.state_dict()

    def suspects(self) -> set[str]:
        """Return the keys that a loader may have a reason to refuse: no separate tensor in every state dict."""
        shared = {index for index, tensor in enumerate(self.tensors) if isinstance(tensor, View)}
        shared |= {tensor.of for tensor in self.tensors if isinstance(tensor, View)}
        # A copy to another device leaves the elements out that such a tensor skips.
        shared |= {
            index for index, tensor in enumerate(self.tensors) if isinstance(tensor, Stored) and tensor.order == GAPPED
        }
        names = {name.path for name in self.names if name.tensor in shared or not name.persistent}
        return names | {f"{path}.{EXTRA_STATE}".lstrip(".") for path, _ in self.extra_state}

    def _unsaved(self) -> set[int]:
        """Return the tensors that no checkpoint holds, neither by a name nor in the memory of another."""
        held = {name.tensor for name in self.names if name.persistent}
        held |= {view.of for index, view in enumerate(self.tensors) if isinstance(view, View) and index in held}
        held |= {index for index, view in enumerate(self.tensors) if isinstance(view, View) and view.of in held}
        return set(range(len(self.tensors))) - held

    def _module(self, path: str) -> BlueprintModule:
        return BlueprintModuleWithState() if path in dict(self.extra_state) else BlueprintModule()

    def _descend(self, model: nn.Module, path: str) -> nn.Module:
        """Return the module of a path, made where it is not there yet."""
        here = ""
        for own in path.split(".") if path else ():
            here = f"{here}.{own}" if here else own
            if own not in model._modules:
                # Not `add_module`: that refuses the name of a method, an assignment takes it.
                setattr(model, own, self._module(here))
            below = model._modules[own]
            assert below is not None
            model = below
        return model

    def __str__(self) -> str:
        return "; ".join(self._sentences())

    def _sentences(self) -> Iterator[str]:
        named: dict[int | None, list[str]] = {}
        for name in self.names:
            named.setdefault(name.tensor, []).append(_shown(name))
        for index, tensor in enumerate(self.tensors):
            of = named[tensor.of][0] if isinstance(tensor, View) else ""
            yield f"{' = '.join(named[index])}: {tensor}{of}"
        for name in self.names:
            if name.tensor is None:
                yield f"{_shown(name)}: None"
        for path, value in self.extra_state:
            yield f"{path or 'the model'}: extra state {value!r}"
        for path in self.evaluating:
            yield f"{path or 'the model'}: evaluating"


def _shown(name: PlaceName) -> str:
    path = name.path if name.path.isprintable() and " " not in name.path else repr(name.path)
    return path if name.persistent else f"{path} (not persistent)"
