"""Faults of the CUDA path, and what finds each.

A fault is another text for a line of a function. `test_cuda_faults.py` puts each into the suite.
"""

import inspect
import multiprocessing
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import TypeVar

import torch
from torch import Tensor

from bench.meters import child, roofline
from bench.meters.clock import LoadClock
from bench.meters.cuda import CudaMeter
from bench.strategies.load_assign import load_assign
from bench.strategies.per_tensor import per_tensor
from bench.strategies.reading import memory
from bench.strategies.reading.assign import empty
from bench.strategies.reading.memory import Ring
from model.values import bits

Made = TypeVar("Made")


@dataclass(frozen=True)
class CudaFault:
    """A line of a function, and what it becomes."""

    function: Callable[..., object]
    line: str
    becomes: str = "pass"

    @property
    def code(self) -> CodeType:
        """Return the function's code with the fault."""
        assert isinstance(self.function, FunctionType)
        source = textwrap.dedent(inspect.getsource(self.function))
        assert source.count(self.line) == 1, f"{self.line!r} is not one line of {self.function.__qualname__}"
        compiled = compile(source.replace(self.line, self.becomes), self.function.__code__.co_filename, "exec")
        return next(
            one for one in compiled.co_consts if isinstance(one, CodeType) and one.co_name == self.function.__name__
        )


def with_fault(fault: CudaFault | None, make: Callable[[], Made]) -> Made:
    """Return what `make` makes; in the process of a load, put the fault in first. It ends with the process."""
    if fault and multiprocessing.parent_process():
        fault.function.__code__ = fault.code
    return make()


KEPT: list[object] = []


def copy_beside(tensor: Tensor, saved: Tensor, *, recorded: bool) -> None:
    """Copy to the device, and from there on a second stream; `recorded`: the allocator is told of that stream."""
    KEPT.append(torch.cuda.Stream(tensor.device))
    staged = saved.to(tensor.device)
    with torch.cuda.stream(KEPT[-1]):  # type: ignore[arg-type]
        tensor.detach().copy_(staged)
    if recorded:
        staged.record_stream(KEPT[-1])  # type: ignore[arg-type]


def copy_from_one_place(tensor: Tensor, saved: Tensor) -> None:
    """Copy through one page-locked block, and wait for nothing."""
    if not KEPT:
        KEPT.append(torch.empty(2**20, dtype=torch.uint8).pin_memory())
    place = KEPT[0][: saved.nbytes].view(saved.dtype).view(saved.shape)  # type: ignore[index]
    tensor.detach().copy_(place.copy_(saved), non_blocking=True)


HERE = "import bench.selftest.cuda_faults as here; here."
KEEP, DIFFERS = HERE + "KEPT.append", "WrongModel: … differs in"
COPY, TO_END = "tensor.detach().copy_(saved.to(tensor.dtype))", "\n        del saved  # Before the next one is read.\n"


def copying(by: str) -> CudaFault:
    """Return a fault of `per_tensor`: it copies another way, and waits at the end."""
    return CudaFault(per_tensor, COPY + TO_END, f"{HERE}{by}{TO_END}    torch.cuda.synchronize(device)\n")


