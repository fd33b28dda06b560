"""A checkpoint that a user has: which layout it is in, by what is in it, and where in it the model's state dict is.

Headers are read, and nothing else.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from torch import Tensor, nn

from model.casting import as_saved, floating, other_dtypes, require_floating, retyped
from model.examine.mishaps import AGAIN, FIRST_BYTES, is_safetensors, mishap
from model.examine.safetensors_file import contiguous_stride
from model.examine.saved_file import open_regular, read_saved
from model.examine.shard_index import read_index
from model.examine.state_keys import MOST_SHOWN, Keys, found_keys
from model.examine.trust import (
    READERS,
    Parts,
    UntrustedCheckpoint,
    differing,
    examine,
    naming,
    one_line,
    require_ties,
)
from model.layouts import LAYOUTS, map_torch
from model.user.conversion_request import AS_IT_IS, ConversionRequest
from model.user.conversions import taken_by
from model.user.fitting import AS_IT_LIES, Fit, Target, memory_said
from model.user.name_globs import advice, require_effect, require_lacking, without
from model.user.renaming import by_rules, listed

# What is said of files that hold more than their index.
UNLISTED = "without what its index does not list"

DCP = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE"


@dataclass(frozen=True)
class Source:
    """Where a checkpoint lies, in which of `LAYOUTS`, and how it fits the model.

    `keys` lead to the state dict in what is saved.
    """

    path: Path
    layout: str
    keys: Keys = ()
    fit: Fit = AS_IT_LIES

    @property
    def is_plain(self) -> bool:
        """Whether a strategy can be given the file as it is."""
        return not self.keys and not self.fit.said

    @property
    def measured_layout(self) -> str:
        """That of what a strategy is given which loads any: the file's own, in a copy too if that can be."""
        return "torch" if self.fit.strided and "safetensors" in self.layout else self.layout

    @property
    def note(self) -> str | None:
        """What is to be said of it, in a line; None: it is loaded as it lies, and all of the model is in it."""
        said = []
        if not self.is_plain:
            what = f"its {'.'.join(map(str, self.keys))!r}" if self.keys else "its tensors"
            changed = f": {'; '.join(self.fit.said)}" if self.fit.said else ""
            said.append(f"of {self.path.name}, {what} saved as a checkpoint of its own{changed}")
        if self.fit.missing:
            names = listed([*self.fit.missing])
            said.append(f"the model keeps what it starts with in {names}, and its outputs are not compared")
        return "; ".join(said) or None

    @property
    def files(self) -> tuple[Path, ...]:
        """All that a load reads."""
        if self.layout == "per_tensor":
            return tuple(sorted(self.path.iterdir()))
        if self.layout.endswith("_sharded"):
            return self.path, *sorted(read_index(self.path))
        return (self.path,)

    def require_sound(self) -> None:
        """Read every byte; raise `UntrustedCheckpoint` where a checksum beside them says that they are damaged."""
        if self.layout == "per_tensor":
            _folder(self.path, contents=True)
        else:
            READERS[self.layout](self.path, True)

    def state_dict(self) -> dict[str, Any]:
        """What a model of the user's takes, mapped: nothing is read before it is looked at."""
        # Of one file as it is saved: with the versions of modules.
        saved: Any = map_torch(self.path) if self.layout == "torch" else dict(LAYOUTS[self.layout].read(self.path))
        for key in self.keys:
            saved = saved[key]
        return self.fit.applied(saved)


