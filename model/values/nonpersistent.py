"""Non-persistent buffers: no checkpoint has them, and a load has to leave them as the model is built."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from model.digest import TensorDigest

# For each such buffer, the digests of the values that it may have.
Known = Mapping[str, list[TensorDigest]]


def nonpersistent_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that are in no state dict and not on meta, by all of their names."""
    kept = model.state_dict().keys()
    buffers = model.named_buffers(remove_duplicate=False)
    return {name: buffer for name, buffer in buffers if name not in kept and not buffer.is_meta}


def nonpersistent_digests(model: nn.Module, to: torch.dtype | None) -> dict[str, list[TensorDigest]]:
    """Return the digests of such buffers as they are, and after a cast of the whole model."""
    return {
        name: [
            TensorDigest.of(buffer),
            *([TensorDigest.of(buffer.to(to))] if to and buffer.is_floating_point() else []),
        ]
        for name, buffer in nonpersistent_buffers(model).items()
        if buffer.layout == torch.strided
    }


def wrong_nonpersistent(model: nn.Module, known: Known, build: Callable[[], nn.Module]) -> str | None:
    """Return the name of such a buffer with other values than the model is built with; None if there is none.

    A buffer that differs each time the model is built does not count: the model is built again to find that out.
    """
    found = nonpersistent_buffers(model)
    wrong = [name for name, right in known.items() if name not in found or TensorDigest.of(found[name]) not in right]
    built = nonpersistent_buffers(build()) if wrong else {}
    return next((name for name in wrong if name in built and TensorDigest.of(built[name]) in known[name]), None)