# By its name: the fault, the check of `test_cuda_faults.py` that finds it, and what that says, whatever stands for `…`.
FAULTS = {
    "a slot of the ring is used again before it is copied": (
        CudaFault(Ring.fill, "copied.synchronize()"),
        "peak of streamed",
        DIFFERS,
    ),
    "an event is recorded before the copy that it is for": (
        CudaFault(
            Ring.fill,
            "part.copy_(source, non_blocking=True)\n                copied.record()",
            "copied.record()\n                part.copy_(source, non_blocking=True)",
        ),
        "peak of streamed",
        DIFFERS,
    ),
    "an event is recorded on another stream": (
        CudaFault(Ring.fill, "copied.record()", "copied.record(torch.cuda.default_stream())"),
        "peak of streamed",
        DIFFERS,
    ),
    "the stream of copies is on another device": (
        CudaFault(Ring.__init__, "torch.cuda.Stream(device)", "torch.cuda.Stream('cuda:0')"),
        "peak of streamed to cuda:1",
        DIFFERS,
    ),
    "the last copies are not waited for": (
        CudaFault(Ring.close, "self._stream.synchronize()"),
        "equivalence of streamed",
        "differs in … nan",
    ),
    "another stream is waited for": (
        CudaFault(Ring.close, "self._stream.synchronize()", "torch.cuda.current_stream().synchronize()"),
        "equivalence of streamed",
        "differs in … nan",
    ),
    "copies do not wait for what was asked before": (
        CudaFault(Ring.__init__, "self._stream.wait_stream(torch.cuda.current_stream(device))"),
        "test: memory of a copy",
        "0.0 == 1048576",
    ),
    "page-locked memory stays cached": (
        CudaFault(Ring.close, '(getattr(torch.accelerator, "empty_host_cache", None) or torch._C._host_emptyCache)()'),
        "test: page-locked memory left",
        "131072 == 0",
    ),
    "a slot of the ring is kept": (
        CudaFault(Ring.close, "self._slots.get()", KEEP + "(self._slots.get())"),
        "peak of streamed",
        "MB of page-locked host memory are still held",
    ),
    "the ring is larger than it may be": (
        CudaFault(Ring.__init__, "taken = ", "taken = 2 * "),
        "peak of streamed",
        "host pinned peak is … above its bound R",
    ),
    "tensors of the device are kept": (
        CudaFault(memory.of_their_own, "return targets", KEEP + "(targets)\n    return targets"),
        "peak of streamed",
        "MB of device memory are still held",
    ),
    "a model is kept for the next round": (
        CudaFault(memory.of_their_own, "return targets", KEEP + "(targets)\n    return targets"),
        "time of streamed",
        "ModelKept",
    ),
    "weights are streamed to the current device": (
        CudaFault(memory.of_their_own, "device=device", "device='cuda'"),
        "peak of streamed to cuda:1",
        "different device",
    ),
    "weights are allocated on the current device": (
        CudaFault(empty, "device=device", "device='cuda'"),
        "peak of per_tensor to cuda:1",
        "is on cuda:0, not on cuda:1",
    ),
    "vectors are allocated and never written": (
        CudaFault(per_tensor, COPY, f"tensor.dim() > 1 and {COPY}"),
        "peak of per_tensor",
        "WrongModel: … nan, saved as",
    ),
    "a tensor is copied by way of the device": (
        CudaFault(per_tensor, COPY, "tensor.detach().copy_(saved.to(device).double())"),
        "peak of per_tensor",
        "device requested peak is … above its bound S",
    ),
    "memory of a stream of its own is given back too early": (
        copying("copy_beside(tensor, saved, recorded=False)"),
        "peak of per_tensor",
        DIFFERS,
    ),
    "one page-locked place serves all copies": (
        copying("copy_from_one_place(tensor, saved)"),
        "peak of per_tensor",
        DIFFERS,
    ),
    "the whole checkpoint is page-locked": (
        CudaFault(
            load_assign,
            "read(path, device, model)",
            "{k: t.to(device) for k, t in {k: t.pin_memory() for k, t in read(path, 'cpu', model).items()}.items()}",
        ),
        "peak of load_assign",
        "host pinned peak is … above its bound 0",
    ),
    "weights are compared before they are on the host": (
        CudaFault(bits.difference, ".cpu() for flat", ".to('cpu', non_blocking=True) for flat"),
        "peak of per_tensor",
        DIFFERS,
    ),
    "peaks are not reset": (
        CudaFault(CudaMeter.start, "torch.cuda.reset_peak_memory_stats(self.device)"),
        "test: start",
        "'requested_bytes'",
    ),
    "peaks of page-locked memory are not reset": (
        CudaFault(CudaMeter.start, "torch.cuda.reset_peak_host_memory_stats()"),
        "test: start",
        "'pinned_bytes'",
    ),
    "caches of the device are not emptied": (
        CudaFault(CudaMeter._release, "torch.cuda.empty_cache()"),
        "test: limit",
        "DID NOT RAISE",
    ),
    "caches of page-locked memory are not emptied": (
        CudaFault(CudaMeter._release, "torch._C._host_emptyCache()"),
        "test: page-locked memory",
        "0 == 1048576",
    ),
    "the workspace of cuBLAS counts": (
        CudaFault(CudaMeter._release, "torch._C._cuda_clearCublasWorkspaces()"),
        "test: first logits",
        "keeps the model",
    ),
    "peaks are those of another device": (
        CudaFault(CudaMeter._read, "memory_stats(self.device)", "memory_stats(0)"),
        "peak of per_tensor to cuda:1",
        "device requested peak is … below its bound S",
    ),
    "the history is that of another device": (
        CudaFault(CudaMeter._trace, "traces[self._index]", "traces[0]"),
        "test: history",
        "empty sequence",
    ),
    "the driver is asked for another device": (
        CudaFault(CudaMeter.used_bytes, "mem_get_info(self.device)", "mem_get_info(0)"),
        "test: driver",
        "0 == (32 * 1048576)",
    ),
    "free memory is that of another device": (
        CudaFault(CudaMeter.free_bytes, "mem_get_info(self.device)", "mem_get_info(0)"),
        "test: driver",
        "== (32 * 1048576)",
    ),
    "a limit counts what was there before": (
        CudaFault(CudaMeter.limit, "torch.cuda.memory_reserved(self.device) + count", "count"),
        "test: limit beyond what is held",
        "CUDA out of memory",
    ),
    "another device is limited": (CudaFault(CudaMeter.limit, "self._index", "0"), "test: limit", "DID NOT RAISE"),
    "no limit is set": (
        CudaFault(child._measure, "meter.limit(job.device_bytes)"),
        "budget",
        "fits into less than it takes",
    ),
    "a limit is not lifted": (CudaFault(child._measure, "meter.limit(None)"), "budget", "out of device memory"),
    "another device is waited for": (
        CudaFault(CudaMeter.synchronize, "self.device", "0"),
        "test: clock",
        "[nan] == [1048576]",
    ),
    "the clock stops before the load is done": (
        CudaFault(LoadClock.load_and_use, "device)\n    self._meter.synchronize()", "device)"),
        "test: clock",
        "[0.0] == [1048576]",
    ),
    "the best that a machine can do is taken before all is copied": (
        CudaFault(roofline.from_pinned_memory, "torch.cuda.synchronize(device)\n    return", "return"),
        "test: pinned limit",
        "assert False",
    ),
}
