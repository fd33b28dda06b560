"""Buffers that no checkpoint has: a load gives them the values that the model is built with."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from model.foreign import Digest

# Of every such buffer, by its name, the digests of what it may be.
Known = Mapping[str, list[Digest]]


def beside(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that are in no state dict and have values, by all of their names."""
    kept = model.state_dict().keys()
    buffers = model.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in buffers if name not in kept and not buffer.is_meta}


def known_beside(model: nn.Module, to: torch.dtype | None) -> dict[str, list[Digest]]:
    """Return the digests of such buffers, and of what a cast of the whole model makes of them."""
    return {
        name: [Digest.of(buffer), *([Digest.of(buffer.to(to))] if to and buffer.is_floating_point() else [])]
        for name, buffer in beside(model).items()
        if buffer.layout == torch.strided
    }


def wrong_beside(model: nn.Module, known: Known, build: Callable[[], nn.Module]) -> str | None:
    """Return the name of such a buffer that a loaded model has not as it is built; None if it has all so.

    A model whose values are others each time it is built is built once more to find that out.
    """
    found = beside(model)
    wrong = [name for name, right in known.items() if name not in found or Digest.of(found[name]) not in right]
    built = beside(build()) if wrong else {}
    return next((name for name in wrong if name in built and Digest.of(built[name]) in known[name]), None)
