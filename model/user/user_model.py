"""The user's model: its factory, its example input, and its checkpoint."""

import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from model.architecture import DTYPES, SEED
from model.casting import cast, dtype_name, retype, retyped
from model.examine.trust import UntrustedCheckpoint
from model.user.conversions import load
from model.user.factory import Factory, build, skeleton, skeleton_digest
from model.user.fitting import NO_CONVERSION, Conversion
from model.user.forward_pass import read_every_page, seeded, tensors_in
from model.user.reference import Reference
from model.user.source import Source
from model.user.user_code import UserCodeFailed, naming_failures
from model.values.outputs import ReferenceOutputs, reference_outputs
from model.weights import Progress


@dataclass(frozen=True)
class UserModel:
    """A model that `factory()` builds, with the weights of `source`, or its own without one.

    `example()` makes the input of its first forward pass: a tensor, a tuple of positional arguments, or a dict of
    keyword arguments. Without it, an attribute `example` of the factory does; without both, there is no forward pass,
    and the weights are only read. `conversion` is that of the checkpoint to the model's state dict, `cast` the dtype of
    `DTYPES` that floating-point weights end in. `notes` are lines for the user on where the model comes from.
    """

    factory: Factory
    example: Reference | None = None
    source: Source | None = None
    conversion: Conversion = NO_CONVERSION
    cast: str = ""
    notes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.factory.name

    @property
    def dtype(self) -> str:
        """The dtype of most of its bytes, as they are saved."""
        counts: Counter[torch.dtype] = Counter()
        for value in retyped(skeleton(self.factory).state_dict(), dict(self.conversion.dtypes)).values():
            if isinstance(value, Tensor):
                counts[value.dtype] += value.nbytes
        return dtype_name(counts.most_common(1)[0][0])

    @property
    def missing(self) -> tuple[str, ...]:
        """Names in the model that its checkpoint lacks: those tensors keep their initial values."""
        return self.conversion.missing

    @property
    def state_digest(self) -> str:
        """A SHA-256 of the names, dtypes, shapes and ties of its state dict, and of the names that are missing."""
        digest = skeleton_digest(self.factory)
        return hashlib.sha256(json.dumps([digest, *self.missing]).encode()).hexdigest() if self.missing else digest

    @property
    def make_input(self) -> Callable[[], Any] | None:
        """The function that makes the input of its first forward pass; None if there is none."""
        if self.example:
            return self.example.get()
        example = getattr(self.factory.get(), "example", None)
        return example if callable(example) or example is None else lambda: example

    def build(self) -> nn.Module:
        """Build a new model. Raises `UserCodeFailed`, in a line, if that fails; out-of-memory errors pass unchanged."""
        try:
            return build(self.factory)
        except UserCodeFailed as error:
            if isinstance(error.__cause__, MemoryError | torch.OutOfMemoryError):
                raise error.__cause__ from None
            raise

    def build_cast(self) -> nn.Module:
        """Build a new model with its weights in the dtype that a load ends in."""
        return self.as_loaded(self.build())

    def as_loaded(self, model: nn.Module) -> nn.Module:
        """Cast the weights of a model to the dtype that a load ends in, and return it."""
        return cast(model, DTYPES.get(self.cast))

    def skeleton(self) -> nn.Module:
        return skeleton(self.factory)

    def saved(self, progress: Progress) -> nn.Module:
        with seeded(SEED):
            model = self.build()
        # In the saved dtypes: a value is rounded once, by the cast.
        retype(model, dict(self.conversion.dtypes))
        if self.source:
            try:
                held, converted = self.source.state_dict(), self.source.conversion.converted
                load(model, held, converted=converted, missing=self.missing)
            except ValueError as error:
                raise UntrustedCheckpoint(self.source.path, None, str(error)) from None
        progress(sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers())))
        return model

    def outputs(self, model: nn.Module, seed: int = SEED) -> list[Tensor]:
        """Return every tensor in what the model returns; without an input none, and every page of its weights is read.

        Raises `UserCodeFailed`, in a line, if it does not take the input.
        """
        make_input, tensors = self.make_input, list(chain(model.parameters(), model.buffers()))
        if make_input is None:
            for tensor in tensors:
                # Of a distributed tensor this rank has a part.
                read_every_page(tensor.to_local() if hasattr(tensor, "to_local") else tensor)
            return []
        where, device = self.example or self.factory, tensors[0].device if tensors else torch.device("cpu")
        # The input is the same each time: then outputs that differ show that the model draws random numbers.
        with seeded(SEED, device), where.running(), naming_failures(f"{self._example_name} fails"):
            inputs = make_input()
        with seeded(seed, device):
            inputs = dict(inputs) if isinstance(inputs, Mapping) else inputs
            inputs = tree_map(lambda one: self._as_input(one, device) if isinstance(one, Tensor) else one, inputs)
            cast_to = (
                f" with weights in {self.cast}, and buffers that no checkpoint has as they are" if self.cast else ""
            )
            misfit = f"{self._example_name} does not fit {self.factory.display_name}{cast_to}"
            with self.factory.running(), naming_failures(misfit), torch.inference_mode():
                model.eval()
                if isinstance(inputs, Mapping):
                    returned = model(**inputs)
                else:
                    returned = model(*inputs) if isinstance(inputs, tuple | list) else model(inputs)
        return list(tensors_in(returned))

    def _as_input(self, tensor: Tensor, device: torch.device) -> Tensor:
        return tensor.to(device, DTYPES.get(self.cast) if tensor.is_floating_point() else None)

    def reference_outputs(self, model: nn.Module) -> ReferenceOutputs:
        """Return the outputs, and how those of other models with the same weights compare with them."""
        return (
            reference_outputs(model, lambda seed: self.outputs(model, seed), SEED)
            if self.make_input
            else ReferenceOutputs([])
        )

    @property
    def _example_name(self) -> str:
        return (
            f"--example-input: {self.example.display_name}"
            if self.example
            else f"--model: the example of {self.factory.display_name} (--example-input names another)"
        )

    def identity(self) -> dict[str, Any]:
        """Return the identity of its code, as far as its folder has it, and of the files that it is loaded from."""
        functions = [self.factory.get()] + ([self.make_input] if self.make_input is not None else [])
        model = {
            "architecture": self.factory.display_name,
            "code": [_digest_of_code(function) for function in functions],
            "imports": [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.factory.files],
            "state": self.state_digest,
            "source": _identity_of_files(self.source) if self.source else None,
        }
        return {"model": model, "dtype": self.dtype, "seed": SEED}


def _digest_of_code(function: Any) -> str | None:
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # Functions in C have none.
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else None


def _identity_of_files(source: Source) -> dict[str, Any]:
    found = [(file, file.stat()) for file in source.files]
    return {
        "files": [[file.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns] for file, status in found],
        "keys": list(map(str, source.keys)),
        "names": hashlib.sha256(repr(source.conversion).encode()).hexdigest(),
    }
