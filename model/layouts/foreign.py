"""Layouts of other libraries: each checkpoint is written by its own library, from the same weights.

Only its library can read such a file. So a digest of every saved tensor is kept beside it, and a load is compared with
that.
"""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from model.layouts.files import WRITTEN, Save, Saved
from model.layouts.layouts import LAYOUTS, Layout


def save_dcp(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Save with torch.distributed.checkpoint, without a process group: a folder with one file and its metadata."""
    from torch.distributed.checkpoint import state_dict_saver  # noqa: PLC0415 - half a second

    with warnings.catch_warnings():
        # It warns that there is no process group, as `no_dist` asks.
        warnings.simplefilter("ignore", UserWarning)
        state_dict_saver.save(dict(state_dict), checkpoint_id=folder / "dcp", no_dist=True)
    return _written(folder / "dcp", folder, save)


def save_sparse_dcp(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Save fake tensors for torch.distributed.checkpoint, each in a file of its own with holes for the bytes."""
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
    """Save with `pack_to_file`, every tensor with its own dtype."""
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
    """A file of `TensorSerializer`, which saves modules: a state dict does not tell parameters from buffers."""

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
    """Return whether a state dict has the model's tensors, unchanged."""
    own = model.state_dict()
    return own.keys() == state_dict.keys() and all(
        value is own[name] or (isinstance(value, Tensor) and value.data_ptr() == own[name].data_ptr())
        for name, value in state_dict.items()
    )


def _module(model: nn.Module, state_dict: Mapping[str, Any]) -> nn.Module:
    """Return a tree of modules with these tensors, as parameters where the model has parameters."""
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

# Functions that write a layout without bytes, where its own `save` cannot.
SPARSE = {"dcp": save_sparse_dcp}

# Every layout that a checkpoint can be made in.
ALL_LAYOUTS = LAYOUTS | FOREIGN
