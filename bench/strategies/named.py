"""A loader that is known by its name alone: what it imports is imported in the process of a load, and nowhere else."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.reference import Reference


@dataclass(frozen=True)
class NamedLoad:
    """Calls a function that is found by its name in whichever process a load runs."""

    reference: Reference

    def __call__(self, build: Any, path: Path | str, device: torch.device, *others: Any) -> nn.Module:
        function = self.reference.get()
        with self.reference.running():
            return function(build, path, device, *others)
