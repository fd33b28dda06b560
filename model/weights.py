"""Random weights, the same on every machine. GPT-2 xl's 1.6 billion values take seconds."""

import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from os import cpu_count

import torch
from torch import Tensor

from model.gpt2 import GPT2, Config

# Called with the number of bytes that were just done.
Progress = Callable[[int], object]

# GPT-2's own spread; large enough to survive float16, small enough for finite logits.
STANDARD_DEVIATION = 0.02

# Alignment of tensors: that of `torch.save`, and of vector instructions.
ALIGNMENT_BYTES = 64


def random_gpt2(config: Config, dtype: torch.dtype, seed: int, progress: Progress = lambda _: None) -> GPT2:
    """Build a GPT-2 on the host in which every parameter, biases and norms included, is random and non-zero.

    A tensor's values depend on `seed` and on its place in the model alone, not on the number of threads. `progress`
    gets the number of bytes that were just filled.
    """
    with torch.device("meta"):
        model = GPT2(config, dtype)
    model.load_state_dict(_in_huge_pages(model.state_dict()), assign=True)
    # The masks are not random: the skeleton has lost their values.
    for mask in model.buffers():
        mask.fill_(1).triu_(1)
    with ThreadPoolExecutor(cpu_count()) as pool:
        for filled in pool.map(partial(_fill, seed), *zip(*enumerate(model.parameters()), strict=True)):
            progress(filled)
    return model.eval()


def _fill(seed: int, place: int, parameter: Tensor) -> int:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + place)
    values = torch.empty(parameter.shape, dtype=torch.float32) if parameter.dtype != torch.float32 else parameter
    values.detach().normal_(std=STANDARD_DEVIATION, generator=generator)
    if values is not parameter:
        parameter.detach().copy_(values)
    return parameter.nbytes


def _in_huge_pages(skeleton: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return uninitialised tensors of the same names, shapes and dtypes, each with a storage of its own.

    They are in one anonymous mapping, which may get huge pages: filling fresh memory in 4 KiB pages takes longer than
    drawing the values.
    """
    offsets, end = [], 0
    for tensor in skeleton.values():
        offsets.append(end)
        end += -(-tensor.nbytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
    memory = mmap.mmap(-1, end, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return {
        name: torch.frombuffer(memory, dtype=tensor.dtype, count=tensor.numel(), offset=offset).view(tensor.shape)
        for (name, tensor), offset in zip(skeleton.items(), offsets, strict=True)
    }
