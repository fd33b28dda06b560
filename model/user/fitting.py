"""Conversion of a user's checkpoint to the model's state dict: the mapping of names, and notes on it."""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from model.byte_sizes import MB, megabytes
from model.casting import Dtypes
from model.examine.pickle_objects import SavedObject, SavedTensor
from model.examine.saved_file import dtype_shape_stride
from model.examine.trust import FileContents
from model.state_dict import EXTRA_STATE, first_names, without
from model.user.conversion_request import AS_IT_IS, ConversionRequest
from model.user.conversions import earlier_names, ignored_by, written_by
from model.user.name_globs import is_named, lacking
from model.user.renaming import by_rules, changes, listed, renamed

# State that torch's own wrappers save beside the model: AveragedModel saves the number of averages.
WRAPPER_STATE = frozenset(("n_averaged",))


@dataclass(frozen=True)
class Conversion:
    """A conversion of what is saved to what a model has.

    `names` are pairs of a saved name and the model's; without any, all names stay. `notes` describe the conversion to
    the user; a plain checkpoint has none. `converted`: the names are those that `save_pretrained` writes. `strided`: a
    copy has strides that no .safetensors file can hold. `missing` are names of the model that are not saved. `dtypes`
    are names that are saved in another dtype than the model is built with, with that dtype: a cast converts them.
    """

    names: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    converted: bool = False
    strided: bool = False
    missing: tuple[str, ...] = ()
    dtypes: Dtypes = ()

    def applied(self, saved: dict[str, Any]) -> dict[str, Any]:
        """Return a state dict under the names of the model, with the versions of its modules."""
        if not self.names:
            return saved
        state_dict: dict[str, Any] = OrderedDict((to, saved[name]) for name, to in self.names)
        versions = getattr(saved, "_metadata", None)
        if versions is not None:
            modules = {to.rpartition(".")[0]: name.rpartition(".")[0] for name, to in self.names}
            kept = {to: versions[module] for to, module in modules.items() if module in versions}
            state_dict._metadata = OrderedDict(kept)  # type: ignore[attr-defined]  # noqa: SLF001 - as torch has it
        return state_dict


# That of a checkpoint that a strategy is given as it is.
NO_CONVERSION = Conversion()


@dataclass(frozen=True)
class CheckpointForm:
    """One form in which a model is saved.

    `wanted` is its state dict, `rename` changes saved names to its names, and names that `ignored` matches do not
    count. `note` describes the renaming. `converted`: the model's own `from_pretrained` has to load it.
    """

    wanted: Mapping[str, Any]
    rename: Callable[[str], str] = str
    ignored: re.Pattern[str] | None = None
    note: str = "names of earlier versions of transformers"
    converted: bool = False


@dataclass(frozen=True)
class TargetModel:
    """A model that a checkpoint has to fit, with the state dict `expected`; `build` makes it on meta."""

    expected: Mapping[str, Any]
    build: Callable[[], nn.Module] | None = None
    wanted: ConversionRequest = AS_IT_IS

    @property
    def forms(self) -> Iterator[CheckpointForm]:
        """Yield the model's state dict, then other forms that its own code takes; only those build the model."""
        yield self._own_form
        yield from self._other_forms

    @cached_property
    def _own_form(self) -> CheckpointForm:
        return CheckpointForm(self.expected)

    @cached_property
    def _other_forms(self) -> tuple[CheckpointForm, ...]:
        if self.build is None:
            return ()
        model = self.build()
        rename, ignored, written = earlier_names(model), ignored_by(model), written_by(model)
        forms = [CheckpointForm(self.expected, rename, ignored)] if rename else []
        if written:
            forms.append(
                CheckpointForm(written, str, ignored, "tensors as save_pretrained writes them", converted=True)
            )
        return (*forms,)

    def has_names_of(self, value: Mapping[str, Any]) -> bool:
        """Return whether saved names are those of a form: at least one for each tied tensor, and no others."""
        for form in self.forms:
            if len(value) < self._least(form):  # A checkpoint of training has thousands of small dicts.
                continue
            conversion, held = self.convert({Path(): dict(value)}, form)
            names, firsts = held[Path()].keys(), first_names(without(form.wanted, conversion.missing))
            if names <= firsts.keys() and {firsts[name] for name in names} == set(firsts.values()):
                return True
        return False

    @cached_property
    def _leasts(self) -> dict[int, int]:
        return {}

    def _least(self, form: CheckpointForm) -> int:
        """Return the smallest number of names in a state dict of the form."""
        if id(form) not in self._leasts:  # The forms are there as long as this is.
            needed = without(form.wanted, lacking([], form.wanted, self.wanted.missing))
            self._leasts[id(form)] = len(set(first_names(needed).values()))
        return self._leasts[id(form)]

    def convert(self, parts: FileContents, form: CheckpointForm) -> tuple[Conversion, FileContents]:
        """Return the conversion of what is saved to a form, and what is saved under the form's names."""
        conversion, held = convert(parts, form, self.wanted)
        missing = lacking([name for part in held.values() for name in part], form.wanted, self.wanted.missing)
        # What the library makes out of several tensors has no name in the model that could be missing.
        return replace(conversion, missing=missing if self.expected.keys() >= set(missing) else ()), held


