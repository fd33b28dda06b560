"""Allocator settings of the environment: PyTorch reads them when CUDA begins, so a fork is under its parent's."""

import os

import torch

from bench.meters.allocator_settings import VARIABLES, settings_of
from bench.meters.oracle.forks import answered, in_fork


def named_settings() -> str:
    """Return the settings of the environment; "": PyTorch's own."""
    return next((os.environ[name] for name in VARIABLES if name in os.environ), "")


def use(settings: str) -> None:
    """Have forks run under settings. Raises `ValueError` in one line where these are not simulated, or not in force."""
    for name in VARIABLES:
        os.environ.pop(name, None)
    os.environ["PYTORCH_ALLOC_CONF"] = settings
    settings_of(os.environ)
    if (real := answered(in_fork(_settings_in_force))) != settings:
        raise ValueError(
            f"PyTorch has read its allocator settings already, as {real!r}: set PYTORCH_ALLOC_CONF before it starts"
        )


def _settings_in_force() -> str:
    torch.empty(1, device="cuda")
    settings: str = torch.cuda.memory._snapshot()["allocator_settings"]["PYTORCH_CUDA_ALLOC_CONF"]  # noqa: SLF001
    return settings