def recognised(
    path: Path,
    expected: Mapping[str, Any],
    state_key: str | None = None,
    build: Callable[[], nn.Module] | None = None,
    wanted: ConversionRequest = AS_IT_IS,
) -> Source:
    """The checkpoint at `path`, which is to be one of a model whose state dict is `expected`, of a meta skeleton say.

    `state_key` leads to the state dict in a file that holds more, `model` or `states.model` for instance. `build` makes
    such a skeleton, whose own code is asked where names differ. `wanted`: how the checkpoint is to become the model's.
    Raises `ValueError` with one line: what is wrong, and
    what would be right.
    """
    try:
        is_there = path.exists()
    except OSError as error:
        raise ValueError(f"--checkpoint: {one_line(str(path))} cannot be looked at: {error.strerror}") from None
    if not is_there:
        raise ValueError(f"--checkpoint: there is no {path}; name the file, or the folder, of a checkpoint")
    target = Target(expected, build, wanted)
    try:
        entrance, layout = _entrance(path, expected)
        source, parts = _source(entrance, layout, target, state_key)
        fit = _fit(source, parts, target)
        if layout.endswith("_sharded") and _has_unlisted(entrance, layout):
            fit = replace(fit, said=(*fit.said, UNLISTED))
        source = replace(source, fit=fit)
        if layout == "per_tensor" and source.is_plain:
            examine(layout, entrance, without(retyped(expected, dict(fit.dtypes)), fit.missing))
    except UntrustedCheckpoint as error:
        raise ValueError(f"--checkpoint: {error}") from None
    return source


def _has_unlisted(index: Path, layout: str) -> bool:
    """Whether shards hold tensors that their index does not list: loaders would spend memory on them."""
    read = READERS[layout.removesuffix("_sharded")]
    return any(read(file, False)[file].keys() - set(listed) for file, listed in read_index(index).items())


def _fit(source: Source, parts: Parts, target: Target) -> Fit:
    """How what is saved becomes what the model has: the one place that decides it.

    It does only if every name, dtype and shape is the model's then, but for what is wanted to be missing. Raises
    `ValueError` with what differs, and with what is wanted in vain.
    """
    saved = [name for part in parts.values() for name in part]
    require_effect(saved, target.expected, target.wanted)
    tries: list[tuple[list[UntrustedCheckpoint], Fit, Parts, Mapping[str, Any], Mapping[str, Any]]] = []
    for form in target.forms:
        fit, held = target.fitted(parts, form)
        expected = without(_as_saved(held, form.wanted), fit.missing)
        tries.append((list(differing(source.path, held, expected)), fit, held, expected, form.wanted))
        if not tries[-1][0]:
            break
    differences, fit, held, wanted, built = min(tries, key=lambda one: len(one[0]))
    if differences and target.build:
        own_differences, own, *_ = tries[0]
        made = {source.path: taken_by(target.build(), replace(source, fit=own).state_dict, own.missing)}
        expected = without(_as_saved(made, target.expected), own.missing)
        if not list(differing(source.path, made, expected)):
            names = listed([str(one.key) for one in own_differences])
            said = f"{names} renamed or filled in by the model's own load_state_dict"
            differences, fit, held, wanted = [], replace(own, said=(*own.said, said)), made, expected
            built = target.expected
    if differences and target.wanted.cast:
        require_floating(source.path, [one for part in held.values() for one in part.items()], wanted)
    if differences:
        said = f", {'; '.join(fit.said)}" if fit.said else ""
        pairs = fit.names or [(name, name) for name in saved]
        asked = {to: by_rules(name, target.wanted.renames) for name, to in pairs}
        what = f"{_listed(differences)}{advice(differences, asked, wanted)}"
        raise ValueError(f"--checkpoint: {source.path} is of another model{said}: {what}")
    require_lacking(fit.missing, target.wanted)
    require_ties(held, wanted)
    converted = floating(without(target.expected, fit.missing)) if fit.converted else None
    fit = replace(fit, dtypes=other_dtypes(source.path, wanted, built, target.wanted.cast, converted))
    fit = replace(fit, said=(*fit.said, *memory_said(source.path.name, held, wanted)))
    return replace(fit, strided=_is_strided(target.expected)) if fit.said else fit


