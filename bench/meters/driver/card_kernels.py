"""The values of CUDA kernels, computed by the card: on the stand-in kernels allocate as usual, and write nothing.

`register` puts a handler before every CUDA kernel of aten. The handler calls the kernel, and then has the card compute
the same on the CPU, in the memory of the device.
"""

import ctypes
import os
import pickle
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Client, Connection
from typing import Any

import torch

from bench.meters.driver.sent import Computation, SentTensor, SentValues, replaced, tensors_in
from bench.meters.driver.variables import CARD
from model.user.user_code import NotTheUsers

aten = torch.ops.aten

# Operations that make memory, look at it or say where it is, and need no value: these, and the views.
_WITHOUT_VALUES = {
    *("empty", "empty_strided", "_efficientzerotensor", "resize_", "_resize_output_", "set_", "set_data", "is_set_to"),
    *("record_stream", "_pin_memory", "is_pinned", "_local_scalar_dense", "_assert_async", "copy_", "_copy_from"),
    *("_unsafe_view", "lift", "_fw_primal"),
    # Parts of others.
    *("_flash_attention_forward", "_efficient_attention_forward", "_fill_mem_eff_dropout_mask_"),
}
# Operations that the stand-in computes without their kernels: how large the result is depends on values, or the kernel
# is of a library that the stand-in has not (cuFFT, cuSOLVER, CUTLASS), or takes a number for a tensor of a device.
_WITHOUT_KERNEL = re.compile(
    r"(nonzero|masked_select|unique|_unique|repeat_interleave|bincount|_fft_|_?linalg_|_?cholesky|geqrf|ormqr|lu_unpack"
    r"|triangular_solve|_grouped_mm|_scaled_grouped_mm).*|pow\.Scalar"
)
# Operations whose values nobody computes: of sparse and nested tensors, of cuDNN, and the backward of attention.
_REFUSED = re.compile(
    r"_?sparse.*|_to_sparse.*|_coalesce.*|_nested.*|nested.*|_?cudnn.*|miopen.*|_cslt.*|_convert_weight.*"
    r"|\w*attention\w*_backward"
)

Kernel = Callable[..., Any]

# In a kernel that calls others. One that writes to its arguments must find them as they were: the others get no values.
_within = threading.local()
_registered: list[torch.library.Library] = []


class NotComputed(NotTheUsers):
    """The failure of the stand-in to compute what a kernel does; the message names the operation in one line."""


class _Card:
    """The connection of this process to the card; a forked process gets one of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._pid = 0
        # The card of a run that counts bytes only keeps none.
        self.discards = False

    def compute(self, one: Computation) -> Any:
        """Return what is computed, see `computing.compute`. Raises `NotComputed` where the CPU cannot do it."""
        message = pickle.dumps(one)
        with self._lock:
            connection = self._connected()
            if self.discards:
                return None
            connection.send_bytes(message)
            done, value = pickle.loads(connection.recv_bytes())  # noqa: S301 - the card is this run's own
        if not done:
            raise NotComputed(
                f"the stand-in for a GPU cannot compute aten::{one.name}; use --device sim or a GPU: {value}"
            )
        return replaced(value, SentValues, SentValues.tensor)

    def _connected(self) -> Connection:
        if self._connection is None or self._pid != os.getpid():
            self._connection, self._pid = Client(f"\0{os.environ[CARD]}", family="AF_UNIX"), os.getpid()
            self._connection.send_bytes(pickle.dumps(self._pid))
            self.discards = pickle.loads(self._connection.recv_bytes())  # noqa: S301 - as above
        return self._connection


_card = _Card()


@cache
def _library() -> ctypes.CDLL:
    """Return the preloaded library itself."""
    library = ctypes.CDLL(None)
    library.stand_in_offset.argtypes, library.stand_in_offset.restype = [ctypes.c_void_p], ctypes.c_int64
    library.stand_in_arrive.argtypes = [ctypes.c_int, ctypes.c_void_p]
    return library


def _offset(address: int) -> int:
    offset: int = _library().stand_in_offset(address)
    if offset < 0:
        raise RuntimeError(f"{address:#x} is no address of a device")
    return offset


def _sent(tensor: torch.Tensor) -> SentTensor | SentValues:
    return SentTensor.of(tensor.detach(), _offset) if tensor.is_cuda else SentValues.of(tensor)


def _ask(func: torch._ops.OpOverload, args: Any, kwargs: Any, results: Any, seed: int | None = None) -> Any:
    """Have the card compute `func`, after all that the streams of the devices concerned were asked for before."""
    devices = {tensor.device.index for tensor in tensors_in([args, kwargs, results]) if tensor.is_cuda}
    for device in devices or {torch.cuda.current_device()}:
        _library().stand_in_arrive(device, torch.cuda.current_stream(device).cuda_stream)
    schema = func._schema  # noqa: SLF001 - as in `_handler`
    name, overload = schema.name.removeprefix("aten::"), schema.overload_name or "default"
    args, kwargs, results = (replaced(part, torch.Tensor, _sent) for part in (args, kwargs, results))
    return _card.compute(Computation(name, overload, args, kwargs, results, seed))


def _seed(func: torch._ops.OpOverload, args: Any, kwargs: Any) -> int | None:
    """Return a seed that follows from the device's generator, for an operation that draws random numbers."""
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return None
    generators: list[torch.Generator] = []
    replaced([args, kwargs], torch.Generator, generators.append)
    if not generators:
        on_device = [tensor.device for tensor in tensors_in([args, kwargs]) if tensor.is_cuda]
        device = on_device[0] if on_device else torch.device(kwargs.get("device") or "cuda")
        generators.append(torch.cuda.default_generators[_index(device)])
    return (generators[0].initial_seed() * 1_000_003 + generators[0].get_offset()) % 2**63


