"""Recognition of a user's checkpoint: its layout, its state dict, and the conversion to the model's names.

Only headers are read.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from model.casting import floating, retyped
from model.examine.mishaps import AGAIN, FIRST_BYTES, is_safetensors, mishap
from model.examine.safetensors_file import contiguous_stride
from model.examine.saved_file import open_regular, read_saved
from model.examine.shard_index import read_index
from model.examine.tensor_folder import tensor_name
from model.examine.trust import (
    READERS,
    FileContents,
    UntrustedCheckpoint,
    differing,
    examine,
    naming,
    one_line,
    read_shards,
    require_ties,
)
from model.layouts.files import map_torch
from model.layouts.layouts import LAYOUTS
from model.state_dict import without
from model.user.conversion_request import AS_IT_IS, ConversionRequest
from model.user.conversions import taken_by
from model.user.fitting import NO_CONVERSION, Conversion, TargetModel, memory_notes
from model.user.name_globs import advice, require_effect, require_lacking
from model.user.pretrained_folder import ADAPTER
from model.user.renaming import MOST_NAMES, by_rules, listed
from model.user.saved_dtypes import as_saved, other_dtypes, require_floating
from model.user.state_keys import Keys, found_keys

# The note on shards with tensors that their index does not list: loaders would spend memory on them.
UNLISTED = "without what its index does not list"

# What to do about a checkpoint of another model where no option makes it fit.
OTHERWISE = "; name another checkpoint, or build the model that this one is of"

DCP = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE"


@dataclass(frozen=True)
class Source:
    """A checkpoint of the user's: its path, its layout of `LAYOUTS`, and its conversion to the model's.

    `keys` lead to the state dict in what is saved.
    """

    path: Path
    layout: str
    keys: Keys = ()
    conversion: Conversion = NO_CONVERSION

    @property
    def is_plain(self) -> bool:
        """Return whether strategies get the file itself, not a copy."""
        return not self.keys and not self.conversion.notes

    @property
    def measured_layout(self) -> str:
        """The layout for a strategy that loads any: that of the file, also for a copy if it can hold the tensors."""
        return "torch" if self.conversion.strided and "safetensors" in self.layout else self.layout

    def note(self, *, planned: bool = False) -> str | None:
        """Return a line on a copy, which a plan does not make, and on what is missing; None if there is neither."""
        notes = []
        if not self.is_plain:
            which = f" {'.'.join(map(str, self.keys))!r}" if self.keys else ""
            changed = f": {'; '.join(self.conversion.notes)}" if self.conversion.notes else ""
            made = f"{'planned' if planned else 'saved'} as a checkpoint of its own"
            notes.append(f"the state dict{which} of {self.path.name} is {made}{changed}")
        if self.conversion.missing:
            names = listed([*self.conversion.missing])
            notes.append(f"the model keeps what it starts with in {names}, and its outputs are not compared")
        return "; ".join(notes) or None

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that a load reads."""
        if self.layout == "per_tensor":
            return tuple(sorted(self.path.iterdir()))
        if self.layout.endswith("_sharded"):
            return self.path, *sorted(read_index(self.path))
        return (self.path,)

    def require_sound(self) -> None:
        """Read every byte, and raise `UntrustedCheckpoint` if a checksum does not match."""
        if self.layout == "per_tensor":
            _folder(self.path, contents=True)
        else:
            READERS[self.layout](self.path, True)

    def state_dict(self) -> dict[str, Any]:
        """Return the state dict under the model's names, mapped: values are read when they are used."""
        # That of one file keeps the versions of modules.
        saved: Any = map_torch(self.path) if self.layout == "torch" else dict(LAYOUTS[self.layout].read(self.path))
        for key in self.keys:
            saved = saved[key]
        return self.conversion.applied(saved)


