"""How what a user has saved becomes what a model has: as it lies, or by a copy, under which names, and what is said."""

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
from model.examine.saved_file import form as form_of
from model.examine.trust import EXTRA_STATE, Parts
from model.layouts import first_names
from model.user.conversion_request import AS_IT_IS, ConversionRequest
from model.user.conversions import earlier_names, ignored_by, written_by
from model.user.name_globs import is_named, lacking, without
from model.user.renaming import by_rules, changes, listed, renamed

# What torch's own wrappers save beside the model: of AveragedModel the number of averages.
BESIDE = frozenset(("n_averaged",))


@dataclass(frozen=True)
class Fit:
    """Which names of what is saved are which of the model, and what is said of it; of a plain checkpoint nothing is.

    Without `names` all are as they are. `converted`: the names are those that `save_pretrained` writes. `strided`: a
    copy has strides that no .safetensors file can hold. `missing` are names of the model's that are not saved, `dtypes`
    those that are saved in other dtypes than the model is built with, and in which: a cast converts them.
    """

    names: tuple[tuple[str, str], ...] = ()
    said: tuple[str, ...] = ()
    converted: bool = False
    strided: bool = False
    missing: tuple[str, ...] = ()
    dtypes: Dtypes = ()

    def applied(self, saved: dict[str, Any]) -> dict[str, Any]:
        """A state dict under the names of the model, with the versions of its modules."""
        if not self.names:
            return saved
        state_dict: dict[str, Any] = OrderedDict((to, saved[name]) for name, to in self.names)
        versions = getattr(saved, "_metadata", None)
        if versions is not None:
            modules = {to.rpartition(".")[0]: name.rpartition(".")[0] for name, to in self.names}
            kept = {to: versions[module] for to, module in modules.items() if module in versions}
            state_dict._metadata = OrderedDict(kept)  # type: ignore[attr-defined]  # noqa: SLF001 - as torch has it
        return state_dict


# Of a checkpoint that a strategy is given.
AS_IT_LIES = Fit()


@dataclass(frozen=True)
class Form:
    """One way of being a checkpoint of a model: `wanted`, by names that `rename` is applied to, and `ignored` ones.

    `said` is what is told of such a renaming. `converted`: the model's own `from_pretrained` has to load it.
    """

    wanted: Mapping[str, Any]
    rename: Callable[[str], str] = str
    ignored: re.Pattern[str] | None = None
    said: str = "names of earlier versions of transformers"
    converted: bool = False


@dataclass(frozen=True)
class Target:
    """A model that a checkpoint is to fit, with the state dict `expected`; `build` makes it on meta, to be asked."""

    expected: Mapping[str, Any]
    build: Callable[[], nn.Module] | None = None
    wanted: ConversionRequest = AS_IT_IS

    @property
    def forms(self) -> Iterator[Form]:
        """The model's state dict, and what its own code takes instead: it is asked only if that is wanted."""
        yield self._own_form
        yield from self._other_forms

    @cached_property
    def _own_form(self) -> Form:
        return Form(self.expected)

    @cached_property
    def _other_forms(self) -> tuple[Form, ...]:
        if self.build is None:
            return ()
        model = self.build()
        rename, ignored, written = earlier_names(model), ignored_by(model), written_by(model)
        forms = [Form(self.expected, rename, ignored)] if rename else []
        if written:
            forms.append(Form(written, str, ignored, "tensors as save_pretrained writes them", converted=True))
        return (*forms,)

    def has_names_of(self, value: Mapping[str, Any]) -> bool:
        """Whether what is saved has the names of a form, of a tied tensor one of those at least, and no others."""
        for form in self.forms:
            if len(value) < self._least(form):  # A checkpoint of training has thousands of small dicts.
                continue
            fit, held = self.fitted({Path(): dict(value)}, form)
            names, firsts = held[Path()].keys(), first_names(without(form.wanted, fit.missing))
            if names <= firsts.keys() and {firsts[name] for name in names} == set(firsts.values()):
                return True
        return False

    @cached_property
    def _leasts(self) -> dict[int, int]:
        return {}

    def _least(self, form: Form) -> int:
        """The fewest names that what is saved has, if it is of the form."""
        if id(form) not in self._leasts:  # The forms are there as long as this is.
            needed = without(form.wanted, lacking([], form.wanted, self.wanted.missing))
            self._leasts[id(form)] = len(set(first_names(needed).values()))
        return self._leasts[id(form)]

    def fitted(self, parts: Parts, form: Form) -> tuple[Fit, Parts]:
        """How what is saved becomes what a form wants, as it is asked for, and what is saved under those names."""
        fit, held = fitted(parts, form, self.wanted)
        missing = lacking([name for part in held.values() for name in part], form.wanted, self.wanted.missing)
        # What the library makes out of several tensors has no name in the model that could be missing.
        return replace(fit, missing=missing if self.expected.keys() >= set(missing) else ()), held


