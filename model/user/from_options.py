"""Makes a `UserModel` from options such as `--model`, `--checkpoint`, `--state-key` and `--example-input`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from model.casting import floating, retyped
from model.user.conversion_request import AS_IT_IS, ConversionRequest
from model.user.factory import Factory, build, factory_of, names_nothing, on_meta, skeleton
from model.user.fitting import NO_CONVERSION
from model.user.from_config import NoClass
from model.user.pretrained_folder import PretrainedFolder
from model.user.reference import Reference
from model.user.saved_dtypes import require_convertible
from model.user.source import recognised
from model.user.tensors_of_files import TensorsOfFiles
from model.user.user_model import UserModel


@dataclass(frozen=True)
class Named:
    """A model as `--model` names it: `text` for `factory_of`, and `shown` in messages and records if that differs.

    `headers` is the .safetensors file, or the index of some, whose tensors a plan counts where no class builds the
    model; None: there is no such plan. `notes` are lines for the user.
    """

    text: str
    shown: str = ""
    headers: Path | None = None
    notes: tuple[str, ...] = ()


def user_model(
    model: str | Named,
    checkpoint: str | None = None,
    state_key: str | None = None,
    example: str | None = None,
    wanted: ConversionRequest = AS_IT_IS,
) -> UserModel:
    """Make the model of the options of these names. Raises `ValueError` with one line: the fault and the remedy."""
    named = model if isinstance(model, Named) else Named(model)
    with _naming_option("--model"):
        factory, notes = _factory(named)
        if isinstance(factory, PretrainedFolder) and not example:
            factory = factory.with_example()
        expected = skeleton(factory).state_dict()
        _require_measurable(factory, expected)
    with _naming_option("--example-input"):
        make_input = Reference.of(example) if example else None
        if make_input:
            make_input.without_arguments()
    if isinstance(factory, TensorsOfFiles):
        _require_as_they_lie(state_key, wanted)
        checkpoint = None
    if state_key is not None and checkpoint is None:
        raise ValueError("--state-key is for a checkpoint; name one with --checkpoint, or leave it out")
    if checkpoint is None and (options := wanted.name_options):
        raise ValueError(f"{options[0]} is for a checkpoint; name one with --checkpoint, or leave it out")
    source = (
        recognised(Path(checkpoint), expected, state_key, partial(on_meta, factory), wanted)
        if checkpoint is not None
        else None
    )
    conversion, cast_to = source.conversion if source else NO_CONVERSION, wanted.cast or ""
    if cast_to:
        require_convertible(floating(retyped(expected, dict(conversion.dtypes))).values(), cast_to)
    # Processes may be in other folders.
    source = replace(source, path=source.path.absolute()) if source else None
    return UserModel(factory, make_input, source, conversion, cast_to, notes)


def _factory(named: Named) -> tuple[Factory, tuple[str, ...]]:
    """Return the factory of a model, and notes on it. Raises `ValueError`, in a line, if there is none."""
    if TensorsOfFiles.of(named.text):  # The text of a plan's own.
        raise ValueError(names_nothing(named.text))
    factory = factory_of(named.text)
    if isinstance(factory, PretrainedFolder) and named.shown:
        factory = replace(factory, shown=named.shown)
    try:
        factory.without_arguments()
    except NoClass as error:
        if named.headers is None:
            raise
        files = TensorsOfFiles(str(named.headers.absolute()), factory.name, factory.display_name)
        files.without_arguments()
        unseen = "the plan has no first forward pass, and counts tied weights once for each tensor that is saved"
        return files, (*named.notes, f"planned from the tensors of its files, because {error.reason}: {unseen}")
    return factory, named.notes


def _require_as_they_lie(state_key: str | None, wanted: ConversionRequest) -> None:
    """Raise `ValueError`, in a line, for options that change tensors of which only the files are known."""
    given = [*wanted.name_options, *(["--cast"] if wanted.cast else []), *(["--state-key"] if state_key else [])]
    if given:
        raise ValueError(
            f"{given[0]}: no installed class builds this model, so it is planned from the tensors of its files; leave "
            f"out {given[0]}"
        )


def _require_measurable(factory: Factory, expected: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a model that cannot be built again and again, or compared; `expected` is its state."""
    if name := _shared(factory):
        raise ValueError(
            f"{factory.display_name} returns the same {name} in each call, so a load would change it for the next one; "
            f"build a new model in each call"
        )
    for name, value in expected.items():
        if is_lazy(value):
            raise ValueError(
                f"{factory.display_name} returns a lazy model, whose {name} is not initialised; run it once "
                f"on an input "
                f"before you return it"
            )
        if kind := _other_kind(value):
            raise ValueError(
                f"{factory.display_name} returns a model whose {name} is of type {kind}, and only dense tensors of "
                f"torch are compared bit by bit; build it without such tensors"
            )
    if not any(isinstance(value, Tensor) and value.nbytes for value in expected.values()):
        raise ValueError(f"{factory.display_name} returns a model without weights; return one that has weights")


@contextmanager
def _naming_option(option: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None


def _other_kind(value: object) -> str | None:
    """Return the kind of a tensor other than torch's own dense ones; None for those, and for other values."""
    if not isinstance(value, Tensor):
        return None
    if type(value) not in (Tensor, nn.Parameter):
        return type(value).__name__
    return None if value.layout == torch.strided else str(value.layout)


def _shared(factory: Factory) -> str | None:
    """Return the name of a parameter that two models share; None if there is none, or no model is built on meta."""
    with suppress(ValueError), torch.device("meta"):
        again = {id(parameter) for parameter in build(factory).parameters()}
        return next((name for name, one in skeleton(factory).named_parameters() if id(one) in again), None)
    return None
