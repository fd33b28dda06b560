"""Imported once by the fork server: what the first load of a process imports, and no strategy is to be charged for."""

import gc
import io
import os
import signal
from contextlib import suppress

import torch
import torch._dynamo  # What simulates a device needs it: some seconds, once.
from torch import nn

from bench.meters.driver import card_kernels
from bench.meters.driver.variables import CARD
from bench.meters.process import PRELOADED
from bench.meters.process_tree import be_last
from model.user.factory import factory_of


def _first_load() -> None:
    # One thread: a pool of threads started here would be missing, and waited for, in every fork.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    # The first embedding on meta imports some 800 modules: a second, and 75 MB.
    with torch.device("meta"):
        nn.Embedding(2, 2)
    file = io.BytesIO()
    torch.save(nn.Linear(2, 2).state_dict(), file)
    file.seek(0)
    torch.load(file, weights_only=True)
    torch.set_num_threads(threads)


def _renew_threads() -> None:
    """Give a forked process the pool of threads that the fork left behind.

    Torch's own renewal is not safe for threads (`caffe2::pthreadpool`): of several that begin to copy at the same
    time, one may find no pool, and raises "Invalid thread pool!".
    """
    torch.set_num_threads(torch.get_num_threads())


def _preload() -> None:
    """Import what the user brings. What cannot be imported is told by the load that wants it."""
    for text in os.environ.get(PRELOADED, "").splitlines():
        with suppress(ValueError):
            factory_of(text).get()


def _hear_interrupts() -> None:
    """Have forked processes hear SIGINT, which this one was started without; what came meanwhile is dropped."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGINT, before)


be_last()
if CARD in os.environ:
    card_kernels.register()
_preload()
_first_load()
os.register_at_fork(after_in_child=_renew_threads)
# Whatever is imported by now stays: a child's collector need not look at it, nor copy its pages to do so.
gc.collect()
gc.freeze()
_hear_interrupts()
