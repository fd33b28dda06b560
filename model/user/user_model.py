"""A model of the user's: what makes it, what it is asked first, and the checkpoint that is there already."""

import hashlib
import inspect
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map

from model.architecture import DTYPES, SEED
from model.casting import cast, floating, name_of, require_convertible, retype, retyped
from model.examine.trust import UntrustedCheckpoint
from model.layouts import first_names
from model.user.conversion_request import AS_IT_IS, ConversionRequest
from model.user.conversions import load
from model.user.factory import Factory, factory_of
from model.user.fitting import AS_IT_LIES, Fit
from model.user.pretrained_folder import PretrainedFolder
from model.user.reference import Reference
from model.user.source import Source, recognised
from model.user.user_code import UserCodeFailed, telling
from model.verification.outputs import Answers, answers
from model.weights import Progress

PAGE_BYTES = 4096


@dataclass(frozen=True)
class UserModel:
    """`factory()` makes the model, `example()` what it is asked; without `source` its weights are as it is made.

    `example` gives a tensor, a tuple of positional arguments, or a dict of keyword arguments. Where there is none, nor
    an attribute of that name of the factory, the model is asked nothing, and its weights are only looked at. `fit` is
    how the checkpoint became the model's, `cast` the dtype that floating-point weights end in, of `DTYPES`.
    """

    factory: Factory
    example: Reference | None = None
    source: Source | None = None
    fit: Fit = AS_IT_LIES
    cast: str = ""

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.factory.name

    @property
    def dtype(self) -> str:
        """That of most of its bytes, as they are saved."""
        counts: Counter[torch.dtype] = Counter()
        for value in retyped(skeleton(self.factory).state_dict(), dict(self.fit.dtypes)).values():
            if isinstance(value, Tensor):
                counts[value.dtype] += value.nbytes
        return name_of(counts.most_common(1)[0][0])

    @property
    def missing(self) -> tuple[str, ...]:
        """Names in the model that its checkpoint lacks: there it keeps what it starts with."""
        return self.fit.missing

    @property
    def state_digest(self) -> str:
        """That of the names, dtypes, shapes and ties of its state dict, and of what its checkpoint lacks."""
        digest = _digest_of_state(self.factory)
        return hashlib.sha256(json.dumps([digest, *self.missing]).encode()).hexdigest() if self.missing else digest

    @property
    def asks(self) -> Callable[[], Any] | None:
        """What makes the input of its first forward pass; None: there is nothing."""
        if self.example:
            return self.example.get()
        example = getattr(self.factory.get(), "example", None)
        return example if callable(example) or example is None else lambda: example

    def build(self) -> nn.Module:
        """A new one. Raises `UserCodeFailed`, in a line, if there is none; what says that memory is short as it is."""
        try:
            return _built(self.factory)
        except UserCodeFailed as error:
            if isinstance(error.__cause__, MemoryError | torch.OutOfMemoryError):
                raise error.__cause__ from None
            raise

    def build_cast(self) -> nn.Module:
        """A new one, its weights in the dtype that a load ends in."""
        return self.as_loaded(self.build())

    def as_loaded(self, model: nn.Module) -> nn.Module:
        """The same model, its weights in that dtype."""
        return cast(model, DTYPES.get(self.cast))

    def skeleton(self) -> nn.Module:
        return skeleton(self.factory)

    def saved(self, progress: Progress) -> nn.Module:
        with _seeded(SEED):
            model = self.build()
        # As they are saved: a value is rounded once, by the cast.
        retype(model, dict(self.fit.dtypes))
        if self.source:
            try:
                held, converted = self.source.state_dict(), self.source.fit.converted
                load(model, held, converted=converted, missing=self.missing)
            except ValueError as error:
                raise UntrustedCheckpoint(self.source.path, None, str(error)) from None
        progress(sum(tensor.nbytes for tensor in chain(model.parameters(), model.buffers())))
        return model

    def outputs(self, model: nn.Module, seed: int = SEED) -> list[Tensor]:
        """Every tensor of what the model returns; without an input none, and every page of its weights is read.

        Raises `UserCodeFailed`, in a line, if it does not take the input.
        """
        asks, tensors = self.asks, list(chain(model.parameters(), model.buffers()))
        if asks is None:
            for tensor in tensors:
                _read_every_page(tensor)
            return []
        where, device = self.example or self.factory, tensors[0].device if tensors else torch.device("cpu")
        # The input is the same each time: that the model draws random numbers is told by its answers to that.
        with _seeded(SEED, device), where.running(), telling(f"{self._example_shown} fails"):
            given = asks()
        with _seeded(seed, device):
            given = dict(given) if isinstance(given, Mapping) else given
            given = tree_map(lambda one: self._as_input(one, device) if isinstance(one, Tensor) else one, given)
            cast_to = (
                f" with weights in {self.cast}, and buffers that no checkpoint has as they are" if self.cast else ""
            )
            misfit = f"{self._example_shown} does not fit {self.factory.shown}{cast_to}"
            with self.factory.running(), telling(misfit), torch.inference_mode():
                model.eval()
                if isinstance(given, Mapping):
                    returned = model(**given)
                else:
                    returned = model(*given) if isinstance(given, tuple | list) else model(given)
        return list(_tensors(returned))

    def _as_input(self, given: Tensor, device: torch.device) -> Tensor:
        return given.to(device, DTYPES.get(self.cast) if given.is_floating_point() else None)

    def answers(self, model: nn.Module) -> Answers:
        """The same, with what is known of the answers of other models with the same weights."""
        return answers(model, lambda seed: self.outputs(model, seed), SEED) if self.asks else Answers([])

    @property
    def _example_shown(self) -> str:
        return (
            f"--example: {self.example.shown}"
            if self.example
            else f"--model: the example of {self.factory.shown} (--example names another)"
        )

    def identity(self) -> dict[str, Any]:
        """That of its code as far as files in its folder go, and of the files that it is loaded from."""
        functions = [self.factory.get()] + ([self.asks] if self.asks is not None else [])
        model = {
            "architecture": self.factory.shown,
            "code": [_digest_of_code(function) for function in functions],
            "imports": [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.factory.files],
            "state": self.state_digest,
            "source": _identity_of_files(self.source) if self.source else None,
        }
        return {"model": model, "dtype": self.dtype, "seed": SEED}


