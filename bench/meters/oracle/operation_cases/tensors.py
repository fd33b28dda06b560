"""Tensors that are made on a device, and what is computed from them there."""

import torch
from torch import Tensor, nn

from bench.meters.oracle.operation_cases.copies import HALF, N, line

EXPERT_ROWS = 64


def floats(d: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(N, device=d, dtype=dtype)


def square(d: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(1000, 1000, device=d, dtype=dtype)


def _unpacked(d: torch.device) -> Tensor:
    """Two values of four bits in each byte, and a scale for each row."""
    packed, scales = torch.ones(1000, 500, dtype=torch.uint8).to(d), torch.ones(1000, 1).to(d)
    low, high = packed & 15, packed >> 4
    values = torch.stack((low, high), dim=-1).flatten(1)
    return (values.to(HALF) - 8) * scales.to(HALF)


def _fused(d: torch.device) -> Tensor:
    query, key, value = (torch.ones(1000, 333).to(d) for _ in range(3))
    return torch.cat((query, key, value), dim=1)


MADE = {
    "empty": floats,
    "empty of nothing": lambda d: torch.empty(0, device=d),
    "empty strided": lambda d: torch.empty_strided((1000, 1000), (1, 1000), device=d),
    "empty like": lambda d: torch.empty_like(square(d).t()),
    "new empty": lambda d: floats(d).new_empty(10),
    "zeros": lambda d: torch.zeros(N, device=d),
    "zeros like": lambda d: torch.zeros_like(line(), device=d),
    "ones half": lambda d: torch.ones(N, device=d, dtype=HALF),
    "full": lambda d: torch.full((N,), 2.0, device=d),
    "arange": lambda d: torch.arange(N, device=d),
    "linspace": lambda d: torch.linspace(0, 1, N, device=d),
    "eye": lambda d: torch.eye(1000, device=d),
    "rand half": lambda d: torch.rand(N, device=d, dtype=HALF),
    "randn": lambda d: torch.randn(N, device=d),
    "randint": lambda d: torch.randint(10, (N,), device=d),
    "randperm": lambda d: torch.randperm(100_000, device=d),
    "storage": lambda d: torch.UntypedStorage(N, device=d),
    "resize_": lambda d: torch.empty(10, device=d).resize_(N),
    "resize_ to less": lambda d: floats(d).resize_(10),
    "storage of nothing": lambda d: floats(d).untyped_storage().resize_(0),
    "normal_": lambda d: nn.init.normal_(square(d)),
    "trunc_normal_": lambda d: nn.init.trunc_normal_(square(d)),
    "xavier_uniform_": lambda d: nn.init.xavier_uniform_(square(d)),
    "kaiming_normal_": lambda d: nn.init.kaiming_normal_(square(d)),
}

COMPUTED = {
    "to half": lambda d: floats(d).half(),
    "clone": lambda d: floats(d).clone(),
    "transposed, contiguous": lambda d: square(d).t().contiguous(),
    "transposed, clone": lambda d: square(d).t().clone(),
    "view as bytes": lambda d: floats(d).view(torch.uint8),
    "bytes as half, clone": lambda d: torch.empty(2 * N, device=d, dtype=torch.uint8).view(HALF).clone(),
    "copy_ half": lambda d: floats(d, HALF).copy_(floats(d)),
    "copy_ columns": lambda d: square(d)[:, :500].copy_(torch.empty(1000, 500, device=d)),
    "copy_ on itself": lambda d: square(d).copy_(square(d).t()),
    "swap of rows": lambda d: square(d)[:, [1, 0, *range(2, 1000)]],
    "add": lambda d: floats(d) + 1,
    "add_": lambda d: floats(d).add_(1),
    "add half and float": lambda d: floats(d, HALF) + floats(d),
    "mul by a number on the host": lambda d: floats(d) * torch.tensor(2.0),
    "div half": lambda d: floats(d, HALF) / 2,
    "cat": lambda d: torch.cat([floats(d)] * 3),
    "cat of one": lambda d: torch.cat([floats(d)]),
    "cat of half and float": lambda d: torch.cat([floats(d, HALF), floats(d)]),
    "cat of columns": lambda d: torch.cat(square(d).split(100, dim=1), dim=1),
    "cat of many": lambda d: torch.cat(floats(d).split(1000)),
    "cat of what was moved": _fused,
    "stack": lambda d: torch.stack([floats(d)] * 3),
    "stack of experts": lambda d: torch.stack([torch.ones(EXPERT_ROWS, 100).to(d) for _ in range(8)]),
    "split, cat": lambda d: torch.cat(square(d).split(100)),
    "repeat": lambda d: floats(d).repeat(3),
    "repeat_interleave": lambda d: square(d).repeat_interleave(2, dim=0),
    "roll": lambda d: square(d).roll(1, 0),
    "flip": lambda d: square(d).flip(0),
    "tril": lambda d: torch.ones(1000, 1000, device=d).tril(),
    "triu_": lambda d: torch.ones(1000, 1000, device=d).triu_(1),
    "permute, reshape": lambda d: torch.empty(10, 100, 1000, device=d).permute(1, 0, 2).reshape(100, -1),
    "permuted heads": lambda d: square(d).view(10, 2, 50, 1000).transpose(1, 2).reshape(1000, 1000),
    "dequantized": lambda d: (torch.ones(N, dtype=torch.int8).to(d).float() * torch.ones(1, device=d)).half(),
    "unpacked": _unpacked,
    "index by the host": lambda d: square(d)[torch.arange(500)],
    "index by the device": lambda d: square(d)[torch.arange(500, device=d)],
    "index_select": lambda d: square(d).index_select(0, torch.arange(500, device=d)),
    "index_copy_": lambda d: square(d).index_copy_(0, torch.arange(500, device=d), torch.empty(500, 1000, device=d)),
    "masked_fill_": lambda d: floats(d).masked_fill_(floats(d, torch.bool), 0.0),
    "masked_fill by a number on the host": lambda d: floats(d).masked_fill(floats(d, torch.bool), torch.tensor(0.0)),
    "masked_fill_ by a number on the device": lambda d: floats(d).masked_fill_(
        floats(d, torch.bool), torch.zeros((), device=d)
    ),
    "masked_fill of rows": lambda d: floats(d, HALF)[:1000].masked_fill(square(d, torch.bool), torch.tensor(0.0)),
    "where of two": lambda d: torch.where(floats(d, torch.bool), floats(d), floats(d)),
    "where with a number": lambda d: torch.where(floats(d, torch.bool), floats(d), 0.0),
    "clamp_": lambda d: floats(d).clamp_(0, 1),
    "sum": lambda d: floats(d).sum(),
    "mean of rows": lambda d: square(d).mean(1),
    "amax of columns": lambda d: square(d).abs().amax(0),
    "norm": lambda d: floats(d).norm(),
    "cumsum": lambda d: floats(d).cumsum(0),
    "sort": lambda d: floats(d).sort(),
    "topk": lambda d: square(d).topk(3),
    "softmax": lambda d: square(d).softmax(-1),
    "layer norm": lambda d: nn.functional.layer_norm(square(d), (1000,)),
    "embedding": lambda d: nn.functional.embedding(torch.arange(500, device=d), square(d)),
    "mm": lambda d: square(d) @ square(d),
    "mm of halves": lambda d: square(d, HALF) @ square(d, HALF),
    "mm twice": lambda d: square(d) @ square(d) @ square(d),
    "linear": lambda d: nn.functional.linear(square(d), square(d), torch.empty(1000, device=d)),
}
