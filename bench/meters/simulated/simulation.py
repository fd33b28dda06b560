"""The context in which CUDA is simulated."""

import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch

from bench.meters.allocator_settings import AllocatorSettings
from bench.meters.simulated import reads, storages, streams, truncated
from bench.meters.simulated.dispatch_interceptor import DispatchInterceptor
from bench.meters.simulated.function_interceptor import FunctionInterceptor
from bench.meters.simulated.kernels import Kernels
from bench.meters.simulated.ledger import Ledger
from bench.meters.simulated.simulated_device import SimulatedDevice

DEFAULT = AllocatorSettings()


@contextmanager
def simulation(ledger: Ledger, settings: AllocatorSettings = DEFAULT, *, planned: bool) -> Iterator[SimulatedDevice]:
    """Simulate `cuda`, and tell `ledger` of all that is on it and on the host; `planned`: the host has no bytes.

    `settings` are those of the allocator that the device's memory is asked of.
    """
    # Operations without values are partly Python, and import it: it is not to find what is replaced here.
    importlib.import_module("torch._dynamo")
    world = SimulatedDevice(ledger, settings, planned=planned)
    kernels = Kernels(world, os.environ)
    start = threading.Thread.start

    def start_simulated(thread: threading.Thread) -> None:
        run = thread.run

        def run_simulated() -> None:
            with DispatchInterceptor(world, kernels), FunctionInterceptor(world):
                run()

        thread.run = run_simulated  # type: ignore[method-assign]
        start(thread)

    replacements = [
        *storages.replacements(world),
        *streams.replacements(world),
        *(reads.replacements() if planned else []),
        (torch._C, "_cuda_clearCublasWorkspaces", kernels.clear_workspaces),
        (torch.nn.init, "_no_grad_trunc_normal_", truncated.draw(world, torch.nn.init._no_grad_trunc_normal_)),
        (threading.Thread, "start", start_simulated),
    ]
    with ExitStack() as stack:
        for owner, name, replacement in replacements:
            # A build of PyTorch without CUDA has less.
            stack.enter_context(patch.object(owner, name, replacement, create=owner is torch._C))
        # They are in force in one thread only.
        stack.enter_context(DispatchInterceptor(world, kernels))
        stack.enter_context(FunctionInterceptor(world))
        yield world