def _index(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


@contextmanager
def _in_kernel(*, writes: bool) -> Iterator[None]:
    """Allow launches of kernels in this block whose values are already computed."""
    outer = getattr(_within, "writes", None)
    _within.writes = bool(outer) or writes
    _library().stand_in_within(1)
    try:
        yield
    finally:
        _library().stand_in_within(-1)
        _within.writes = outer


def _handler(func: torch._ops.OpOverload, kernel: Any) -> Kernel:
    schema = func._schema  # noqa: SLF001 - there is no public way to it
    writes = any(argument.alias_info and argument.alias_info.is_write for argument in schema.arguments)
    # Results that are arguments are written where those are.
    new = [one.alias_info is None for one in schema.returns]
    # Few operations take numbers there when Python calls them.
    takes_numbers = torch._C._should_allow_numbers_as_tensors(schema.name.removeprefix("aten::"))  # noqa: SLF001
    of_tensors = [number for number, argument in enumerate(schema.arguments) if str(argument.type) == "Tensor"]

    def handle(keys: torch._C.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        with_tensors = _without_numbers(args, of_tensors)
        seed = _seed(func, args, kwargs)
        with _in_kernel(writes=writes):
            result = kernel.call_boxed(keys, *with_tensors, **kwargs)
        outer_writes = getattr(_within, "writes", None)
        if outer_writes:
            return result
        given = _given(args if takes_numbers else with_tensors, kwargs)
        results = [result] if len(new) == 1 else list(result or ())
        results = [one if is_new else None for one, is_new in zip(results, new, strict=True)]
        told = any(new) and not tensors_in(results)
        if any(tensor.numel() for tensor in tensors_in([given if writes else None, results])) or told:
            try:
                value = _ask(func, *given, None if told else results, seed)
            except NotComputed:
                # A kernel within another: the outer one has values of its own.
                if outer_writes is None:
                    raise
                return result
            return value if told and value is not None else result
        return result

    return handle


def _without_numbers(args: tuple[Any, ...], of_tensors: list[int]) -> tuple[Any, ...]:
    """Return arguments with a tensor for each number that stands for one: kernels want it, the dispatcher took it off.

    Its dtype has the kernel find the dtype of its result as if it was a number.
    """
    numbers = [at for at in of_tensors if at < len(args) and isinstance(args[at], (int, float, complex))]
    if not numbers:
        return args
    # A mask chooses from values of another dtype.
    operands = [one for one in args if isinstance(one, torch.Tensor) and one.dtype != torch.bool]
    operands += [one for one in args if isinstance(one, torch.Tensor)]

    def as_tensor(number: complex) -> torch.Tensor:
        return torch.tensor(number, device="cpu").to(torch.result_type(operands[0], number))

    return tuple(as_tensor(one) if at in numbers else one for at, one in enumerate(args))


def _given(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return arguments as the CPU takes them: made there, and drawn from its generator."""
    kept = {name: value for name, value in kwargs.items() if name not in ("device", "pin_memory", "layout")}
    without_generator = [replaced(part, torch.Generator, lambda _: None) for part in (list(args), kept)]
    return without_generator[0], without_generator[1]


def _handler_without_kernel(func: torch._ops.OpOverload, kernel: Any) -> Kernel:
    def handle(keys: torch._C.DispatchKeySet, *args: Any, **kwargs: Any) -> Any:
        given = _given(args, kwargs)
        device = next(tensor.device for tensor in tensors_in([args, kwargs]) if tensor.is_cuda)
        computed = _ask(func, *given, None, _seed(func, args, kwargs))
        if computed is None:
            return kernel.call_boxed(keys, *args, **kwargs)
        placed = replaced(computed, torch.Tensor, lambda tensor: tensor.to(device))
        return tuple(placed) if isinstance(placed, list) else placed

    return handle


def _refusing_handler(func: torch._ops.OpOverload, _kernel: Any) -> Kernel:
    def handle(*_args: Any, **_kwargs: Any) -> Any:
        raise NotComputed(f"the stand-in for a GPU cannot compute {func}; use --device sim or a GPU")

    return handle


def _copy(keys: torch._C.DispatchKeySet, to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> Any:  # noqa: ARG001
    copied = aten.copy_.default
    with _in_kernel(writes=False):
        copied._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, to, source, non_blocking)  # noqa: SLF001
    # Else the driver copies, or what PyTorch makes of it comes here again.
    by_kernel = to.is_cuda and source.is_cuda and not getattr(_within, "writes", None)
    if by_kernel and to.numel() and not _is_plain(to, source):
        _ask(copied, [to, source], {}, [None])
    return to


def _is_plain(to: torch.Tensor, source: torch.Tensor) -> bool:
    alike = to.dtype == source.dtype and to.is_conj() == source.is_conj() and to.is_neg() == source.is_neg()
    return alike and to.shape == source.shape and to.is_contiguous() and source.is_contiguous()


def register() -> None:
    """Put the handlers before CUDA's kernels, in this process and its forks. Takes tenths of a second."""
    if _registered:
        return
    _library().stand_in_computes()
    library = torch.library.Library("aten", "IMPL", "CUDA")
    _registered.append(library)
    _leave_to_pytorch()
    with warnings.catch_warnings():
        # That kernels are replaced.
        warnings.simplefilter("ignore")
        for full in sorted(torch._C._dispatch_get_registrations_for_dispatch_key("CUDA")):  # noqa: SLF001
            if func := _operation(full):
                name = full.removeprefix("aten::")
                kernel = torch.library.get_kernel(full, "CUDA")
                library.impl(name, _maker(name)(func, kernel), "CUDA", with_keyset=True)
        library.impl("copy_", _copy, "CUDA", with_keyset=True)


def _leave_to_pytorch() -> None:
    """Switch off libraries with kernels of their own: cuDNN, and Triton, which torch 2.14 uses for some operations."""
    torch.backends.cudnn.enabled = False
    torch.backends.cuda.enable_cudnn_sdp(False)
    with suppress(ImportError):
        from torch._native import registry  # noqa: PLC0415 - older versions have none

        registry.deregister_op_overrides(disable_dispatch_keys="CUDA")


def _maker(name: str) -> Callable[..., Kernel]:
    if _REFUSED.fullmatch(name):
        return _refusing_handler
    if not _WITHOUT_KERNEL.fullmatch(name):
        return _handler
    return _refusing_handler if name.endswith("out") else _handler_without_kernel


def _operation(full: str) -> torch._ops.OpOverload | None:
    """Return the operation of a kernel; None where no value is to be computed for it."""
    name, _, overload = full.removeprefix("aten::").partition(".")
    if not full.startswith("aten::") or name in _WITHOUT_VALUES:
        return None
    func: torch._ops.OpOverload = getattr(getattr(aten, name), overload or "default")
    views = any(one.alias_info and not one.alias_info.is_write for one in func._schema.returns)  # noqa: SLF001
    return None if views else func