def recognised(
    path: Path,
    expected: Mapping[str, Any],
    state_key: str | None = None,
    build: Callable[[], nn.Module] | None = None,
    wanted: ConversionRequest = AS_IT_IS,
) -> Source:
    """Recognise the checkpoint at `path` of a model whose state dict is `expected`, which may be on meta.

    `state_key` leads to the state dict in a file that holds more, `model` or `states.model` for instance. `build` makes
    a skeleton, whose own code is used where names differ. `wanted` is the requested conversion. Raises `ValueError`
    with one line: the fault and the remedy.
    """
    try:
        is_there = path.exists()
    except OSError as error:
        raise ValueError(
            f"--checkpoint: {one_line(str(path))} cannot be read ({error.strerror}); name another file or folder"
        ) from None
    if not is_there:
        raise ValueError(f"--checkpoint: there is no {path}; name the file or the folder of a checkpoint")
    target = TargetModel(expected, build, wanted)
    try:
        entrance, layout = _entrance(path, expected)
        source, parts, has_unlisted = _source(entrance, layout, target, state_key)
        conversion = _conversion(source, parts, target)
        if has_unlisted:
            conversion = replace(conversion, notes=(*conversion.notes, UNLISTED))
        source = replace(source, conversion=conversion)
        if layout == "per_tensor" and source.is_plain:
            examine(layout, entrance, without(retyped(expected, dict(conversion.dtypes)), conversion.missing))
    except UntrustedCheckpoint as error:
        raise ValueError(f"--checkpoint: {error}") from None
    return source


def _conversion(source: Source, parts: FileContents, target: TargetModel) -> Conversion:
    """Return the conversion to what the model has: the only place that decides on it.

    After it, every name, dtype and shape is the model's, names that may be missing excepted. Raises `ValueError` with
    the differences if there is no such conversion, and with options that have no effect.
    """
    saved = [name for part in parts.values() for name in part]
    require_effect(saved, target.expected, target.wanted)
    tries: list[tuple[list[UntrustedCheckpoint], Conversion, FileContents, Mapping[str, Any], Mapping[str, Any]]] = []
    for form in target.forms:
        conversion, held = target.convert(parts, form)
        expected = without(_as_saved(held, form.wanted), conversion.missing)
        tries.append((list(differing(source.path, held, expected)), conversion, held, expected, form.wanted))
        if not tries[-1][0]:
            break
    differences, conversion, held, wanted, built = min(tries, key=lambda one: len(one[0]))
    if differences and target.build:
        own_differences, own, *_ = tries[0]
        made = {source.path: taken_by(target.build(), replace(source, conversion=own).state_dict, own.missing)}
        expected = without(_as_saved(made, target.expected), own.missing)
        if not list(differing(source.path, made, expected)):
            names = listed([str(one.key) for one in own_differences])
            note = f"{names} renamed or filled in by the model's own load_state_dict"
            differences, conversion, held, wanted = [], replace(own, notes=(*own.notes, note)), made, expected
            built = target.expected
    if differences and target.wanted.cast:
        require_floating(source.path, [one for part in held.values() for one in part.items()], wanted)
    if differences:
        notes = f", {'; '.join(conversion.notes)}" if conversion.notes else ""
        pairs = conversion.names or [(name, name) for name in saved]
        asked = {to: by_rules(name, target.wanted.renames) for name, to in pairs}
        if any(".lora_" in name for name in saved) and not any(".lora_" in name for name in target.expected):
            raise ValueError(f"--checkpoint: {source.path} {ADAPTER}")
        what = f"{_listed(differences)}{advice(differences, asked, wanted) or OTHERWISE}"
        raise ValueError(f"--checkpoint: {source.path} is of another model{notes}: {what}")
    require_lacking(conversion.missing, target.wanted)
    require_ties(held, wanted)
    converted = floating(without(target.expected, conversion.missing)) if conversion.converted else None
    conversion = replace(conversion, dtypes=other_dtypes(source.path, wanted, built, target.wanted.cast, converted))
    conversion = replace(conversion, notes=(*conversion.notes, *memory_notes(source.path.name, held, wanted)))
    return replace(conversion, strided=_is_strided(target.expected)) if conversion.notes else conversion


