"""Layouts of other libraries: each library writes its checkpoint, from the same weights.

Only the library itself can read such a file. So the suite keeps a digest of every saved tensor, and compares loads with
these digests.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from model.layouts.dcp import PLANNED, SAVED, save_dcp, save_sparse_dcp
from model.layouts.files import Save, Saved, written
from model.layouts.layouts import LAYOUTS, Layout


def save_flashpack(state_dict: dict[str, Any], folder: Path, save: Save[Saved]) -> dict[str, Saved]:
    """Save with `pack_to_file`, every tensor with its own dtype."""
    from flashpack import pack_to_file  # noqa: PLC0415 - of an extra

    pack_to_file(dict(state_dict), str(folder / "model.flashpack"), None)
    return written(folder / "model.flashpack", folder, save)


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
        return written(folder / self.entrance, folder, save)


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
    "dcp": Layout("dcp", save_dcp, _unreadable, "torch", SAVED.as_record()),
    "tensorizer": TensorizerLayout("model.tensors", _unsaveable, _unreadable, "tensorizer"),
    "flashpack": Layout("model.flashpack", save_flashpack, _unreadable, "flashpack"),
}

# Functions that write a layout without bytes, where its own `save` cannot.
SPARSE = {"dcp": save_sparse_dcp}
# And the settings that it then has.
PLANNED_SETTINGS = {"dcp": PLANNED.as_record()}

# Every layout that a checkpoint can be made in.
ALL_LAYOUTS = LAYOUTS | FOREIGN