def own(
    model: str, checkpoint: str | None, state_key: str | None, example: str | None, wanted: ConversionRequest = AS_IT_IS
) -> UserModel:
    """What the options of these names say. Raises `ValueError` with one line: what is wrong, what would be right."""
    with _named("--model"):
        factory = factory_of(model)
        factory.without_arguments()
        if isinstance(factory, PretrainedFolder) and not example:
            factory = factory.with_example()
        expected = skeleton(factory).state_dict()
        _require_measurable(factory, expected)
    with _named("--example"):
        asks = Reference.of(example) if example else None
        if asks:
            asks.without_arguments()
    if state_key is not None and checkpoint is None:
        raise ValueError("--state-key is for what --checkpoint names; leave it out, or name a checkpoint")
    if checkpoint is None and (options := wanted.of_names):
        raise ValueError(f"{options[0]} is for what --checkpoint names; leave it out, or name a checkpoint")
    source = (
        recognised(Path(checkpoint), expected, state_key, partial(_on_meta, factory), wanted)
        if checkpoint is not None
        else None
    )
    fit, cast_to = source.fit if source else AS_IT_LIES, wanted.cast or ""
    if cast_to:
        require_convertible(floating(retyped(expected, dict(fit.dtypes))).values(), cast_to)
    # Processes may be in other folders.
    return UserModel(factory, asks, replace(source, path=source.path.absolute()) if source else None, fit, cast_to)