def _as_saved(held: FileContents, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict of a model with the floating-point dtypes of the files."""
    saved = {name: value for part in held.values() for name, value in part.items()}
    return retyped(expected, as_saved(saved, expected))


def _is_strided(state_dict: Mapping[str, Any]) -> bool:
    tensors = [value for value in state_dict.values() if isinstance(value, Tensor)]
    return any(tensor.stride() != contiguous_stride(tensor.shape) for tensor in tensors)


def _entrance(path: Path, expected: Mapping[str, Any]) -> tuple[Path, str]:
    """Return the path that a strategy gets of a checkpoint at `path`, and its layout."""
    if not path.is_dir():
        return path, _layout(path)
    files = sorted(file for file in path.iterdir() if file.is_file())
    if path / ".metadata" in files:
        raise ValueError(
            f"--checkpoint: {path} is a folder of torch.distributed.checkpoint; convert it to one file "
            f"({DCP}), and add "
            "--layout dcp to measure it as such a folder"
        )
    names = {tensor_name(file.name) for file in files}
    if not names.isdisjoint(expected):
        return path, "per_tensor"
    indexes = [file for file in files if file.name.endswith(".index.json")]
    found = indexes or [file for file in files if _is_checkpoint(file)] or list(filter(_was_checkpoint, files))[:1]
    if len(found) == 1:
        return found[0], _layout(found[0])
    several = f"several checkpoints, {', '.join(file.name for file in found)}; name one of them"
    raise ValueError(f"--checkpoint: {path} has {several if found else 'no checkpoint; name a file or another folder'}")


def _is_checkpoint(file: Path) -> bool:
    first = _first_bytes(file)
    return first.startswith(b"PK\3\4") or is_safetensors(first)


def _was_checkpoint(file: Path) -> bool:
    """Return whether a file has the name of a checkpoint, and the content that a mishap left."""
    return file.suffix in {".safetensors", ".bin", ".pt", ".pth", ".ckpt"} and mishap(_first_bytes(file)) is not None


def _layout(file: Path) -> str:
    """Return the layout of a file, or of the files of an index, by their first bytes; `torch` if they fit none."""
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
            reason = "is a file of torch.save, and its name ends in .safetensors: rename it"
        else:
            reason = mishap(first) or f"does not start with the header of a .safetensors file: {AGAIN}"
        raise UntrustedCheckpoint(file, None, reason)
    return "torch"


def _first_bytes(file: Path) -> bytes:
    with naming(file), open_regular(file, follow=True) as opened:
        return os.pread(opened.fileno(), FIRST_BYTES, 0)


def _source(path: Path, layout: str, target: TargetModel, state_key: str | None) -> tuple[Source, FileContents, bool]:
    """Find the state dict of the model in a checkpoint.

    Return it, its content, and whether shards have tensors that their index does not list.
    """
    keys: Keys = ()
    has_unlisted = False
    if layout == "torch":
        with naming(path):
            saved: Any = read_saved(path, contents=False, follow=True)
        keys = found_keys(path, saved, target, state_key)
        for key in keys:
            saved = saved[key]
        parts = {path: saved}
    elif state_key is not None:
        raise ValueError(f"--state-key: {path} has tensors only, and no keys that lead to them; leave out --state-key")
    elif layout.endswith("_sharded"):
        parts, has_unlisted = read_shards(layout, path, contents=False)
    else:
        parts = _folder(path) if layout == "per_tensor" else READERS[layout](path, False)
    return Source(path, layout, keys), parts, has_unlisted


def _folder(path: Path, *, contents: bool = False) -> FileContents:
    with naming(path):
        files = {file: tensor_name(file.name) for file in sorted(path.iterdir())}
    parts: FileContents = {}
    for file, name in files.items():
        with naming(file, name):
            parts[file] = {name: read_saved(file, contents, follow=False)}
    return parts


def _listed(differences: list[UntrustedCheckpoint]) -> str:
    first = [one_line(f"{one.key} {one.reason}") for one in differences[:MOST_NAMES]]
    more = len(differences) - len(first)
    return f"{'; '.join(first)}{f'; and {more:,} more' if more else ''}"
