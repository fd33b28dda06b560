"""Files that are not what `torch.save` writes of a state dict: each is refused by its name, and no model is made."""

import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.measure.load_process import run_load
from bench.strategies.reading.records import File, Unpickler, unzip
from bench.strategies.streamed import streamed
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification
from model.examine.trust import UntrustedCheckpoint
from model.gpt2 import REHEARSAL
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS

CPU = torch.device("cpu")

# Where an entry of a zip's directory has these figures.
PACKED, UNPACKED, HEADER, NAME = 20, 24, 42, 46


class Saved:
    """Return what is pickled as a tensor, which may be as wrong as it is given."""

    def __init__(
        self,
        offset: int = 0,
        shape: tuple[int, ...] = (10,),
        stride: tuple[int, ...] = (1,),
        *,
        key: str = "0",
        count: int = 10,
        rest: tuple[object, ...] = (),
    ) -> None:
        self.key, self.count = key, count
        hooks: OrderedDict[str, object] = OrderedDict()
        self.arguments = offset, shape, stride, False, hooks, *rest

    def __reduce__(self) -> tuple[Any, ...]:
        return torch._utils._rebuild_tensor_v2, (Kept(self.key, self.count), *self.arguments)


class Kept:
    """Return what is pickled as a storage."""

    def __init__(self, key: str, count: int) -> None:
        self.saved = "storage", torch.FloatStorage, key, "cpu", count


class Pickler(pickle.Pickler):
    def persistent_id(self, obj: object) -> object:
        return obj.saved if isinstance(obj, Kept) else None


def pickled(value: object) -> bytes:
    stream = BytesIO()
    Pickler(stream, 2).dump(value)
    return stream.getvalue()


def archived(path: Path, value: object, records: tuple[str, ...] = ("0",), **others: bytes) -> None:
    """A file with this pickle and records of 40 bytes each, written as `torch.save` writes it."""
    content = {"data.pkl": pickled(value), "version": b"3\n", "byteorder": b"little"} | others
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (*content.items(), *((f"data/{key}", bytes(range(40))) for key in records)):
            archive.writestr(f"archive/{name}", data)


def patched(path: Path, name: str, figure: int, value: int) -> None:
    """Change what the directory of a zip says of one of its files."""
    content = bytearray(path.read_bytes())
    place = content.index(f"archive/{name}".encode(), content.index(b"PK\1\2")) - NAME
    content[place + figure : place + figure + 4] = struct.pack("<I", value)
    path.write_bytes(content)


def header_of(path: Path, name: str) -> int:
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(f"archive/{name}").header_offset


def legacy(path: Path) -> None:
    torch.save({"one": torch.ones(10)}, path, _use_new_zipfile_serialization=False)


