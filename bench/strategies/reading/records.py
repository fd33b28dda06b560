"""Contents of the files of a checkpoint, and their places, without reading any of the values."""

import io
import os
import pickle
import struct
import sys
import zipfile
from collections import Counter, OrderedDict
from io import FileIO
from typing import NamedTuple

import torch

from bench.strategies.reading.read_checkpoint import is_safetensors, only_listed, safetensors_entries

# What `torch.save` calls the storages of a dtype; it has no name for those of newer ones.
STORAGE_DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}


# Of what a zip has before a record: how long its name, and what else stands there, are.
LOCAL_HEADER = struct.Struct("<26x2H")


class StorageSpan(NamedTuple):
    """The bytes of a storage in a file, from `start` to `end`."""

    opened: FileIO
    start: int
    end: int
    key: str = ""


class File:
    """A file of a checkpoint: where in it the bytes of its storages are, and which names are to be in it, if listed."""

    def __init__(self, opened, listed):
        self.opened, self._listed = opened, listed
        self._entries, self._pickled = None, b""
        if is_safetensors(opened.name):
            self._entries = [entry for entry in safetensors_entries(opened) if listed is None or entry[0] in listed]
            self.records = {name: StorageSpan(opened, start, end, name) for name, _, _, start, end in self._entries}
        else:
            self._pickled, self.records = unzip(opened)

    def contents(self, place_of):
        """The state dict in the file; `place_of(record, dtype)` tells storage, dtype and device of its tensors."""
        unused = set(self.records)

        def tensor(key, dtype, offset, shape, stride):
            unused.discard(key)
            storage, kind, device = place_of(self.records[key], dtype)
            return torch.empty(0, dtype=kind, device=device).set_(storage, offset, shape, stride)

        if self._entries is not None:
            strides = {name: torch.empty(shape, device="meta").stride() for name, _, shape, _, _ in self._entries}
            found = {name: tensor(name, dtype, 0, shape, strides[name]) for name, dtype, shape, _, _ in self._entries}
        else:
            try:
                found = Unpickler(self.opened.name, self._pickled, self.records, tensor).load()
            except (EOFError, LookupError, TypeError, AttributeError, pickle.UnpicklingError) as error:
                raise ValueError(f"{self.opened.name} has a pickle that cannot be read: {error}") from error
        if unused:
            raise ValueError(f"{self.opened.name} has bytes that no tensor uses: {sorted(unused)}")
        return only_listed(self.opened.name, found, self._listed)


def contents(files, place_of):
    """The state dict in several files, see `File.contents`."""
    return {name: value for file in files for name, value in file.contents(place_of).items()}


def unzip(opened):
    """Return what a file of `torch.save` has pickled, and the places of the bytes of its storages, in their order."""
    if not zipfile.is_zipfile(opened):
        is_cut = os.pread(opened.fileno(), 4, 0) == b"PK\3\4"
        why = "a zip that was cut off" if is_cut else "no zip, as torch.save has written it since torch 1.6"
        raise ValueError(f"{opened.name} is {why}")
    pickled, records, before, size = b"", {}, 0, os.fstat(opened.fileno()).st_size
    with zipfile.ZipFile(opened) as archive:
        entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        for entry in entries if hasattr(os, "posix_fadvise") else ():
            # A disk finds all headers in less time than it finds one after the other.
            os.posix_fadvise(opened.fileno(), entry.header_offset, LOCAL_HEADER.size, os.POSIX_FADV_WILLNEED)
        for entry in entries:
            _, _, name = entry.filename.partition("/")
            if name == "data.pkl":
                pickled = archive.read(entry)
            if name == "byteorder" and archive.read(entry) != sys.byteorder.encode():
                raise ValueError(f"{opened.name} has another byte order than this machine")
            if not name.startswith("data/"):
                continue
            key = name.removeprefix("data/")
            header = os.pread(opened.fileno(), LOCAL_HEADER.size, entry.header_offset)
            if len(header) < LOCAL_HEADER.size:
                raise ValueError(f"{opened.name} has a record {name} that lies outside of it")
            start = entry.header_offset + LOCAL_HEADER.size + sum(LOCAL_HEADER.unpack(header))
            if entry.compress_type or entry.flag_bits & 1:
                raise ValueError(f"{opened.name} has a compressed record {name}: torch.save compresses nothing")
            if start < before or start + entry.file_size > size or key in records:
                raise ValueError(f"{opened.name} has a record {name} that is cut off, or in the place of another one")
            before = start + entry.file_size
            records[key] = StorageSpan(opened, start, before, key)
    return pickled, records


