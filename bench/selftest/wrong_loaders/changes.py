"""Loaders that load right, and change what they loaded after they have returned."""

import _thread
import ctypes
import gc
import mmap
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.selftest.wrong_loaders.right import put, spoilt, weight_of

# When they do what they do later, in seconds.
DELAY_SECONDS = 0.1


def _later(action: Callable[[], object]) -> None:
    threading.Timer(DELAY_SECONDS, action).start()


def changes_by_thread(loaded: nn.Module, path: Path) -> nn.Module:
    _later(lambda: spoilt(loaded))
    return loaded


def changes_by_sleeping_thread(loaded: nn.Module, path: Path) -> nn.Module:
    began = threading.Event()

    def run() -> None:
        began.set()
        time.sleep(DELAY_SECONDS)
        spoilt(loaded)

    _thread.start_new_thread(run, ())
    began.wait()
    return loaded


def changes_by_timer(loaded: nn.Module, path: Path) -> nn.Module:
    signal.signal(signal.SIGALRM, lambda *_: spoilt(loaded))
    signal.setitimer(signal.ITIMER_REAL, DELAY_SECONDS)
    return loaded


def changes_by_child(loaded: nn.Module, path: Path) -> nn.Module:
    """Have weights in shared memory, which another process writes to."""
    weight = weight_of(loaded)
    memory = mmap.mmap(-1, weight.nbytes)
    shared = torch.frombuffer(memory, dtype=weight.dtype).view(weight.shape)
    shared.copy_(weight)
    if os.fork() == 0:
        time.sleep(DELAY_SECONDS)
        memory[-4:] = b"abcd"
        os._exit(0)  # The fork is nobody's.
    return put(loaded, shared)


def changes_a_mapped_file(loaded: nn.Module, path: Path) -> nn.Module:
    """Map a file of its own, which another process writes to."""
    own, weight = path.with_suffix(".mine"), weight_of(loaded)
    own.write_bytes(ctypes.string_at(weight.data_ptr(), weight.nbytes))
    mapped = torch.from_file(str(own), shared=True, size=weight.numel()).view(weight.shape)
    if os.fork() == 0:
        time.sleep(DELAY_SECONDS)
        with own.open("r+b") as file:
            file.write(b"abcd")
        os._exit(0)
    return put(loaded, mapped)


def changes_at_collection(loaded: nn.Module, path: Path) -> nn.Module:
    gc.callbacks.append(lambda *_: weight_of(loaded).zero_())
    return loaded


def changes_at_finalizer(loaded: nn.Module, path: Path) -> nn.Module:
    """Change it when the garbage that the loader leaves is collected."""
    garbage: Any = nn.Module()
    garbage.itself = garbage
    weakref.finalize(garbage, spoilt, loaded)
    return loaded


WRONG = (
    changes_by_thread,
    changes_by_sleeping_thread,
    changes_by_timer,
    changes_by_child,
    changes_a_mapped_file,
    changes_at_collection,
    changes_at_finalizer,
)