def compressed(path: Path) -> None:
    torch.save({"one": torch.ones(10)}, path)
    with zipfile.ZipFile(path) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def cut_inside_a_tensor(path: Path) -> None:
    torch.save({"one": torch.ones(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])


def cut_after_the_directory_was_put_right(path: Path) -> None:
    """The directory is there, and a record of it is longer than the file."""
    archived(path, {"one": Saved(count=2**20)})
    for figure in (PACKED, UNPACKED):
        patched(path, "data/0", figure, 2**22)


def outside(path: Path) -> None:
    archived(path, {"one": Saved()})
    patched(path, "data/0", HEADER, 2**20)


def overlapping(path: Path) -> None:
    archived(path, {"one": Saved(), "two": Saved(key="1")}, ("0", "1"))
    patched(path, "data/1", HEADER, header_of(path, "data/0"))


def reaching_into_another(path: Path) -> None:
    archived(path, {"one": Saved(count=30), "two": Saved(key="1")}, ("0", "1"))
    for figure in (PACKED, UNPACKED):
        patched(path, "data/0", figure, 120)


def twice(path: Path) -> None:
    archived(path, {"one": Saved(), "two": Saved(key="1")}, ("0", "1"))
    content = path.read_bytes()
    path.write_bytes(content.replace(b"archive/data/1", b"archive/data/0"))


def of_conjugates(path: Path) -> None:
    torch.save({"one": torch.randn(3, dtype=torch.complex64).conj()}, path)


def of_negatives(path: Path) -> None:
    torch.save({"one": torch.randn(3, dtype=torch.complex64).conj().imag}, path)


def without_a_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data/0", bytes(40))


def with_half_a_pickle(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled({"one": Saved()})[:-10])
        archive.writestr("archive/data/0", bytes(40))


def of(value: object, *keys: str, **others: bytes) -> Callable[[Path], None]:
    return lambda path: archived(path, value, keys or ("0",), **others)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "legacy": (legacy, "is no zip, as torch.save has written it since"),
    "compressed": (compressed, "compressed record data/0"),
    "cut inside a tensor": (cut_inside_a_tensor, "is a zip that was cut off"),
    "longer than the file": (cut_after_the_directory_was_put_right, "record data/0 that is cut off"),
    "outside of the file": (outside, ""),
    "in one place": (overlapping, "record data/1 that is cut off, or in the place of another"),
    "into another": (reaching_into_another, "record data/1 that is cut off, or in the place of another"),
    "of one name": (twice, "record data/0 that is cut off, or in the place of another"),
    "another byte order": (of({"one": Saved()}, byteorder=b"big"), "has another byte order"),
    "an import": (of({"one": Saved(), "two": Path("x")}), r"uses pathlib\.\w*Path"),
    "a function": (of({"one": Saved(), "two": print}), r"uses __builtin__\.print"),
    "what torch has besides dtypes": (of({"one": Saved(), "two": torch.load}), r"uses torch\.\w*\.load"),
    "beyond its record": (of({"one": Saved(shape=(11,))}), "reaches beyond its record 0"),
    "by its offset": (of({"one": Saved(offset=1)}), "reaches beyond its record 0"),
    "by its stride": (of({"one": Saved(shape=(5, 2), stride=(2, 2))}), "reaches beyond its record 0"),
    "empty, behind its record": (of({"one": Saved(offset=11, shape=(0,))}), "reaches beyond its record 0"),
    "a negative offset": (of({"one": Saved(offset=-1, shape=(5,))}), "reaches beyond its record 0"),
    "a negative stride": (of({"one": Saved(offset=9, stride=(-1,))}), "reaches beyond its record 0"),
    "a negative size": (of({"one": Saved(shape=(-1,))}), "reaches beyond its record 0"),
    "a negative size beside none": (of({"one": Saved(shape=(0, -1), stride=(1, 1))}), "reaches beyond its record 0"),
    "fewer strides": (of({"one": Saved(shape=(2, 5))}), ""),
    "another count": (of({"one": Saved(count=9, shape=(9,))}), r"no record 0 of 9 torch\.float32"),
    "no record": (of({"one": Saved(key="7")}), r"no record 7 of 10 torch\.float32"),
    "one more record": (of({"one": Saved()}, "0", "9"), r"has bytes that no tensor uses: \['9'\]"),
    "conjugated": (of_conjugates, "are to be conjugated or negated"),
    "negated": (of_negatives, "are to be conjugated or negated"),
    "by hand": (of({"one": Saved(rest=({"conj": True},))}), "are to be conjugated or negated"),
    "no pickle": (without_a_pickle, ""),
    "a pickle that ends": (with_half_a_pickle, ""),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """One whose file is still to be written."""
    return Checkpoint(Specification(REHEARSAL, "float32", "torch"), tmp_path)


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_its_name(
    name: str, dtype: torch.dtype | None, device: str, checkpoint: Checkpoint
) -> None:
    make, reason = BAD[name]
    make(checkpoint.path)
    built: list[nn.Module] = []

    def build() -> nn.Module:
        built.append(nn.Linear(10, 1))
        return built[-1]

    with pytest.raises(ValueError, match=rf"checkpoint\.pt.*{reason}"):
        streamed(build, checkpoint.path, torch.device(device), dtype=dtype)
    assert all(tensor.is_meta for model in built for tensor in model.state_dict().values())


@pytest.mark.parametrize("name", BAD)
def test_and_by_the_suite(name: str, checkpoint: Checkpoint) -> None:
    BAD[name][0](checkpoint.path)
    with pytest.raises(UntrustedCheckpoint, match=r"checkpoint\.pt"):
        run_load(streamed, checkpoint, CPU)


def test_what_they_are_made_of_is_good(tmp_path: Path) -> None:
    """Nothing but its fault is wrong with a bad file."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("one", torch.zeros(10))

    path = tmp_path / "checkpoint.pt"
    archived(path, {"one": Saved()})
    loaded = streamed(One, path, CPU)
    assert bytes(loaded.one.view(torch.uint8).tolist()) == bytes(range(40))
    assert torch.equal(torch.load(path, weights_only=True)["one"], loaded.one)


@pytest.mark.parametrize("layout", ["torch", "safetensors"])
def test_of_a_file_what_its_index_lists_is_given(layout: str, tmp_path: Path) -> None:
    [name] = LAYOUTS[layout].save({"one": torch.ones(3), "other": torch.zeros(5)}, tmp_path, save_plain)
    with (tmp_path / name).open("rb", buffering=0) as opened:
        file = File(opened, {"one"})
        found = file.contents(lambda record, kind: (torch.UntypedStorage(record.end - record.start), kind, "cpu"))
        assert found.keys() == {"one"}
        # Of safetensors, which say by name where each is, no other is read.
        assert len(file.records) == (2 if layout == "torch" else 1)
        with pytest.raises(ValueError, match=r"lacks \['third'\], which its index lists for it"):
            File(opened, {"one", "third"}).contents(lambda *_: (torch.UntypedStorage(20), torch.float32, "cpu"))


class Noting(nn.Module):
    """Keeps what is no tensor, of all types that `torch.load(weights_only=True)` takes."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(3))
        self.state: Any = None

    def get_extra_state(self) -> Any:
        return self.state

    def set_extra_state(self, state: Any) -> None:
        self.state = state


def test_what_torch_takes_beside_tensors_is_read_as_torch_reads_it(tmp_path: Path) -> None:
    model = Noting()
    model.one.note = "of its own"  # type: ignore[attr-defined]
    model.state = [
        Counter("aab"),
        {1, (2, None)},
        set(),
        1 - 2j,
        b"a\xff",
        bytearray(b"ab"),
        bytearray(),
        torch.strided,
    ]
    model.state += [
        torch.Size([2]),
        torch.device("cpu"),
        torch.bfloat16,
        {(0, 1): 2.0, None: 3, 0.5: 4},
        OrderedDict(a=1),
    ]
    path, state = tmp_path / "checkpoint.pt", model.state_dict(keep_vars=True)
    with_attribute: Any = torch.ones(3)
    with_attribute.note = "of its own"
    for one in (state["one"], with_attribute):
        torch.save(state | {"one": one}, path)
        loaded = streamed(Noting, path, CPU)
        assert loaded.state == torch.load(path, weights_only=True)["_extra_state"] == model.state
        assert list(map(type, loaded.state)) == list(map(type, model.state))
        assert torch.equal(loaded.one, model.one)


def test_records_are_where_torch_has_put_them(tmp_path: Path) -> None:
    tensors = [torch.arange(count) for count in (1, 1000, 0, 7)]
    torch.save(tensors, tmp_path / "checkpoint.pt")
    content = (tmp_path / "checkpoint.pt").read_bytes()
    with (tmp_path / "checkpoint.pt").open("rb", buffering=0) as opened:
        _, records = unzip(opened)
    assert list(records) == ["0", "1", "2", "3"]
    for record, tensor in zip(records.values(), tensors, strict=True):
        assert list(content[record.start : record.end]) == tensor.view(torch.uint8).tolist()


def test_a_pickle_that_is_read_keeps_nothing(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "saved.pt")
    with (tmp_path / "saved.pt").open("rb") as opened:
        pickled, records = unzip(opened)
        unpickler = Unpickler("saved.pt", pickled, records, lambda *_: torch.empty(0))
        assert set(unpickler.load()) == {"weight", "bias"}
    assert unpickler.memo.copy() == {}
