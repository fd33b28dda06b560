"""Loaders that people really use: each as its own project recommends it, under its own name, and nothing added.

A file here imports the library that it is about, so it is imported in the process of a load only. What a loader does
without a word, where another would refuse, is for the conformance table to show. `backend(device)`, where a file has
one, says which of its ways the library takes on this machine.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bench.strategies.peers.finding import by_path
from model.installation import pip_install
from model.user.source import Source


@dataclass(frozen=True)
class Peer:
    """A project whose loader a strategy is.

    `needs` are the distributions that it wants, its own first. `destination` is the model that it is recommended to
    load into, and `settings` what it is given. `formats` are those that its project loads, `devices` where it can
    load to: its own code cannot write to a simulated device, where `sim` is not among them. Of the properties of models
    in the conformance table, `wrong` are those that it was seen to load wrongly without an error, and `dies` those that
    ended its process. `architecture` is that of the model which it loads, if not the suite's.

    `extra_layouts` are other layouts of a user's checkpoint that it is measured with, where it `finds` its files as
    they lie.
    `torch_file` is the file-backed memory once every weight was read, where that is of torch.
    """

    file: str
    needs: str
    destination: str
    settings: str
    formats: str
    devices: str = "cpu cuda"
    wrong: str = ""
    dies: str = ""
    architecture: str = ""
    extra_layouts: str = ""
    finds: Callable[[Source], bool] = by_path
    torch_file: str = ""

    @property
    def module(self) -> str:
        return f"{__name__}.{self.file}"

    @property
    def source(self) -> str:
        """The file that the recipe is written in."""
        return str(Path(__file__).parent / f"{self.file}.py")

    @property
    def versions(self) -> dict[str, str | None]:
        """The versions of the distributions that it needs; None: one is not installed."""
        return {name: _version(name) for name in self.needs.split()}

    def as_record(self) -> dict[str, Any]:
        """Return its fields of a record, but for the back end, which is known when something was loaded."""
        return {
            "versions": self.versions,
            "settings": self.settings,
            "backend": None,
            "destination": self.destination,
            "formats": self.formats,
            "devices": self.devices,
        }

    def backend(self, device: torch.device) -> str | None:
        """Return the way that the library takes to a device, where its file asks it; to be asked where it is loaded."""
        tell = getattr(import_module(self.module), "backend", None)
        return tell(device) if tell else None

    def skip_reason(self, device: str, *, planned: bool = False) -> str | None:
        """Return why it cannot load to a device here; None if it can, as far as that is known without trying."""
        if missing := [name for name, found in self.versions.items() if found is None]:
            return (
                f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed: {pip_install('peers')}"
            )
        if planned and "sim" not in self.devices.split():
            return "it cannot be planned: its own code reads the file; leave out --plan"
        kind = device.partition(":")[0]
        if kind in self.devices.split():
            return None
        if kind == "sim":
            return "its own code cannot write to a simulated device; use --device cpu or cuda"
        return f"it loads to {self.devices.replace(' ', ' and ')} only; choose with --device"


@cache
def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None