class Unpickler(pickle.Unpickler):
    """Reads what `torch.save` has pickled of a state dict; a pickle that names anything else is refused.

    `tensor(key, dtype, offset, shape, stride)` makes the tensors.
    """

    def __init__(self, file, pickled, records, tensor):
        super().__init__(io.BytesIO(pickled))
        self._file, self._records, self._tensor = file, records, tensor
        self._known = {
            "torch._utils._rebuild_tensor_v2": self._typed,
            "torch._utils._rebuild_tensor_v3": self._untyped,
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
            # With attributes of their own, which are no part of their values.
            "torch._utils._rebuild_parameter_with_state": lambda tensor, *_: tensor,
            "torch._tensor._rebuild_from_type_v2": lambda rebuild, _, arguments, __: rebuild(*arguments),
            "torch.Tensor": "torch.Tensor",
            "torch.nn.parameter.Parameter": "torch.nn.Parameter",
            "torch.storage.UntypedStorage": torch.uint8,
            # Of the extra state of modules.
            "torch.Size": torch.Size,
            "torch.device": torch.device,
            "torch.serialization._get_layout": torch.serialization._get_layout,  # noqa: SLF001
            "collections.OrderedDict": OrderedDict,
            "collections.Counter": Counter,
            "builtins.set": set,
            "builtins.complex": complex,
            "builtins.bytearray": lambda *content: bytearray(b"".join(content)),
            "_codecs.encode": lambda text, _: text.encode("latin1"),
        }

    def load(self):
        try:
            return super().load()
        finally:
            # It refers to methods of this object: a cycle that Python 3.11.2 does not collect, with every tensor.
            self.memo = {}

    def find_class(self, module, name):
        # Python 2 called it so, which the protocol of torch is for.
        known = self._known.get(f"{'builtins' if module == '__builtin__' else module}.{name}")
        if known is None and module == "torch":
            known = getattr(torch, STORAGE_DTYPES.get(name, name), None)
            known = known if isinstance(known, torch.dtype) else None
        if known is None:
            raise ValueError(f"{self._file} uses {module}.{name}, which is no part of a state dict")
        return known

    def persistent_load(self, saved):
        _, dtype, key, _, count = saved
        if key not in self._records or count * dtype.itemsize != self._records[key].end - self._records[key].start:
            raise ValueError(f"{self._file} has no record {key} of {count} {dtype}")
        return key, dtype

    def _typed(self, storage, offset, shape, stride, *rest):
        return self._untyped(storage, offset, shape, stride, *rest[:2], storage[1], *rest[2:])

    def _untyped(self, storage, offset, shape, stride, _grad, _hooks, dtype, *rest):
        record = self._records[storage[0]]
        if len(shape) != len(stride):
            raise ValueError(f"{self._file} has a tensor of {len(shape)} sizes and {len(stride)} strides")
        reach = sum((size - 1) * step for size, step in zip(shape, stride, strict=True)) + 1 if all(shape) else 0
        if min(offset, *shape, *stride, 0) < 0 or (offset + reach) * dtype.itemsize > record.end - record.start:
            raise ValueError(f"{self._file} has a tensor that reaches beyond its record {storage[0]}")
        if any(rest):
            raise ValueError(f"{self._file} has values that are to be conjugated or negated when they are read")
        return self._tensor(storage[0], dtype, offset, shape, stride)


def kinds_to_convert(files, dtype):
    """The records of floating-point numbers of another dtype, and which."""
    kinds = {}

    def on_meta(record, kind):
        if kinds.setdefault(record, kind) != kind:
            raise ValueError(
                f"{record.opened.name} has tensors of several dtypes in one storage: they cannot be converted"
            )
        return torch.UntypedStorage(record.end - record.start, device="meta"), kind, "meta"

    contents(files, on_meta)
    return {record: kind for record, kind in kinds.items() if kind.is_floating_point and kind != dtype}