def convert(
    parts: FileContents, form: CheckpointForm, asked: ConversionRequest = AS_IT_IS
) -> tuple[Conversion, FileContents]:
    """Return the conversion of saved names to those of a form, and what is saved under those names.

    Left out, with a note: names that match `asked.surplus` after `asked.renames`, numbers and other values beside the
    tensors, what wrappers save beside the model, what the model's own code ignores, and a second name of a tensor for
    which the model has one name.
    """
    wanted = form.wanted
    before = {by_rules(name, asked.renames): name for part in parts.values() for name in part}
    parts = {file: {by_rules(name, asked.renames): one for name, one in part.items()} for file, part in parts.items()}
    saved = {name: (file, value) for file, part in parts.items() for name, value in part.items()}
    left_out = {name for name, (_, value) in saved.items() if name not in wanted and _is_beside(name, value)}
    left_out |= {name for name in saved if is_named(name, asked.surplus)}
    names = renamed({name: form.rename(name) for name in saved if name not in left_out}, wanted.keys())
    kept = {_place(*saved[name]) for name, to in names.items() if to in wanted}
    for name, to in names.items():
        if to not in wanted and ((form.ignored and form.ignored.search(to)) or _place(*saved[name]) in kept):
            left_out.add(name)
    names = {name: to for name, to in names.items() if name not in left_out}
    held = {file: {names[name]: value for name, value in part.items() if name in names} for file, part in parts.items()}
    renames = form.converted or any(form.rename(name) != name for name in names)
    notes = [f"names by --rename {pattern}={replacement}" for pattern, replacement in asked.renames]
    notes += [form.note] if renames else changes(names)
    if left_out:
        notes.append(f"without {listed([name for name in saved if name in left_out])}")
    pairs = tuple((before[name], to) for name, to in names.items()) if notes else ()
    return Conversion(pairs, tuple(notes), form.converted), held


def memory_notes(file_name: str, parts: FileContents, expected: Mapping[str, Any]) -> list[str]:
    """Return notes on tensors that lie otherwise in a file than in the model: a copy of the file differs there.

    `parts` have the names of the model.
    """
    strided: list[str] = []
    shared: list[str] = []
    storages: dict[object, int] = {}
    firsts: dict[object, str] = {}
    saved = {name: (file, value) for file, part in parts.items() for name, value in part.items()}
    for name, wanted in expected.items():
        file, value = saved.get(name, (None, None))
        if not isinstance(value, SavedTensor) or not isinstance(wanted, Tensor):
            continue
        if dtype_shape_stride(value)[2] != dtype_shape_stride(wanted)[2]:
            strided.append(name)
        has_own = firsts.setdefault(wanted.untyped_storage(), name) == name
        if has_own and (file, value.storage.key) in storages:
            shared.append(name)
        storages[file, value.storage.key] = value.storage.bytes
    notes = []
    if strided:
        notes.append(f"strides other than the model's: {listed(strided)}")
    if shared:
        notes.append(f"one storage for tensors that have their own in the model: {listed(shared)}")
    needed = sum(storage.nbytes() for storage in {one.untyped_storage() for one in _tensors(expected)})
    if (held := sum(storages.values())) > needed:
        notes.append(
            f"{file_name} holds {_format_bytes(held)}, of which {_format_bytes(needed)} are the model's: save clones"
        )
    return notes


def _format_bytes(count: int) -> str:
    return megabytes(count) if count >= MB / 10 else f"{count:,} bytes"


def _tensors(state_dict: Mapping[str, Any]) -> list[Tensor]:
    return [value for value in state_dict.values() if isinstance(value, Tensor)]


def _is_beside(name: str, value: object) -> bool:
    is_tensor = isinstance(value, SavedTensor) or (isinstance(value, SavedObject) and value.is_tensor)
    return name in WRAPPER_STATE or not (is_tensor or name.endswith(EXTRA_STATE))


def _place(file: Path, value: object) -> object:
    """Return a key that is equal for two names of one saved tensor, and differs for everything else."""
    if not isinstance(value, SavedTensor):
        return object()
    return file, value.storage.key, value.offset, *dtype_shape_stride(value)
