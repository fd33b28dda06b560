"""Small checkpoints that ask for far more time or memory than they have bytes, or that name what is no file.

Each is made by hand, and each ends in one error.
"""

import struct
from collections.abc import Callable
from pathlib import Path

from bench.selftest.faults.fault import write_archive

# Makes the bomb in an empty folder, and returns what `--checkpoint` is to name.
Make = Callable[[Path], Path]

_END = b"\x80\x02%b."


def _archive(pickled: bytes) -> Make:
    def make(folder: Path) -> Path:
        records = [("data.pkl", pickled), ("byteorder", b"little")]
        records += [("data/0", bytes(64))] if b"FloatStorage" in pickled else []
        write_archive(folder / "model.pt", records)
        return folder / "model.pt"

    return make


def _pickle(content: bytes) -> Make:
    """The value that is made by these instructions."""
    return _archive(_END % content)


def later(make: Callable[[], Make]) -> Make:
    """A bomb of many bytes, which are not made before they are wanted."""

    def make_later(folder: Path) -> Path:
        return make()(folder)

    return make_later


def _text(text: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text


def _put(place: int) -> bytes:
    return b"r" + struct.pack("<I", place)


def _get(place: int) -> bytes:
    return b"j" + struct.pack("<I", place)


def _long(value: int) -> bytes:
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content


def _doubled(levels: int) -> bytes:
    """Tuples of which each has the one before it twice: as text, the last has 2 to the power of `levels` parts."""
    return b"K\x01" + b"".join(_put(place) + _get(place) + b"\x86" for place in range(levels))


# Of a tensor of 16 numbers.
_STORAGE = b"(" + _text(b"storage") + b"ctorch\nFloatStorage\n" + _text(b"0") + _text(b"cpu") + b"K\x10tQ"
_REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def _tensor(offset: bytes = b"K\x00", shape: bytes = b"K\x10\x85", stride: bytes = b"K\x01\x85") -> bytes:
    return (_REBUILD + b"(" + _STORAGE + offset + shape + stride + b"\x89ccollections\nOrderedDict\n)Rt") + b"R"


def _state(*entries: bytes) -> bytes:
    return b"}(" + b"".join(entries) + b"u"


def _shared_dicts(levels: int, keys: int, *, with_tensors: bool) -> bytes:
    """Dicts that each hold the next one under many keys."""
    names = [_text(b"%d" % key) for key in range(keys)]
    first, *others = names
    value = _tensor() if with_tensors else b"K\x01"
    content = _state(first + value, *(name + b"K\x01" for name in others))
    for level in range(levels):
        content = _state(first + content + _put(level), *(name + _get(level) for name in others))
    return content


def _many(one: bytes, count: int) -> Make:
    return later(lambda: _pickle(b"](" + one * count + b"e"))


def _of_one_hash(count: int, key: Callable[[int], bytes]) -> bytes:
    return b"}(" + b"".join(key(number) + b"K\x01" for number in range(count)) + b"u"


_PRIME = 2**61 - 1
_KEY = _text(b"weight")

PICKLE_BOMBS: dict[str, Make] = {
    **{f"tuples doubled {levels} times, as a key": _pickle(b"}" + _doubled(levels) + b"K\x01s") for levels in (25, 60)},
    "tuples doubled, as an item of a set": _pickle(b"cbuiltins\nset\n]" + _doubled(60) + b"a\x85R"),
    "tuples doubled, as a type of tensor": _pickle(
        b"ctorch._tensor\n_rebuild_from_type_v2\n(" + _REBUILD + _doubled(60) + b")}tR"
    ),
    "tuples doubled, as a kind of storage": _pickle(
        b"(" + _doubled(60) + b"ctorch\nFloatStorage\n" + _text(b"0") * 2 + b"K\x01tQ"
    ),
    "tuples doubled, as an encoding": _pickle(b"c_codecs\nencode\n" + _text(b"a") + _doubled(60) + b"\x86R"),
    "tuples doubled, as a state dict": _pickle(_doubled(60)),
    "tuples doubled, as a function": _pickle(_doubled(60) + b")R"),
    "tuples doubled, as a shape": _pickle(_tensor(shape=_doubled(60))),
    "tuples doubled, as hooks": _pickle(_REBUILD + b"(" + _STORAGE + b"K\x00))\x89" + _doubled(60) + b"tR"),
    "tuples doubled, as attributes": _pickle(b"ccollections\nOrderedDict\n)R" + _doubled(60) + b"b"),
    "tuples doubled, as an attribute's name": _pickle(b"ccollections\nOrderedDict\n)R}" + _doubled(60) + b"K\x01sb"),
    **{
        f"{levels} dicts of {keys} keys, each shared by all of them": _pickle(
            _shared_dicts(levels, keys, with_tensors=with_tensors)
        )
        for levels, keys in ((3, 1_000), (2, 6_000))
        for with_tensors in (False, True)
    },
    "dict in itself": _pickle(b"}q\x00" + _KEY + b"h\x00s"),
    "numbers of one hash as keys": _pickle(_of_one_hash(20_000, lambda number: _long(number * _PRIME + 7))),
    "floats of one hash as keys": _pickle(
        _of_one_hash(4_000, lambda number: b"G" + struct.pack(">d", 2.0 ** (61 * (number % 16)) * 3 + number // 16 * 0))
    ),
    "tuples of numbers of one hash as keys": _pickle(
        _of_one_hash(20_000, lambda number: _long(number * _PRIME + 7) + b"\x85")
    ),
    "numbers of one hash in a set": _pickle(
        b"cbuiltins\nset\n](" + b"".join(_long(number * _PRIME + 7) for number in range(20_000)) + b"e\x85R"
    ),
    "key of 10,000 parts": _pickle(b"}(" + b"K\x01" * 10_000 + b"tK\x01s"),
    **{
        f"{count:,} {what}": _many(one, count)
        for what, one, count in (
            ("dicts", b"}", 3_000_000),
            ("lists", b"]", 3_000_000),
            ("sets", b"\x8f", 10),
            ("dicts of one item", b"}K\x01K\x01s", 600_000),
            ("tuples", b"K\x01\x85", 4_000_000),
        )
    },
    "marks without end": later(lambda: _pickle(b"(" * 4_000_000)),
    "marks, then tuples": _pickle(b"(" * 100_000 + b"t" * 100_000),
    "lists in lists": _pickle(b"]" * 100_000 + b"a" * 99_999),
    "dicts in dicts": _pickle(b"}" + (_KEY + b"}") * 50_000 + b"s" * 50_000),
    "memo of a million places": later(
        lambda: _pickle(b"K\x01" + b"".join(map(_put, range(1_000_000))) + b"}" + b"\x86")
    ),
    "one place of the memo, a million times": later(lambda: _pickle(b"K\x01" + _put(1) * 1_000_000 + b"\x85")),
    "tensors made of the same arguments": _pickle(
        b"]("
        + _tensor().replace(_REBUILD, _REBUILD + b"q\x02").removesuffix(b"R")
        + b"q\x03R"
        + b"h\x02h\x03R" * 200_000
        + b"e"
    ),
    "one tensor 200,000 times": _pickle(b"](" + _tensor() + b"q\x00" + b"h\x00" * 200_000 + b"e"),
    "sets of the same list": _pickle(
        b"](cbuiltins\nset\nq\x00]("
        + b"".join(map(_long, range(1_000, 9_000)))
        + b"e\x85q\x01R"
        + b"h\x00h\x01R" * 20_000
        + b"e"
    ),
    "bytes of the same text": _pickle(
        b"](c_codecs\nencode\nq\x00"
        + _text(b"a" * 100_000)
        + _text(b"latin1")
        + b"\x86q\x01R"
        + b"h\x00h\x01R" * 20_000
        + b"e"
    ),
    "text of another encoding": _pickle(b"c_codecs\nencode\n" + _text(b"a") + _text(b"utf-32") + b"\x86R"),
    "counters of the same dict": _pickle(
        b"](ccollections\nCounter\nq\x00}("
        + b"".join(b"M" + struct.pack("<H", key) + b"K\x01" for key in range(9_000))
        + b"u\x85q\x01R"
        + b"h\x00h\x01R" * 20_000
        + b"e"
    ),
    "bytearray of a number": _pickle(b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R"),
    "storage made by a number": _pickle(b"ctorch\nFloatStorage\nJ\xff\xff\xff\x7f\x85R"),
    "attributes again and again": _pickle(
        b"ccollections\nOrderedDict\n)Rq\x00}("
        + b"".join(_text(b"a%d" % key) + b"K\x01" for key in range(9_000))
        + b"uq\x01b"
        + b"h\x01b" * 200_000
    ),
    "text longer than the file": _pickle(b"X\xff\xff\xff\x7f"),
    "text of 8 bytes of length": _pickle(b"\x8d" + b"\xff" * 7 + b"\x7f"),
    "bytes longer than the file": _pickle(b"B\xff\xff\xff\x7f"),
    "bytearray of 8 bytes of length": _pickle(b"\x96" + b"\xff" * 7 + b"\x7f"),
    "number of 4 bytes of length": _pickle(b"\x8b\xff\xff\xff\x7f"),
    "number of 4 bytes of length, below 0": _pickle(b"\x8b\xff\xff\xff\xff"),
    "number of a million bytes": _pickle(b"\x8b" + struct.pack("<I", 10**6) + b"\x7f" * 10**6),
    "number of a million digits": _pickle(b"L" + b"9" * 10**6 + b"L\n"),
    "number in text": _pickle(b"I" + b"9" * 10**6 + b"\n"),
    "string without an end": _pickle(b"S'" + b"a" * 10**6),
    "frame longer than the file": _pickle(b"\x95" + b"\xff" * 7 + b"\x7f"),
    "import of 900,000 letters": _pickle(b"c" + b"a" * 900_000 + b"\nb\n"),
    "import of control characters": _pickle(b"c\x1b[2J\x1b]0;owned\x07\ns\n"),
    "import that is no UTF-8": _pickle(b"c\xff\xfe\ns\n"),
    "extension": _pickle(b"\x82\x01"),
    "protocol 255": _archive(b"\x80\xff}."),
    "shape of 100,000 sizes": _pickle(
        _state(_KEY, _tensor(shape=b"(" + b"K\x02" * 100_000 + b"t", stride=b"(" + b"K\x01" * 100_000 + b"t"))
    ),
    "shape of 65 sizes": _pickle(
        _state(_KEY, _tensor(shape=b"(" + b"K\x01" * 65 + b"t", stride=b"(" + b"K\x01" * 65 + b"t"))
    ),
    **{
        f"tensor with {what}": _pickle(_state(_KEY, _tensor(**changed)))
        for what, changed in {
            "a size of 2 to the 63": {"shape": _long(2**63) + b"\x85"},
            "a size of 2 to the 2,000": {"shape": _long(2**2000) + b"\x85"},
            "a size below 0": {"shape": b"J\xff\xff\xff\xff\x85"},
            "a stride below 0": {"stride": b"J\xff\xff\xff\xff\x85"},
            "a stride of 2 to the 62": {"stride": _long(2**62) + b"\x85"},
            "an offset of 2 to the 62": {"offset": _long(2**62)},
            "an offset of 2 to the 64": {"offset": _long(2**64)},
            "an offset below 0": {"offset": b"J\xff\xff\xff\xff"},
            "sizes whose product overflows": {"shape": _long(2**40) * 2 + b"\x86", "stride": b"K\x00K\x00\x86"},
            "no stride": {"stride": b")"},
            "True as a size": {"shape": b"\x88\x85"},
            "a float as a size": {"shape": b"G" + bytes(8) + b"\x85"},
        }.items()
    },
    "storage of 2 to the 2,000 elements": _pickle(_state(_KEY, _tensor().replace(b"K\x10tQ", _long(2**2000) + b"tQ"))),
    "storage of fewer than 0 elements": _pickle(_state(_KEY, _tensor().replace(b"K\x10tQ", b"J\xff\xff\xff\xfftQ"))),
    "storage with a name that leads out": _pickle(_state(_KEY, _tensor().replace(_text(b"0"), _text(b"../0"), 1))),
    "name of 900,000 letters": _pickle(_state(_text(b"a" * 900_000), _tensor())),
    "name of control characters": _pickle(_state(_text(b"\x1b[2J\x1b]0;x\x07\nERROR: all is well\r"), _tensor())),
    "name of half a pair of surrogates": _pickle(_state(_text(b"\xed\xa0\x80"), _tensor())),
    "name of NUL": _pickle(_state(_text(b"\0" * 300), _tensor())),
    "name twice, of 900,000 letters": _pickle(_state(_text(b"a" * 900_000) + _put(0), _tensor(), _get(0), _tensor())),
    "keys of numbers of 600 digits": _pickle(b"}" + _long(2**2030) + b"}" + _KEY + _tensor() + b"ss"),
    "10,000 state dicts below a key of a million letters": _pickle(
        b"}"
        + _text(b"k" * 1_000_000)
        + b"}("
        + _text(b"first")
        + b"}"
        + _KEY
        + _tensor()
        + b"q\x00s"
        + b"".join(_text(b"%d" % key) + b"}" + _KEY + b"h\x00s" for key in range(10_000))
        + b"us"
    ),
    "30,000 state dicts of one tensor": _pickle(
        b"}("
        + _text(b"first")
        + b"}"
        + _KEY
        + _tensor()
        + b"q\x00s"
        + b"".join(_text(b"%d" % key) + b"}" + _KEY + b"h\x00s" for key in range(30_000))
        + b"u"
    ),
}