def _require_measurable(factory: Factory, expected: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a model that cannot be built again and again, or compared; `expected` is its state."""
    if name := _shared(factory):
        raise ValueError(
            f"{factory.shown} returns the same {name} each time, which the next load would find changed: have it "
            f"build a new model in each call"
        )
    for name, value in expected.items():
        if is_lazy(value):
            raise ValueError(
                f"{factory.shown} makes a lazy model, whose {name} is not initialised yet: run it once, on an "
                f"input of yours, before you return it"
            )
        if kind := _other_kind(value):
            raise ValueError(
                f"{factory.shown} makes a model whose {name} is of the type {kind}: other tensors than torch's own "
                f"dense ones cannot be compared bit by bit here"
            )
    if not any(isinstance(value, Tensor) and value.nbytes for value in expected.values()):
        raise ValueError(f"{factory.shown} makes a model without weights")


@contextmanager
def _named(option: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


@cache
def skeleton(factory: Factory) -> nn.Module:
    """A model on meta, to look at; a real one where it cannot be built there."""
    return _on_meta(factory)


def _on_meta(factory: Factory) -> nn.Module:
    try:
        with torch.device("meta"):
            return _built(factory)
    except ValueError:
        return _built(factory)


def _other_kind(value: object) -> str | None:
    """What a tensor is called that is not one of torch's own dense ones; None of those, and of what is no tensor."""
    if not isinstance(value, Tensor):
        return None
    if type(value) not in (Tensor, nn.Parameter):
        return type(value).__name__
    return None if value.layout == torch.strided else str(value.layout)


@cache
def _digest_of_state(factory: Factory) -> str:
    return state_digest(skeleton(factory).state_dict())


def _shared(factory: Factory) -> str | None:
    """The name of a parameter that models have in common; None where there is none, or none is built on meta."""
    with suppress(ValueError), torch.device("meta"):
        again = {id(parameter) for parameter in _built(factory).parameters()}
        return next((name for name, one in skeleton(factory).named_parameters() if id(one) in again), None)
    return None


def _built(factory: Factory) -> nn.Module:
    build = factory.get()
    with factory.running(), telling(f"{factory.shown} fails"):
        model = build()
    if isinstance(model, nn.Module):
        return model
    kind = type(model).__name__
    raise UserCodeFailed(f"{factory.shown} returns no torch.nn.Module, but something of the type {kind}")


@contextmanager
def _seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """What is random in this block is the same each time, and nothing outside is less random for it."""
    numpy, state = sys.modules.get("numpy"), random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    with torch.random.fork_rng(devices=[device] if device and device.type == "cuda" else []):
        torch.manual_seed(seed)
        random.seed(seed)
        if numpy:
            numpy.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(state)
            if numpy:
                numpy.random.set_state(numpy_state)


def _tensors(value: Any) -> Iterator[Tensor]:
    """Every tensor in what a model returned, as plain ones."""
    if isinstance(value, Tensor):
        if value.is_nested:
            yield from value.unbind()
        elif value.is_quantized:
            yield value.dequantize()
        else:
            yield value.to_dense() if value.layout != torch.strided else value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _read_every_page(tensor: Tensor) -> None:
    """Of host memory; what is on another device is there."""
    storage = tensor.untyped_storage()
    if storage.device.type == "cpu":
        torch.empty(0, dtype=torch.uint8).set_(storage)[::PAGE_BYTES].sum()


def state_digest(state_dict: Mapping[str, Any]) -> str:
    """Of the names, dtypes and shapes of a state dict, and of which names mean one tensor."""
    firsts = first_names(state_dict)
    described = [
        [name, str(value.dtype), list(value.shape), *{firsts[name]} - {name}] if isinstance(value, Tensor) else [name]
        for name, value in state_dict.items()
    ]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _digest_of_code(function: Any) -> str | None:
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # Of what is written in C there is none.
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else None


def _identity_of_files(source: Source) -> dict[str, Any]:
    found = [(file, file.stat()) for file in source.files]
    return {
        "files": [[file.name, status.st_size, status.st_mtime_ns, status.st_ctime_ns] for file, status in found],
        "keys": list(map(str, source.keys)),
        "names": hashlib.sha256(repr(source.fit).encode()).hexdigest(),
    }