def _as_saved(held: Parts, expected: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict of a model with the floating-point dtypes that its tensors have in the files."""
    saved = {name: value for part in held.values() for name, value in part.items()}
    return retyped(expected, as_saved(saved, expected))


def _is_strided(state_dict: Mapping[str, Any]) -> bool:
    tensors = [value for value in state_dict.values() if isinstance(value, Tensor)]
    return any(tensor.stride() != contiguous_stride(tensor.shape) for tensor in tensors)


def _entrance(path: Path, expected: Mapping[str, Any]) -> tuple[Path, str]:
    """What a strategy is given of a checkpoint at `path`, and its layout."""
    if not path.is_dir():
        return path, _layout(path)
    files = sorted(file for file in path.iterdir() if file.is_file())
    if path / ".metadata" in files:
        raise ValueError(f"--checkpoint: {path} is of torch.distributed.checkpoint; convert it to one file: {DCP}")
    names = {unquote(file.name.removesuffix(".pt")) for file in files}
    if not names.isdisjoint(expected):
        return path, "per_tensor"
    indexes = [file for file in files if file.name.endswith(".index.json")]
    found = indexes or [file for file in files if _is_checkpoint(file)] or list(filter(_was_checkpoint, files))[:1]
    if len(found) == 1:
        return found[0], _layout(found[0])
    several = f"several checkpoints: {', '.join(file.name for file in found)}; name one of them"
    raise ValueError(f"--checkpoint: {path} holds {several if found else 'no checkpoint; name a file'}")


def _is_checkpoint(file: Path) -> bool:
    first = _first_bytes(file)
    return first.startswith(b"PK\3\4") or is_safetensors(first)


def _was_checkpoint(file: Path) -> bool:
    """Whether a file that is none is called as one, as what a mishap has left is."""
    return file.suffix in {".safetensors", ".bin", ".pt", ".pth", ".ckpt"} and mishap(_first_bytes(file)) is not None


def _layout(file: Path) -> str:
    """The layout of a file, or of the files of an index, by their first bytes; what is of none is taken for `torch`."""
    first = _first_bytes(file)
    if first.startswith(b"{"):
        with naming(file):
            shards = list(read_index(file))
            is_there = bool(shards) and shards[0].is_file()
        return f"{_layout(shards[0]) if is_there else 'torch'}_sharded"
    if is_safetensors(first):
        return "safetensors"
    if file.suffix == ".safetensors":
        if first.startswith((b"PK\3\4", b"\x80")):
            said = "is no file of safetensors, for which torch takes it: rename it"
        else:
            said = mishap(first) or f"is no file of safetensors, by its first bytes: {AGAIN}"
        raise UntrustedCheckpoint(file, None, said)
    return "torch"


def _first_bytes(file: Path) -> bytes:
    with naming(file), open_regular(file, follow=True) as opened:
        return os.pread(opened.fileno(), FIRST_BYTES, 0)


def _source(path: Path, layout: str, target: Target, state_key: str | None) -> tuple[Source, Parts]:
    """Where the state dict of the model is in a checkpoint, and what it holds."""
    keys: Keys = ()
    if layout == "torch":
        with naming(path):
            saved: Any = read_saved(path, contents=False, follow=True)
        keys = found_keys(path, saved, target, state_key)
        for key in keys:
            saved = saved[key]
        parts = {path: saved}
    elif state_key is not None:
        raise ValueError(f"--state-key: {path} holds nothing but tensors; leave it out")
    else:
        parts = _folder(path) if layout == "per_tensor" else READERS[layout](path, False)
    return Source(path, layout, keys), parts


def _folder(path: Path, *, contents: bool = False) -> Parts:
    with naming(path):
        files = {file: unquote(file.name.removesuffix(".pt")) for file in sorted(path.iterdir())}
    parts: Parts = {}
    for file, name in files.items():
        with naming(file, name):
            parts[file] = {name: read_saved(file, contents, follow=False)}
    return parts


def _listed(differences: list[UntrustedCheckpoint]) -> str:
    shown = [one_line(f"{one.key} {one.reason}") for one in differences[:MOST_SHOWN]]
    more = len(differences) - len(shown)
    return f"{'; '.join(shown)}{f'; and {more:,} more' if more else ''}"
