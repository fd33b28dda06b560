"""Non-persistent buffers: no checkpoint has them, and a load must keep the values of the built model."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from model.digest import TensorDigest


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


def wrong_nonpersistent(
    model: nn.Module, known: Mapping[str, list[TensorDigest]], build: Callable[[], nn.Module]
) -> str | None:
    """Return the name of such a buffer of a loaded model without any of the `known` values; None if there is none."""
    found = nonpersistent_buffers(model)
    wrong = [name for name, right in known.items() if name not in found or TensorDigest.of(found[name]) not in right]
    return first_wrong(wrong, known, build)


def first_wrong(
    wrong: list[str], known: Mapping[str, list[TensorDigest]], build: Callable[[], nn.Module]
) -> str | None:
    """Return the first of these buffers that a new model has with a known value; None if there is none.

    The others differ each time the model is built.
    """
    built = nonpersistent_buffers(build()) if wrong else {}
    return next((name for name in wrong if name in built and TensorDigest.of(built[name]) in known[name]), None)
