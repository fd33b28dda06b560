"""Loaders with a fault that the meters have to see, and a device meter with a driver."""

import ctypes
import mmap
import os
import signal
import tempfile
import time

import torch
from torch import nn

from bench.meters.device import DeviceMeter
from bench.strategies.mmap_assign import mmap_assign
from bench.strategies.per_tensor import per_tensor

KNOWN_BYTES = 48 * 2**20

KEPT: list[nn.Module] = []
KEPT_BYTES: list[bytes] = []


def load_with_stray_copy(build, path, device):
    """Load with a copy that lives as long as the model, as a forgotten attribute would."""
    model = mmap_assign(build, path, device)
    model.stray = [tensor.clone() for tensor in model.state_dict().values()]
    return model


def load_and_keep(build, path, device):
    KEPT.append(mmap_assign(build, path, device))
    return KEPT[-1]


def load_and_keep_owned(build, path, device):
    KEPT.append(per_tensor(build, path, device))
    return KEPT[-1]


def keep_known_bytes(load, build, path, device):
    KEPT_BYTES.append(b"x" * KNOWN_BYTES)
    return load(build, path, device)


class Driven(DeviceMeter):
    """A device whose driver tells in a file how much of it is taken."""

    def __init__(self, file):
        super().__init__(torch.device("cpu"))
        self.file = file

    def used_bytes(self):
        return int(self.file.read_text())


def load_and_take(file, build, path, device):
    """Take memory of a device past PyTorch's allocator, and give it back before the load is over."""
    for count in (1000 + KNOWN_BYTES, 1000):
        (file.parent / "new").write_text(str(count))
        (file.parent / "new").replace(file)
        time.sleep(0.2)
    return mmap_assign(build, path, device)


def load_beside_known_bytes(build, path, device):
    known = b"x" * KNOWN_BYTES
    model = mmap_assign(build, path, device)
    assert known
    return model


def load_and_read_beside_known_bytes(build, path, device):
    model = mmap_assign(build, path, device)
    assert all(tensor.sum().isfinite() for tensor in model.state_dict().values())
    known = b"x" * KNOWN_BYTES
    assert known
    return model


def load_and_map_for_a_while(build, path, device):
    """Map the file once more, long enough for its file-backed peak to be sampled on a busy machine."""
    model = mmap_assign(build, path, device)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) > 0
        time.sleep(0.2)
    return model


def load_and_map_untouched(build, path, device):
    model = mmap_assign(build, path, device)
    with tempfile.TemporaryFile() as file:
        file.write(bytes(KNOWN_BYTES))
        file.flush()
        model.mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    return model


def load_and_map_and_read(build, path, device):
    model = load_and_map_untouched(build, path, device)
    assert sum(model.mapped[:: mmap.PAGESIZE]) == 0
    return model


def load_wrong(build, path, device):
    model = per_tensor(build, path, device)
    model.state_dict()["trf_blocks.0.att.mask"].view(-1)[0] = 7
    return model


def load_and_look(build, path, device):
    model = mmap_assign(build, path, device)
    assert model.out_head.weight.sum().item() != 0
    return model


def load_and_be_killed(build, path, device):
    os.kill(os.getpid(), signal.SIGKILL)


def load_and_crash(build, path, device):
    ctypes.string_at(0)


def load_and_exit(build, path, device):
    os._exit(3)


def load_and_hang(build, path, device):
    time.sleep(600)


def load_and_raise(build, path, device):
    raise KeyError("trf_blocks.7")


def load_and_give_up(build, path, device):
    raise SystemExit("no licence")


def only_when_measured(load, rehearsed, build, path, device):
    """Load with the fault if this is the measured load, and without it in the rehearsal."""
    return (load if "tiny" in str(path) else rehearsed)(build, path, device)
