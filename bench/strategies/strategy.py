"""A strategy: a recipe, the checkpoints that it loads, the bounds of its peaks, and the models that it refuses."""

import ast
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from bench.strategies.lazy_recipe import LazyRecipe
from bench.strategies.peers import Peer

Load = Callable[[Callable[[], nn.Module], Path, torch.device], nn.Module]

# Those that a recipe loads which reads any file of a state dict, beside `torch`.
EXTRA_LAYOUTS = "torch_sharded safetensors safetensors_sharded"


@dataclass(frozen=True)
class Bounds:
    """Peaks of a load that theory gives, in the terms of `bench/measure/terms.py`; "": it says nothing of one.

    `device` is the peak on a device with memory of its own, in requested bytes, `host` the private memory beside it,
    and `pinned` the page-locked part of that. `cpu` is the private memory where the device is the host. `file` is the
    file-backed memory once every weight was read, and `file_moved` that beside a device; None: the same.
    """

    device: str = ""
    host: str = ""
    cpu: str = ""
    file: str = ""
    pinned: str = ""
    file_moved: str | None = None

    def of_peaks(self, *, on_host: bool) -> dict[str, str]:
        """Return the bound of every figure of a record that theory speaks of; `on_host`: the device is the host."""
        if on_host:
            known = {"host_private_peak_bytes": self.cpu, "host_file_peak_bytes": self.file}
        else:
            known = {
                "device_requested_peak_bytes": self.device,
                "host_private_peak_bytes": self.host,
                "host_file_peak_bytes": self.beside_device,
                "host_pinned_peak_bytes": self.pinned,
            }
        return {figure: expression for figure, expression in known.items() if expression}

    @property
    def beside_device(self) -> str:
        """The file-backed memory beside a device."""
        return self.file if self.file_moved is None else self.file_moved


@dataclass(frozen=True)
class Strategy:
    """A row of the table of strategies.

    `layout` is the checkpoint that it is measured with, and `extra_layouts` are others that it loads; with `any_layout`
    it loads whatever layout the user's checkpoint is in. `bounds` are of a load of the whole model as it is saved, and
    `partial_bounds` of one that casts, or whose checkpoint has a part of the model; None: the same. `refuses` are
    properties of models that it cannot load and says so, `refuses_moved` those that it cannot load where the device is
    not the host. `builds`: it builds the model on the host, and no skeleton. Of a loader of the user's (`is_users`) the
    bounds are what the user says that it takes at most, and nobody says what it refuses. Of the loader of another
    project, a `peer`, theory says next to nothing.
    """

    load: Load
    layout: str
    bounds: Bounds
    partial_bounds: Bounds | None = None
    refuses: str = ""
    refuses_moved: str = ""
    extra_layouts: str = ""
    builds: bool = False
    is_users: bool = False
    any_layout: bool = False
    peer: Peer | None = None

    @property
    def name(self) -> str:
        return self.load.reference.name if isinstance(self.load, LazyRecipe) else self.load.__name__

    @property
    def function(self) -> Load:
        """The recipe itself."""
        return self.load.reference.get() if isinstance(self.load, LazyRecipe) else self.load

    @property
    def loader(self) -> str | None:
        """The name of a loader of the user's with its file or module, as `Reference.shown`; None: it is the suite's."""
        return self.load.reference.display_name if self.is_users and isinstance(self.load, LazyRecipe) else None

    @property
    def source(self) -> str:
        """The file that the recipe is written in; of one that is not written in Python there is none."""
        if self.peer:
            return self.peer.source
        return getattr(getattr(self.function, "__code__", None), "co_filename", "")

    def takes(self, keyword: str) -> bool:
        """Return True if a recipe has a keyword, by its source: the library of a peer is not imported for that."""
        tree = ast.parse(Path(self.source).read_bytes())
        functions = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == self.name]
        return any(keyword == argument.arg for one in functions for argument in (*one.args.args, *one.args.kwonlyargs))

    @property
    def layouts(self) -> tuple[str, ...]:
        """All that it loads, of `LAYOUTS`."""
        return self.layout, *self.extra_layouts.split()

    def loads(self, layout: str) -> bool:
        """Return True if it loads a checkpoint in a layout of `ALL_LAYOUTS` that the suite has saved."""
        return self.any_layout or layout in self.layouts

    def with_layout(self, layout: str) -> "Strategy":
        """Return the same for a checkpoint in one of its layouts: a peer may map no file but its own."""
        if self.peer and layout != self.layout and layout.startswith("torch"):
            return replace(self, bounds=replace(self.bounds, file=self.peer.torch_file))
        return self

    def partial(self) -> "Strategy":
        """Return the same with the bounds of a load that casts, or whose checkpoint has a part of the model."""
        return self if self.partial_bounds is None else replace(self, bounds=self.partial_bounds)

    @property
    def is_stated(self) -> bool:
        """True if it is the suite's own, of which theory says what it takes."""
        return not self.is_users and self.peer is None

    def refused(self, device: str) -> frozenset[str]:
        """Return the properties that keep it from loading a model to `device`."""
        return frozenset(f"{self.refuses} {'' if device == 'cpu' else self.refuses_moved}".split())

    def avoided(self, device: str) -> frozenset[str]:
        """Return these, and those that a peer loads wrongly: what is drawn to find out other things is without."""
        return self.refused(device) | frozenset(f"{self.peer.wrong} {self.peer.dies}".split() if self.peer else ())
