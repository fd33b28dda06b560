"""Stand-ins for what PyTorch does for distributed tensors beside computing, where devices and ranks are simulated.

Where a shard begins it finds out with small tensors that have values, and what shape a result has with tensors that
stand for those of a GPU. Neither is the load's. And what rank 0 would send as a Python object a fake process group does
not send.
"""

import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any, overload
from unittest.mock import patch

import torch
from torch import distributed
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_map


@contextmanager
def unheard() -> Iterator[None]:
    """Hide calls from interceptors: within it all of them are real."""
    with _disable_current_modes(), torch._C.DisableTorchFunction():  # noqa: SLF001 - they have no other names
        yield


def _unheard(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with unheard():
            return function(*args, **kwargs)

    return call


class Chunks(Sequence[torch.Tensor]):
    """The shards of a tensor as FSDP2 makes them, each made when it is asked for: it asks for two of a thousand."""

    def __init__(self, tensor: torch.Tensor, count: int, dim: int) -> None:
        self._tensor, self._count, self._dim = tensor, count, dim

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...

    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(self._count))]
        place = range(self._count)[index]
        size = self._tensor.shape[self._dim]
        step = -(-size // self._count)
        start = place * step
        if size and start >= size:
            # As FSDP2 pads the list.
            return self._tensor.new_empty(0)
        return self._tensor.narrow(self._dim, start, min(step, size - start))


@dataclass(frozen=True)
class SentTensor:
    """Stands for a tensor that is sent as an object: a plan has none of its values."""

    shape: torch.Size
    dtype: torch.dtype

    @staticmethod
    def of(sent: Any) -> Any:
        """Return what stands for a tensor without a value; anything else as it is."""
        if not isinstance(sent, torch.Tensor):
            return sent
        # Interceptors say of a planned tensor that it is on the host.
        with unheard():
            return SentTensor(sent.shape, sent.dtype) if sent.is_meta else sent

    @staticmethod
    def received(sent: Any) -> Any:
        """Return the tensor that was sent."""
        return torch.zeros(sent.shape, dtype=sent.dtype) if isinstance(sent, SentTensor) else sent


@contextmanager
def simulated_ranks(rank: int, store: Callable[[], "distributed.Store"]) -> Iterator[None]:
    """Let a fake process group do for recipes: others find in a store what rank 0 sends as objects."""
    from torch.distributed.checkpoint.utils import _DistWrapper  # noqa: PLC0415 - a second
    from torch.distributed.fsdp._fully_shard import _fsdp_param  # noqa: PLC0415
    from torch.distributed.tensor import _utils  # noqa: PLC0415
    from torch.distributed.tensor._sharding_prop import ShardingPropagator  # noqa: PLC0415

    def broadcast_object_list(objects: list[Any], src: int | None = None, *_: Any, **_options: Any) -> None:
        assert src == 0
        # Every rank has sent as many by now.
        key = f"objects-{store().add(f'objects-of-{rank}', 1)}"
        if rank == 0:
            store().set(key, pickle.dumps(tree_map(SentTensor.of, objects)))  # type: ignore[arg-type]  # of bytes too
        else:
            sent = pickle.loads(store().get(key))  # noqa: S301 - of a process of this run
            objects[:] = tree_map(SentTensor.received, sent)

    join = _DistWrapper.__init__

    def join_alone(wrapper: Any, group: Any, _use_dist: bool, coordinator_rank: int) -> None:
        """Plan by itself what a rank reads, whatever others do, like `no_dist=True`."""
        join(wrapper, group, False, coordinator_rank)

    quiet = (
        (_utils, "_compute_local_shape_and_global_offset"),
        (ShardingPropagator, "_propagate_tensor_meta_non_cached"),
    )
    with ExitStack() as stack:
        # Not every version has all of them by these names; what is missing then is refused, as what wants values is.
        for owner, name in (one for one in quiet if hasattr(*one)):
            stack.enter_context(patch.object(owner, name, _unheard(getattr(owner, name))))
        stack.enter_context(patch.object(_fsdp_param, "_chunk_with_empty", Chunks))
        stack.enter_context(patch.object(_DistWrapper, "__init__", join_alone))
        stack.enter_context(patch.object(distributed, "broadcast_object_list", broadcast_object_list))
        yield
