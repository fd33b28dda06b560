"""Models that a loader of another project is known to refuse, or to load wrongly."""

from collections import Counter
from collections.abc import Mapping
from textwrap import shorten

import torch
from torch import Tensor, nn

from bench.conformance.traits import properties_of
from bench.meters.process import LoadDied, LoadEnded
from bench.strategies import Strategy
from model.checkpoints.specification import Specification
from model.examine.safetensors_file import contiguous_stride, file_parts
from model.state_dict import first_names, untied
from model.user.user_model import UserModel
from model.verification.verify import WrongModel

# What every loader loads.
COMMON_DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}

# What peers refuse or load wrongly, of `PROPERTIES`, as users call it.
PHRASES = {
    "nonpersistent": "buffers that no state dict holds",
    "ties": "tied weights",
    "views": "tensors that are views of others",
    "strides": "tensors that are not contiguous",
    "gaps": "tensors that skip elements of their memory",
    "dtypes": "complex numbers and other rare dtypes",
    "buffers": "buffers",
    "empty": "tensors without dimensions or elements",
    "extra_state": "extra state of modules",
}

MOST_CHARACTERS = 300


def misfit(own: UserModel, strategy: Strategy, specification: Specification) -> str | None:
    """Say in a line why a peer cannot be given the user's model; None if it can, as far as is known without trying."""
    assert strategy.peer
    architecture, model = strategy.peer.architecture, own.skeleton()
    if architecture and not _is_of(model, architecture):
        return (
            f"{strategy.name} loads models of {architecture} only, and {own.label} is a {type(model).__name__}; "
            f"use accelerate"
        )
    if specification.layout == "safetensors" and not specification.in_place:
        state_dict = model.state_dict()
        try:
            file_parts({name: state_dict[name] for name in untied(state_dict)})
        except ValueError as error:
            return f"refused: {error}"
    return None


def _is_of(model: nn.Module, library: str) -> bool:
    """Return True if a model is of a class of transformers, by names: to import the library takes seconds."""
    kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(model).__mro__}
    return (library, "PreTrainedModel") in kinds


def refusal(strategy: Strategy, device: str, own: UserModel, error: LoadEnded) -> str | None:
    """Say in a line that a peer does not load the user's model, where its row says so; None where it does not.

    A wrong tensor has to be one of those that the row is about. So has one that an error names, unless the row says
    that it is refused.
    """
    assert strategy.peer
    kind, _, message = str(error).partition(": ")
    refused, wrong = strategy.refused(device), strategy.peer.wrong.split()
    for name, tensors in features(own.skeleton()).items():
        what = PHRASES[name]
        if isinstance(error, LoadDied):
            if name in strategy.peer.dies.split():
                return f"refused: {what} end its process: {one_line(error)}"
        elif kind == WrongModel.__name__:
            if name in wrong and message.partition(" ")[0] in tensors:
                return f"refused: it loads {what} wrongly: {message}"
        elif name in refused or (name in wrong and any(tensor in message for tensor in tensors)):
            return f"refused: it does not load {what}: {one_line(error)}"
    return None


def one_line(error: LoadEnded) -> str:
    """Say in a line how a load ended: of a trace in what an error says its last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    traced = any(line.startswith("Traceback") for line in lines)
    message = lines[-1] if traced else " ".join(lines)
    return shorten(message.removesuffix("."), MOST_CHARACTERS, placeholder=" ...")


def features(model: nn.Module) -> dict[str, list[str]]:
    """Return the properties of `PROPERTIES` that peers refuse or load wrongly, with the names of what has them.

    A meta skeleton will do.
    """
    state_dict = model.state_dict()
    tensors = {name: value for name, value in state_dict.items() if isinstance(value, Tensor)}
    firsts = first_names(tensors)
    names = Counter(firsts.values())
    buffers: Mapping[str, Tensor] = dict(model.named_buffers(remove_duplicate=False))
    found = properties_of(model) | {
        "ties": [name for name, first in firsts.items() if names[first] > 1],
        "strides": [name for name, one in tensors.items() if one.stride() != contiguous_stride(one.shape)],
        "dtypes": [name for name, one in tensors.items() if one.dtype not in COMMON_DTYPES],
        "buffers": [name for name in tensors if name in buffers],
        "empty": [name for name, one in tensors.items() if not one.dim() or not one.numel()],
    }
    return {name: having for name, having in found.items() if having}
