"""Memory that CUDA takes of the device for an operation beside its result, as torch 2.14.1 takes it.

Operations whose memory depends on the kind of GPU are refused; only cuBLAS' workspace is that of one kind.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from bench.meters.simulated.ledger import Storage
from bench.meters.simulated.simulated_device import META, SimulatedDevice, meta_storage, storage_of, tensors

aten = torch.ops.aten

# On Hopper and Blackwell; other GPUs take 8.125 MiB: see `parseChosenWorkspaceSize` in `CublasHandlePool.cpp`.
WORKSPACE_BYTES = 32 * 2**20

# A reduction of so many elements to one is never split among blocks, on no GPU: see `setReduceConfig` in `Reduce.cuh`.
# A thread takes less than 256, and of rows that lie one behind the other 256 threads or more take one, of others 4.
WHOLE_ROW_ELEMENTS = 255 * 256
WHOLE_ELEMENTS = 255 * 4

_PRODUCTS = (
    *(aten.mm, aten.addmm, aten.addmm_, aten.bmm, aten.baddbmm, aten.baddbmm_, aten.addbmm, aten._addmm_activation),
    *(aten.mv, aten.addmv, aten.addmv_, aten.dot, aten.vdot),
)

# Their memory depends on the GPU, for any size.
_BY_GPU = (aten.randperm, aten.sort, aten.topk, aten.cumsum, aten.cumprod, aten.count_nonzero)

_MASKS = (torch.bool, torch.uint8)


class Kernels:
    """Memory that operations take of a device in between, and the workspaces that products leave there."""

    def __init__(self, world: SimulatedDevice, environ: Mapping[str, str]) -> None:
        self._world = world
        self._workspace_bytes = workspace_bytes(environ)
        self._workspaces: dict[tuple[int, int], Storage] = {}

    def clear_workspaces(self) -> None:
        self._workspaces.clear()

    def brought(
        self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], place: str | None
    ) -> tuple[Any, ...]:
        """Return the arguments as a device gets them: copies count for as long as they are referred to.

        Raises the error of a recipe that asks for memory that depends on the GPU.
        """
        if not place or not place.startswith("cuda"):
            return args
        # What answers are there for is asked where more is taken before and after it.
        if self._world.answers is None and (func.overloadpacket in _BY_GPU or _is_split(func, args, kwargs)):
            raise self._world.lack(f"{func} (on CUDA its memory depends on the GPU)")
        if func is aten.where.self:
            dtype = torch.result_type(args[1], args[2])
            return args[0], *(self._on_device(one, place, dtype) for one in args[1:])
        if func in (aten.masked_fill.Tensor, aten.masked_fill_.Tensor) and args[2].ndim == 0:
            # Its number is what kernels get.
            self._world.read_number(args[2])
            return *args[:2], torch.empty((), dtype=args[2].dtype, device=META)
        if func.overloadpacket in (aten.index, aten.index_put, aten.index_put_):
            return self._indexed(func, args, place)
        return args

    def _indexed(self, func: Any, args: tuple[Any, ...], place: str) -> tuple[Any, ...]:
        tensor, indices, *values = args
        if any(one is not None and one.dtype in _MASKS and self._world.place(one) == place for one in indices):
            # A mask of the device is read, except where it says what gets a number.
            if values and (values[0].ndim or self._world.place(values[0]) == place):
                raise self._world.refusal(str(func))
            return args
        values = [self._on_device(one, place) if isinstance(one, Tensor) else one for one in values]
        return tensor, self._indices(indices, place), *values

    def product(self, func: Any, args: tuple[Any, ...], out: Any, place: str | None) -> None:
        """Make what a matrix product makes beside its result: copies of matrices with gaps, and its workspace."""
        if not place or func.overloadpacket not in _PRODUCTS or not all(one.numel() for one in tensors((out, *args))):
            return
        copies = [self._fresh(one, place) for one in tensors(args) if not _is_matrix(one)]
        key = self._world.handle, self._world.ledger.thread.stream
        if key not in self._workspaces:
            self._workspaces[key] = storage = meta_storage(self._workspace_bytes)
            self._world.adopt(storage, place)
        del copies

    def _indices(self, indices: list[Tensor | None], place: str) -> list[Tensor | None]:
        brought = [one for index in indices for one in self._index(index, place)]
        found = [one for one in brought if one is not None]
        alike = torch.broadcast_tensors(*found)
        if all(one.stride() == alike[0].stride() for one in alike):
            return brought
        # Kernels take one order of all. The copies are made before what they are made of goes.
        ordered = (self._in_order(one, place) for one in alike)
        return [one if one is None else next(ordered) for one in brought]

    def _index(self, index: Tensor | None, place: str) -> Iterator[Tensor | None]:
        if index is None:
            yield None
        elif index.dtype in _MASKS:
            yield from self._on_device(index.nonzero(), place).unbind(1)
        else:
            yield self._on_device(self._on_device(index, place), place, torch.long)

    def _on_device(self, tensor: Tensor, place: str, dtype: torch.dtype | None = None) -> Tensor:
        dtype = dtype or tensor.dtype
        if self._world.place(tensor) == place and tensor.dtype == dtype:
            return tensor
        return self._fresh(tensor, place, dtype)

    def _in_order(self, tensor: Tensor, place: str) -> Tensor:
        return tensor if tensor.is_contiguous() else self._fresh(tensor, place)

    def _fresh(self, tensor: Tensor, place: str, dtype: torch.dtype | None = None) -> Tensor:
        made = torch.empty(tensor.shape, dtype=dtype or tensor.dtype, device=META)
        self._world.adopt(storage_of(made), place)
        return made


def workspace_bytes(environ: Mapping[str, str]) -> int:
    """Return the bytes of cuBLAS' workspace: `CUBLAS_WORKSPACE_CONFIG` has pairs of `:KiB:count`."""
    pairs = re.findall(r":(\d+):(\d+)", environ.get("CUBLAS_WORKSPACE_CONFIG", ""))
    return sum(int(kib) * int(count) * 2**10 for kib, count in pairs) if pairs else WORKSPACE_BYTES


def _is_split(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Return True if some GPU may split a reduction among blocks, which takes memory."""
    # Older ones have no such tag.
    if getattr(torch.Tag, "reduction", None) not in func.tags or not isinstance(args[0], Tensor):
        return False
    tensor, names = args[0], [argument.name for argument in func._schema.arguments]
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    dims = given.get("dim")
    dims = [dims] if isinstance(dims, int) else dims or range(tensor.ndim)
    reduced = {dim % tensor.ndim for dim in dims}
    rows = tensor.is_contiguous() and min(reduced, default=0) == tensor.ndim - len(reduced)
    return math.prod(tensor.shape[dim] for dim in reduced) > (WHOLE_ROW_ELEMENTS if rows else WHOLE_ELEMENTS)


def _is_matrix(tensor: Tensor) -> bool:
    """Return True if cuBLAS takes the matrices of a tensor as they are: rows or columns without gaps."""
    if tensor.ndim <= 1:
        return True
    (rows, columns), (row, column) = tensor.shape[-2:], tensor.stride()[-2:]
    return (column == 1 and row >= max(1, columns)) or (row == 1 and column >= max(1, rows))
