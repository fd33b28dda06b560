"""Checkpoints as other libraries write and read them: each made by its own library, from the same weights.

What lies in such a file only its library knows. So a digest of every tensor is kept beside it, made of what was saved:
whoever reads the file, it is held against that.
"""

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.layouts import LAYOUTS, WRITTEN, Layout, Save, Saved, bytes_of, first_names

DIGESTS = "digests.json"


@dataclass(frozen=True)
class Digest:
    """What identifies a tensor to the bit."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    sha256: str
    # How it lay there, and the first of the names that mean it: neither identifies it.
    stride: tuple[int, ...] = field(default=(), compare=False)
    first: str = field(default="", compare=False)

    @classmethod
    def of(cls, tensor: Tensor) -> "Digest":
        """That of a tensor on any device; one that is not contiguous, or not on the host, is copied."""
        values = tensor.detach().cpu().contiguous()
        return cls(tensor.dtype, tuple(tensor.shape), sha256(bytes_of(values)).hexdigest(), tensor.stride())

    @classmethod
    def without_values(cls, tensor: Tensor) -> "Digest":
        """What is known of a tensor that has none: no tensor is equal to it."""
        return cls(tensor.dtype, tuple(tensor.shape), "")

    def as_json(self) -> list[Any]:
        return [str(self.dtype).removeprefix("torch."), list(self.shape), self.sha256, list(self.stride), self.first]

    @classmethod
    def from_json(cls, kept: list[Any]) -> "Digest":
        dtype, shape, digest, stride, first = kept
        return cls(getattr(torch, dtype), tuple(shape), digest, tuple(stride), first)


def save_dcp(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """As torch.distributed.checkpoint saves without a process group: a folder with one file, and its metadata."""
    from torch.distributed.checkpoint import state_dict_saver  # noqa: PLC0415 - half a second

    with warnings.catch_warnings():
        # It warns of that there is no process group, which is what it is told.
        warnings.simplefilter("ignore", UserWarning)
        state_dict_saver.save(dict(state_dict), checkpoint_id=folder / "dcp", no_dist=True)
    return _written(folder / "dcp", folder, save)


def save_sparse_dcp(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """The same of fake tensors, each in a file of its own, with holes where the bytes would be."""
    from torch.distributed.checkpoint.default_planner import DefaultSavePlanner  # noqa: PLC0415 - half a second
    from torch.distributed.checkpoint.filesystem import _StorageInfo  # noqa: PLC0415

    planner = DefaultSavePlanner()
    planner.set_up_planner(state_dict, is_coordinator=True)
    plans, metadata = planner.create_global_plan([planner.create_local_plan()])
    (folder / "dcp").mkdir()
    saved, metadata.storage_data = {}, {}
    for number, item in enumerate(plans[0].items):
        file = folder / "dcp" / f"{number}.distcp"
        saved[f"dcp/{file.name}"] = save(state_dict[item.index.fqn], file)
        metadata.storage_data[item.index] = _StorageInfo(file.name, 0, file.stat().st_size)
    (folder / "dcp" / ".metadata").write_bytes(pickle.dumps(metadata))
    return saved


def save_flashpack(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """As `pack_to_file` does, every tensor with its own dtype."""
    from flashpack import pack_to_file  # noqa: PLC0415 - of an extra

    pack_to_file(dict(state_dict), str(folder / "model.flashpack"), None)
    return _written(folder / "model.flashpack", folder, save)


def _written(path: Path, folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {str(file.relative_to(folder)): save(WRITTEN, file) for file in files}


def _unreadable(path: Path) -> Any:
    raise NotImplementedError(f"{path.name}: what a library of its own writes is held against digests")


def _unsaveable(*_: Any) -> Any:
    raise NotImplementedError("it saves modules, see save_of")


class TensorizerLayout(Layout):
    """One file of `TensorSerializer`, which saves modules: a state dict alone does not say which are parameters."""

    def save_of(
        self, model: nn.Module, state_dict: dict[str, Any], folder: Path, save: Save[Saved]
    ) -> dict[str, Saved]:
        from tensorizer import TensorSerializer  # noqa: PLC0415 - of an extra

        serializer = TensorSerializer(folder / self.entrance)
        try:
            serializer.write_module(model if _is_of(model, state_dict) else _module(model, state_dict))
        finally:
            serializer.close()
        return _written(folder / self.entrance, folder, save)


def _is_of(model: nn.Module, state_dict: Mapping[str, Any]) -> bool:
    """Whether a state dict is that of the model, as it is."""
    own = model.state_dict()
    return own.keys() == state_dict.keys() and all(
        value is own[name] or (isinstance(value, Tensor) and value.data_ptr() == own[name].data_ptr())
        for name, value in state_dict.items()
    )


def _module(model: nn.Module, state_dict: Mapping[str, Any]) -> nn.Module:
    """A tree of modules with these tensors, as parameters those that are in the model."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    root = nn.Module()
    for path, value in state_dict.items():
        *modules, name = path.split(".")
        place = root
        for module in modules:
            # Not `add_module`: that takes no name that a module has a method of.
            place = place._modules.setdefault(module, nn.Module())  # type: ignore[assignment]  # noqa: SLF001
        if path in parameters:
            trained = parameters[path].requires_grad and (value.is_floating_point() or value.is_complex())
            place._parameters[name] = nn.Parameter(value, requires_grad=trained)  # noqa: SLF001
        else:
            place._buffers[name] = value  # noqa: SLF001
    return root


FOREIGN: dict[str, Layout] = {
    "dcp": Layout("dcp", save_dcp, _unreadable, "torch"),
    "tensorizer": TensorizerLayout("model.tensors", _unsaveable, _unreadable, "tensorizer"),
    "flashpack": Layout("model.flashpack", save_flashpack, _unreadable, "flashpack"),
}

# Which are written without bytes in a way of their own.
SPARSE = {"dcp": save_sparse_dcp}

# Every layout that a checkpoint can be made in.
ALL_LAYOUTS = LAYOUTS | FOREIGN


def digests(state_dict: Mapping[str, Any], to: torch.dtype | None = None) -> dict[str, list[Any]]:
    """Of every tensor of a state dict, floating-point ones cast to a dtype, ready for a file of JSON."""
    firsts = first_names(state_dict)
    tensors = (
        (name, value.to(to) if to and value.is_floating_point() else value)
        for name, value in state_dict.items()
        if isinstance(value, Tensor)
    )
    return {name: replace(Digest.of(value), first=firsts[name]).as_json() for name, value in tensors}
