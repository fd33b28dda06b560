"""A checkpoint of a random GPT-2: what identifies it, how it is made, and whether one found on disk still fits."""

import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.serialization import config as serialization

from model.gpt2 import CONFIGS, GPT2, first_logits
from model.layouts import LAYOUTS, Entry, save_digested, save_sparse
from model.trust import UntrustedCheckpoint
from model.weights import Progress, random_gpt2

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

MANIFEST = "manifest.json"
LOGITS = "logits.pt"
SEED = 2024

# Zip directories, pickles and logits, beside the tensors' own bytes.
OVERHEAD_BYTES_PER_TENSOR = 4096


@dataclass(frozen=True)
class Footprint:
    """What a checkpoint's tensors take: S and L of every bound."""

    state_bytes: int
    largest_tensor_bytes: int
    tensors: int


@dataclass(frozen=True)
class Specification:
    """Which checkpoint: a size of `SIZES`, a dtype of `DTYPES`, a layout of `LAYOUTS`."""

    size: str
    dtype: str
    layout: str

    @property
    def name(self) -> str:
        return f"gpt2-{self.size}-{self.dtype}-{self.layout}"

    def build(self) -> GPT2:
        """A freshly initialised model of this size and dtype; a meta skeleton under `torch.device("meta")`."""
        return GPT2(CONFIGS[self.size], DTYPES[self.dtype])

    @property
    def footprint(self) -> Footprint:
        return _footprint(self.size, self.dtype)

    @property
    def disk_bytes(self) -> int:
        """What the checkpoint takes on disk, at most."""
        return self.footprint.state_bytes + (self.footprint.tensors + 64) * OVERHEAD_BYTES_PER_TENSOR

    def manifest(self) -> dict[str, Any]:
        """What identifies the content: with any other value, a checkpoint found on disk is not this one."""
        return {
            "schema": 1,
            "model": {"architecture": "gpt2", "size": self.size, **asdict(CONFIGS[self.size])},
            "dtype": self.dtype,
            "layout": self.layout,
            "seed": SEED,
            "torch_format": {
                "container": "zip",
                "storage_alignment": serialization.save.storage_alignment,
                "byteorder": sys.byteorder,
            },
        }


@cache
def _footprint(size: str, dtype: str) -> Footprint:
    with torch.device("meta"):
        model = GPT2(CONFIGS[size], DTYPES[dtype])
    sizes = [tensor.untyped_storage().nbytes() for tensor in model.state_dict().values()]
    return Footprint(sum(sizes), max(sizes), len(sizes))


@dataclass(frozen=True)
class Stamp:
    """Which file there is below a checkpoint's folder: of an other one, or a changed one, something differs."""

    name: str
    inode: int
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk that fits its specification.

    `stamps` are those of its files when they were found to be sound; without any, none is held to be changed.
    """

    specification: Specification
    folder: Path
    stamps: tuple[Stamp, ...] = ()

    @property
    def path(self) -> Path:
        """What a strategy is given: a file, or a folder of files."""
        return self.folder / LAYOUTS[self.specification.layout].entrance

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that a load reads, wherever it is told of the others."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return tuple(sorted(path for path in files if path.name not in (MANIFEST, LOGITS)))

    def require_unchanged(self) -> None:
        """Raise `UntrustedCheckpoint` for a file that is no longer the one that was found to be sound."""
        for stamp in self.stamps:
            try:
                found = _stamp(self.folder, self.folder / stamp.name)
            except OSError as error:
                reason = f"was sound, and can no longer be found: {error.strerror}"
                raise UntrustedCheckpoint(self.folder / stamp.name, None, reason) from None
            if found != stamp:
                raise UntrustedCheckpoint(self.folder / stamp.name, None, _what_happened(stamp, found))

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every saved tensor with its name, mapped."""
        return LAYOUTS[self.specification.layout].read(self.path)

    def logits(self) -> Tensor:
        """The first logits of the model that was saved, `[1, 3, vocabulary]`, on the host."""
        return torch.load(self.folder / LOGITS, map_location="cpu", weights_only=True)


def stamps(folder: Path) -> tuple[Stamp, ...]:
    """What identifies every file below `folder` as it is now."""
    return tuple(_stamp(folder, path) for path in sorted(folder.rglob("*")) if path.is_file())


def _stamp(folder: Path, path: Path) -> Stamp:
    status = path.stat()
    return Stamp(str(path.relative_to(folder)), status.st_ino, status.st_size, status.st_mtime_ns)


def _what_happened(before: Stamp, now: Stamp) -> str:
    if now.inode != before.inode:
        return "was replaced by another file while it was in use"
    if now.bytes != before.bytes:
        return f"was changed from {before.bytes:,} bytes to {now.bytes:,} while it was in use"
    return "was written to while it was in use"


def make(specification: Specification, folder: Path, progress: Progress) -> None:
    """Make the model, and write its tensors, its first logits and the manifest into `folder`, which is new.

    The manifest comes last: a folder without one is half a checkpoint. `progress` is told of about twice the
    state bytes: filled, then written.
    """
    folder.mkdir()
    model = random_gpt2(CONFIGS[specification.size], DTYPES[specification.dtype], SEED, progress)
    save = partial(save_digested, progress=progress)
    files: dict[str, Entry] = LAYOUTS[specification.layout].save(model.state_dict(), folder, save)
    files[LOGITS] = save_digested(first_logits(model), folder / LOGITS, progress)
    with (folder / MANIFEST).open("x") as file:
        json.dump(specification.manifest() | {"files": files}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())


def make_sparse(specification: Specification, folder: Path) -> None:
    """Write a checkpoint into `folder`, which is new, with holes for the bytes: a plan does not read them.

    It has no logits and no manifest, and takes some KB a tensor of the disk, whatever the size of the model.
    """
    folder.mkdir()
    with FakeTensorMode():
        LAYOUTS[specification.layout].save(specification.build().state_dict(), folder, save_sparse)


def misfit(specification: Specification, folder: Path) -> str | None:
    """Why what lies in `folder` is not the checkpoint that `specification` means; None where it is, to the bit."""
    try:
        return _misfit(specification, folder, json.loads((folder / MANIFEST).read_bytes()))
    except FileNotFoundError:
        return "it has no manifest: its making was interrupted"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read"


def _misfit(specification: Specification, folder: Path, manifest: dict[str, Any]) -> str | None:
    if differing := {key for key, value in specification.manifest().items() if manifest.get(key) != value}:
        return f"its {', '.join(sorted(differing))} differs"
    files = manifest["files"]
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    if differing := found ^ set(files):
        return f"{min(differing)} is {'not in its manifest' if min(differing) in found else 'missing'}"
    changes = (_change(folder / relative, entry) for relative, entry in files.items())
    return next((change for change in changes if change), None)


def _change(path: Path, entry: Entry) -> str | None:
    """What differs between a file and its entry in the manifest."""
    if (size := path.stat().st_size) != entry["bytes"]:
        return f"{path.name} has {size:,} bytes, not {entry['bytes']:,}"
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
            return f"{path.name} has changed since it was written"
    return None
