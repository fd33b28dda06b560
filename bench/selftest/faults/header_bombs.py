"""Headers of .safetensors, indexes, zips and folders that ask for far more time or memory than they have bytes.

Others name what is no file, or lie about where something is. Each ends in one error.
"""

import json
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch

from bench.selftest.faults.bombs import Make, later


def _safetensors(header: bytes, values: int = 64, length: int | None = None) -> Make:
    def make(folder: Path) -> Path:
        said = len(header) if length is None else length
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", said) + header + bytes(values))
        return folder / "model.safetensors"

    return make


def _entry(dtype: object = "F32", shape: object = (16,), offsets: object = (0, 64), **more: object) -> bytes:
    return json.dumps({"weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets} | more}).encode()


_DTYPES: tuple[object, ...] = ("X", None, [], {}, 7, "\x1b[2J", "F32" * 300_000)
_NO_NAMES: tuple[object, ...] = (None, 7, [], {}, True, ["shard.bin"])

SAFETENSORS_BOMBS: dict[str, Make] = {
    "shape of 3,000,000 sizes": later(lambda: _safetensors(_entry(shape=[9] * 3_000_000))),
    "shape of 65 sizes": _safetensors(_entry(shape=[1] * 64 + [16])),
    "shape of 200,000 sizes of 4,000 digits": _safetensors(
        b'{"weight":{"dtype":"F32","shape":[%b1],"data_offsets":[0,64]}}' % (b"9" * 4_000 + b",") * 1
    ),
    **{
        f"shape {shape}": _safetensors(_entry(shape=shape))
        for shape in (
            [2**63],
            [2**62, 2**62],
            [0, 2**62, 2**62],
            [-1],
            [-4, -4],
            [1.5],
            [True],
            ["16"],
            [[16]],
            16,
            None,
        )
    },
    **{
        f"offsets {offsets}": _safetensors(_entry(offsets=offsets))
        for offsets in ([0, 2**64], [2**63, 2**63 + 64], [64, 0], [-64, 0], [0], [0, 64, 64], [0, 1e300], "ab", None)
    },
    "offsets of 4,300 digits": _safetensors(_entry().replace(b"[0, 64]", b"[%b, %b]" % (b"9" * 4_300, b"9" * 4_300))),
    "offsets of 100,000 digits": _safetensors(_entry().replace(b"[0, 64]", b"[0, %b]" % (b"9" * 100_000))),
    "number without end": _safetensors(_entry().replace(b"[16]", b"[1e999]")),
    **{f"dtype {str(dtype)[:9]}": _safetensors(_entry(dtype=dtype)) for dtype in _DTYPES},
    "entry with more": _safetensors(_entry().replace(b"}}", b',"more":1}}')),
    "entry that is no object": _safetensors(b'{"weight":[]}'),
    "metadata alone": _safetensors(b'{"__metadata__":{}}'),
    "name of 900,000 letters": _safetensors(_entry().replace(b"weight", b"a" * 900_000)),
    "name of control characters": _safetensors(_entry().replace(b"weight", rb"\u001b[2J\nERROR: \u2028")),
    "name of half a pair of surrogates": _safetensors(_entry().replace(b"weight", rb"\ud800")),
    "name twice": _safetensors(b"{" + _entry()[1:-1] + b"," + _entry()[1:-1] + b"}"),
    "key of an entry twice": _safetensors(_entry().replace(b'"shape"', b'"shape":[16],"shape"')),
    "lists in lists": _safetensors(b'{"weight":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}"),
    "objects in objects": _safetensors(b'{"a":' * 300_000 + b"1" + b"}" * 300_000),
    "4,000,000 lists": later(lambda: _safetensors(b'{"weight":[' + b"[]," * 4_000_000 + b"[]]}")),
    "3,000,000 objects": later(lambda: _safetensors(b'{"weight":[' + b"{}," * 3_000_000 + b"{}]}")),
    "no JSON": _safetensors(b"{" * 8),
    "no UTF-8": _safetensors(_entry().replace(b"weight", b"\xff\xfe")),
    "not a number": _safetensors(_entry().replace(b"[16]", b"[NaN]")),
    **{
        f"header of {length:,} bytes": _safetensors(_entry(), length=length)
        for length in (0, 1, 10**8, 10**8 + 1, 2**31, 2**63, 2**64 - 1)
    },
    "tensor beyond the end": _safetensors(_entry(), values=63),
    "bytes behind the last": _safetensors(_entry(), values=65),
    "overlapping tensors": _safetensors(b'{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},' + _entry()[1:]),
}


def _index(places: dict[str, object], more: bytes = b"") -> Make:
    def make(folder: Path) -> Path:
        torch.save({"weight": torch.ones(16)}, folder / "shard.bin")
        (folder / "pytorch_model.bin.index.json").write_bytes(json.dumps({"weight_map": places}).encode() + more)
        return folder / "pytorch_model.bin.index.json"

    return make


INDEX_BOMBS: dict[str, Make] = {
    "100,000 files": _index({str(number): f"{number}.bin" for number in range(100_000)}),
    "one name in 1,000,000 parts": _index({"weight": "a/" * 1_000_000 + "b"}),
    **{
        f"a file called {file[:20]!r}": _index({"weight": file})
        for file in (
            "../shard.bin",
            "/etc/passwd",
            "/dev/zero",
            "a/../../b",
            "",
            ".",
            "..",
            "./shard.bin",
            "a//b",
            "a\\b",
            "\0",
            "shard.bin\0",
            "\ud800",
            "\x1b[2J",
            "b" * 300,
            "c" * 900_000,
            "d/" * 3_000 + "e",
            "no.bin",
            "\n",
            "shard.bin/x",
        )
    },
    **{f"a file that is {value!r}": _index({"weight": value}) for value in _NO_NAMES},
    "a name of 900,000 letters": _index({"a" * 900_000: "shard.bin"}),
    "a name of control characters": _index({"\x1b]0;x\x07\nERROR: all is well": "shard.bin"}),
    "a name of half a pair of surrogates": _index({"\ud800": "shard.bin"}),
    "more behind": _index({"weight": "shard.bin"}, b"{"),
    "a NUL behind": _index({"weight": "shard.bin"}, b"\0"),
    "nothing": _index({}),
}


def _index_text(text: bytes) -> Make:
    def make(folder: Path) -> Path:
        (folder / "model.safetensors.index.json").write_bytes(text)
        return folder / "model.safetensors.index.json"

    return make


INDEX_BOMBS |= {
    "weight_map twice": _index_text(b'{"weight_map":{},"weight_map":{"weight":"a"}}'),
    "weight_map that is a list": _index_text(b'{"weight_map":["weight"]}'),
    "lists in lists": _index_text(b'{"weight_map":' + b"[" * 500_000),
    "a number of 5,000 digits": _index_text(b'{"weight_map":' + b"9" * 5_000 + b"}"),
    "1,000,000 lists": later(lambda: _index_text(b'{"a":[' + b"[]," * 1_000_000 + b"[]]}")),
}


def _zip(change: Callable[[bytearray], object], method: int = zipfile.ZIP_STORED) -> Make:
    """An archive as torch saves it, or as Python zips it, with other bytes."""

    def make(folder: Path) -> Path:
        path = folder / "model.pt"
        torch.save({"weight": torch.ones(16)}, path)
        if method:
            with zipfile.ZipFile(path, "w", method) as archive:
                archive.writestr("model/data.pkl", bytes(4 * 2**20))
        content = bytearray(path.read_bytes())
        change(content)
        path.write_bytes(content)
        return path

    return make


def _write(form: str, value: int, offset: int, signature: bytes = b"PK\1\2") -> Make:
    """Another number in a field of the last entry of the directory, or of an end."""

    def change(content: bytearray) -> None:
        struct.pack_into(form, content, content.rindex(signature) + offset, value)

    return _zip(change)


def _other_zip(places: int, extra: bytes = b"") -> Make:
    """A zip of nothing that torch writes, with records far beyond the file."""

    def make(folder: Path) -> Path:
        entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, len(extra), 0, 0, 0, 0, places)
        directory = (entry + b"a/b" + extra) * 3
        start = b"PK\3\4" + bytes(60)
        end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 3, 3, len(directory), len(start), 0)
        (folder / "model.pt").write_bytes(start + directory + end)
        return folder / "model.pt"

    return make


ZIP_BOMBS: dict[str, Make] = {
    "4 MiB deflated": _zip(lambda _: None, zipfile.ZIP_DEFLATED),
    "record at byte 2 to the 64": _other_zip(2**32 - 1, struct.pack("<2HQ", 1, 8, 2**64 - 1)),
    "record at byte 2 to the 32": _other_zip(2**32 - 2),
    "16,000 extra fields": _other_zip(0, struct.pack("<2H", 0x4246, 0) * 16_000),
    "extra field longer than it is": _other_zip(0, struct.pack("<2H", 1, 60_000)),
    "large number without one": _other_zip(2**32 - 1),
    **{f"record of {value:,} bytes": _write("<I", value, 24) for value in (0, 2**31, 2**32 - 1)},
    **{f"record of {value:,} stored bytes": _write("<I", value, 20) for value in (0, 2**31, 2**32 - 1)},
    **{f"record at byte {value:,}": _write("<I", value, 42) for value in (0, 1, 2**31, 2**32 - 1)},
    **{f"name of {value:,} letters": _write("<H", value, 28) for value in (0, 1, 2**16 - 1)},
    **{f"extra field of {value:,} bytes": _write("<H", value, 30) for value in (1, 2**16 - 1)},
    **{f"directory of {value:,} bytes": _write("<I", value, 12, b"PK\5\6") for value in (0, 2**31, 2**32 - 1)},
    **{f"directory at {value:,}": _write("<I", value, 16, b"PK\5\6") for value in (0, 2**31, 2**32 - 1)},
    **{f"{value:,} records": _write("<H", value, 10, b"PK\5\6") for value in (0, 1, 2**16 - 1)},
    **{
        f"second end with {value:,} at {place}": _write("<Q", value, place, b"PK\6\6")
        for value in (0, 2**63, 2**64 - 1)
        for place in (4, 24, 32, 40, 48)
    },
    **{f"second end at {value:,}": _write("<Q", value, 8, b"PK\6\7") for value in (0, 2**63, 2**64 - 1)},
}


def _special(make: Callable[[Path], object], name: str = "model.safetensors") -> Make:
    def make_one(folder: Path) -> Path:
        make(folder / name)
        return folder / name

    return make_one


def _in_an_index(make: Callable[[Path], object]) -> Make:
    def make_one(folder: Path) -> Path:
        path = _index({"weight": "other.bin"})(folder)
        make(folder / "other.bin")
        return path

    return make_one


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 50 * 2**30)


def _sparse_index(path: Path) -> None:
    path.write_bytes(b'{"weight_map":')
    os.truncate(path, 50 * 2**30)


_KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a folder": Path.mkdir,
    "50 GiB of nothing": _sparse,
}
FILE_BOMBS: dict[str, Make] = {
    **{
        f"{what} as {name}": _special(make, name)
        for what, make in _KINDS.items()
        for name in ("model.safetensors", "model.pt", "pytorch_model.bin.index.json")
    },
    **{f"{what} as a shard": _in_an_index(make) for what, make in _KINDS.items()},
    "index of 50 GiB": _special(_sparse_index, "model.safetensors.index.json"),
}
