"""Copies from the host to a device, whole and in parts."""

from typing import Any

import torch
from torch import Tensor

N = 1_000_000
HALF, BFLOAT16 = torch.half, torch.bfloat16
ASYNC: Any = {"non_blocking": True}


def line(**options: Any) -> Tensor:
    """4,000,000 bytes."""
    return torch.ones(N, **options)


def square(**options: Any) -> Tensor:
    """Return them as a matrix."""
    return torch.ones(1000, 1000, **options)


def image() -> Tensor:
    return torch.ones(10, 100, 30, 30).to(memory_format=torch.channels_last)


def _on_another_stream(d: torch.device) -> Tensor:
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        moved = line().to(d)
    moved.record_stream(torch.cuda.current_stream())
    del moved
    return torch.empty(N, device=d)


def _pinned_on_another_stream(d: torch.device) -> Tensor:
    source, stream = line().pin_memory(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        moved = source.to(d, **ASYNC)
    torch.cuda.current_stream().wait_stream(stream)
    return moved


def _by_columns(d: torch.device) -> Tensor:
    whole = torch.empty(1000, 1000, device=d)
    for at in range(0, 1000, 100):
        whole[:, at : at + 100].copy_(torch.ones(1000, 100))
    return whole


def _by_rows_through_pinned(d: torch.device) -> Tensor:
    """Copy as a loader with a ring of page-locked memory does."""
    ring, whole = torch.empty(100, 1000, pin_memory=True), torch.empty(1000, 1000, device=d)
    for at in range(0, 1000, 100):
        ring.copy_(square()[at : at + 100])
        whole[at : at + 100].copy_(ring, **ASYNC)
        torch.cuda.synchronize()
    return whole


def _set_data(d: torch.device) -> Tensor:
    parameter = torch.nn.Parameter(torch.empty(10))
    parameter.data = line().to(d)
    return parameter


COPIES = {
    "to": lambda d: line().to(d),
    "to half": lambda d: line().to(d, HALF),
    "to half, not waited for": lambda d: line().to(d, HALF, **ASYNC),
    "to, not waited for": lambda d: line().to(d, **ASYNC),
    "cuda": lambda _: line().cuda(),
    "pinned to, not waited for": lambda d: line().pin_memory().to(d, **ASYNC),
    "pinned to half, not waited for": lambda d: line().pin_memory().to(d, HALF, **ASYNC),
    "pinned to, on another stream": _pinned_on_another_stream,
    "half to float": lambda d: line().half().to(d, torch.float32),
    "half to float, not waited for": lambda d: line().half().to(d, torch.float32, **ASYNC),
    "double to float": lambda d: line(dtype=torch.double).to(d, torch.float32),
    "bfloat16 to half": lambda d: line(dtype=BFLOAT16).to(d, HALF),
    "float8 to": lambda d: line().to(torch.float8_e4m3fn).to(d),
    "float8 to bfloat16": lambda d: line().to(torch.float8_e4m3fn).to(d, BFLOAT16),
    "bytes to float": lambda d: line(dtype=torch.uint8).to(d, torch.float32),
    "bool from float": lambda d: line().to(d, torch.bool),
    "complex to": lambda d: line(dtype=torch.complex64).to(d),
    "complex to double": lambda d: line(dtype=torch.complex64).to(d, torch.complex128),
    "conjugate to": lambda d: line(dtype=torch.complex64).conj().to(d),
    "conjugate to, not waited for": lambda d: line(dtype=torch.complex64).conj().to(d, **ASYNC),
    "conjugate to double": lambda d: line(dtype=torch.complex64).conj().to(d, torch.complex128),
    "conjugate transposed to": lambda d: square(dtype=torch.complex64).mH.to(d),
    "copy_ conjugate": lambda d: torch.empty(N, device=d, dtype=torch.complex64).copy_(
        line(dtype=torch.complex64).conj()
    ),
    "imaginary part to": lambda d: line(dtype=torch.complex64).imag.to(d),
    "negative view to": lambda d: line(dtype=torch.complex64).conj().imag.to(d),
    "transposed to": lambda d: square().t().to(d),
    "transposed to half": lambda d: square().t().to(d, HALF),
    "permuted to": lambda d: torch.ones(100, 100, 100).permute(2, 0, 1).to(d),
    "permuted and contiguous to": lambda d: torch.ones(100, 100, 100).permute(2, 0, 1).contiguous().to(d),
    "channels last to": lambda d: image().to(d),
    "channels last to half": lambda d: image().to(d, HALF),
    "contiguous to channels last": lambda d: image().contiguous().to(d, memory_format=torch.channels_last),
    "copy of what is there": lambda d: line().to(d).to(d, copy=True),
    "to where it is": lambda d: line().to(d).to(d),
    "copy_": lambda d: torch.empty(N, device=d).copy_(line()),
    "copy_ half": lambda d: torch.empty(N, device=d, dtype=HALF).copy_(line()),
    "copy_ half, not waited for": lambda d: torch.empty(N, device=d, dtype=HALF).copy_(line(), **ASYNC),
    "copy_ pinned": lambda d: torch.empty(N, device=d).copy_(line().pin_memory(), **ASYNC),
    "copy_ pinned half": lambda d: torch.empty(N, device=d, dtype=HALF).copy_(line().pin_memory(), **ASYNC),
    "copy_ broadcast": lambda d: torch.empty(1000, 1000, device=d).copy_(torch.ones(1000)),
    "copy_ broadcast half": lambda d: torch.empty(1000, 1000, device=d, dtype=HALF).copy_(torch.ones(1000)),
    "copy_ a number": lambda d: torch.empty(N, device=d).copy_(torch.tensor(2.0)),
    "copy_ transposed": lambda d: torch.empty(1000, 1000, device=d).copy_(square().t()),
    "copy_ transposed into transposed": lambda d: torch.empty(1000, 1000, device=d).t().copy_(square().t()),
    "copy_ into transposed": lambda d: torch.empty(1000, 1000, device=d).t().copy_(square()),
    "like, copy_": lambda d: torch.empty_like(square(), device=d).copy_(square()),
    "tensor of a list": lambda d: torch.tensor([1.0] * 1000, device=d),
    "tensor of a tensor": lambda d: torch.asarray(line(), device=d),
    "new tensor": lambda d: torch.empty(0, device=d).new_tensor([1.0] * 1000),
    "of another type": lambda d: line().type_as(torch.empty(0, device=d, dtype=HALF)),
    "storage to": lambda _: line().untyped_storage().cuda(),
    "set data": _set_data,
    "on another stream": _on_another_stream,
    "nothing to": lambda d: torch.ones(0).to(d),
}

SLICES = {
    "every second to": lambda d: line()[::2].to(d),
    "rows to": lambda d: square()[:500].to(d),
    "rows, cloned, to": lambda d: square()[:500].clone().to(d),
    "columns to": lambda d: square()[:, :500].to(d),
    "columns to half": lambda d: square()[:, :500].to(d, HALF),
    "columns to half, not waited for": lambda d: square()[:, :500].to(d, HALF, **ASYNC),
    "columns, contiguous, to": lambda d: square()[:, :500].contiguous().to(d),
    "pinned columns to, not waited for": lambda d: square().pin_memory()[:, :500].to(d, **ASYNC),
    "expanded to": lambda d: torch.ones(1000, 1).expand(1000, 1000).to(d),
    "expanded number to": lambda d: torch.tensor(1.0).expand(1000, 1000).to(d),
    "narrowed to": lambda d: square().narrow(1, 100, 300).to(d),
    "chunks to": lambda d: [part.to(d) for part in square().chunk(4, dim=1)],
    "splits to": lambda d: [part.to(d) for part in line().split(300_000)],
    "indexed on the host, to": lambda d: square()[torch.arange(0, 1000, 3)].to(d),
    "copy_ into columns": lambda d: torch.empty(1000, 1000, device=d)[:, :500].copy_(square()[:, :500].contiguous()),
    "copy_ columns into columns": lambda d: torch.empty(1000, 1000, device=d)[:, :500].copy_(square()[:, :500]),
    "copy_ columns half": lambda d: torch.empty(1000, 1000, device=d, dtype=HALF)[:, :500].copy_(square()[:, :500]),
    "copy_ columns half, not waited for": lambda d: torch.empty(1000, 1000, device=d, dtype=HALF)[:, :500].copy_(
        square()[:, :500], **ASYNC
    ),
    "copy_ into rows": lambda d: torch.empty(1000, 1000, device=d)[:500].copy_(square()[:500]),
    "by columns": _by_columns,
    "by rows, through page-locked memory": _by_rows_through_pinned,
    "set rows": lambda d: torch.empty(1000, 1000, device=d).__setitem__(slice(500), square()[:500]),
    "set columns to a number": lambda d: torch.empty(1000, 1000, device=d).__setitem__((slice(None), slice(9)), 2.0),
}