def fitted(parts: Parts, form: Form, asked: ConversionRequest = AS_IT_IS) -> tuple[Fit, Parts]:
    """How the names of what is saved become those of a form, and what is saved under those names.

    What is left out, and said: what `asked` says may be surplus, by its name after `asked.renames`, a number or another
    value beside the tensors, what wrappers save beside the model, what is ignored by the model's own code, and a second
    name of a tensor of which the model has but one.
    """
    wanted = form.wanted
    before = {by_rules(name, asked.renames): name for part in parts.values() for name in part}
    parts = {file: {by_rules(name, asked.renames): one for name, one in part.items()} for file, part in parts.items()}
    saved = {name: (file, value) for file, part in parts.items() for name, value in part.items()}
    beside = {name for name, (_, value) in saved.items() if name not in wanted and _is_beside(name, value)}
    beside |= {name for name in saved if is_named(name, asked.surplus)}
    names = renamed({name: form.rename(name) for name in saved if name not in beside}, wanted.keys())
    kept = {_place(*saved[name]) for name, to in names.items() if to in wanted}
    for name, to in names.items():
        if to not in wanted and ((form.ignored and form.ignored.search(to)) or _place(*saved[name]) in kept):
            beside.add(name)
    names = {name: to for name, to in names.items() if name not in beside}
    held = {file: {names[name]: value for name, value in part.items() if name in names} for file, part in parts.items()}
    renames = form.converted or any(form.rename(name) != name for name in names)
    said = [f"names by --rename {pattern}={replacement}" for pattern, replacement in asked.renames]
    said += [form.said] if renames else changes(names)
    if beside:
        said.append(f"without {listed([name for name in saved if name in beside])}")
    pairs = tuple((before[name], to) for name, to in names.items()) if said else ()
    return Fit(pairs, tuple(said), form.converted), held


def memory_said(file_name: str, parts: Parts, expected: Mapping[str, Any]) -> list[str]:
    """What is said of how tensors lie in a file, where they lie otherwise in the model: in no copy of it they do.

    The names are those of the model.
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
        if form_of(value)[2] != form_of(wanted)[2]:
            strided.append(name)
        has_own = firsts.setdefault(wanted.untyped_storage(), name) == name
        if has_own and (file, value.storage.key) in storages:
            shared.append(name)
        storages[file, value.storage.key] = value.storage.bytes
    said = []
    if strided:
        said.append(f"strides other than the model's: {listed(strided)}")
    if shared:
        said.append(f"one storage for tensors that have their own in the model: {listed(shared)}")
    needed = sum(storage.nbytes() for storage in {one.untyped_storage() for one in _tensors(expected)})
    if (held := sum(storages.values())) > needed:
        said.append(f"{file_name} holds {_size(held)}, of which {_size(needed)} are the model's: save clones")
    return said


def _size(count: int) -> str:
    return megabytes(count) if count >= MB / 10 else f"{count:,} bytes"


def _tensors(state_dict: Mapping[str, Any]) -> list[Tensor]:
    return [value for value in state_dict.values() if isinstance(value, Tensor)]


def _is_beside(name: str, value: object) -> bool:
    is_tensor = isinstance(value, SavedTensor) or (isinstance(value, SavedObject) and value.is_tensor)
    return name in BESIDE or not (is_tensor or name.endswith(EXTRA_STATE))


def _place(file: Path, value: object) -> object:
    """What is equal for two names of one saved tensor; of anything else, for nothing."""
    if not isinstance(value, SavedTensor):
        return object()
    return file, value.storage.key, value.offset, *form_of(value)
