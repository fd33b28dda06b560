import os
import pickle
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.manifest import misfit
from model.examine.limits import ReadAllowance
from model.examine.pickle_reader import read_pickle
from model.examine.trust import EXAMINERS, UntrustedCheckpoint, examine
from model.examine.zip_directory import MalformedFile
from model.layouts.files import save_plain, save_sparse
from model.layouts.layouts import LAYOUTS, save_per_tensor

MakeOne = Callable[..., Checkpoint]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 4)
        self.other = nn.Linear(4, 4)
        self.other.weight = self.one.weight


class Counting(nn.Module):
    """Has a state that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def get_extra_state(self) -> dict[str, Any]:
        return {"seen": 7, "rate": 0.5, "names": ["a", b"b", None, (True, -1, 2**40)]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        pass


def saved(content: object, folder: Path) -> Path:
    torch.save(content, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def refusal(path: Path, expected: dict[str, Any], layout: str = "torch", *, contents: bool = False) -> str:
    with pytest.raises(UntrustedCheckpoint) as caught:
        examine(layout, path, expected, contents=contents)
    return str(caught.value).removeprefix(str(path))


def test_every_layout_is_examined() -> None:
    assert EXAMINERS.keys() == LAYOUTS.keys()


@pytest.mark.parametrize(
    "state_dict",
    [
        {},
        {"a": torch.ones(3)},
        {f"layer.{i}": torch.full((i % 7, 3), float(i)) for i in range(1000)},
        {"none": torch.empty(0), "rows": torch.empty(0, 4), "number": torch.tensor(3.0), "large": torch.ones(700, 700)},
        {"transposed": torch.ones(3, 4).t(), "step": torch.ones(9)[::2], "behind": torch.ones(9)[4:]},
        {
            str(dtype): torch.zeros(5, dtype=dtype)
            for dtype in (torch.bfloat16, torch.int8, torch.bool, torch.complex64)
        },
        {str(dtype): torch.zeros(5, dtype=dtype) for dtype in (torch.uint16, torch.uint64, torch.float8_e4m3fn)},
        {"ünï/cödé\n": torch.ones(3)},
        nn.Linear(3, 4).state_dict(),
        nn.Linear(3, 4).state_dict(keep_vars=True),
        Tied().state_dict(),
        Counting().state_dict(),
    ],
)
def test_what_torch_saves_passes(state_dict: dict[str, Any], tmp_path: Path) -> None:
    examine("torch", saved(state_dict, tmp_path), state_dict, contents=True)


def test_so_does_a_folder_of_tensors(tmp_path: Path) -> None:
    with torch.device("meta"):
        expected = Tied().state_dict()
    save_per_tensor(Tied().state_dict(), tmp_path, torch.save)
    assert len(list((tmp_path / "tensors").iterdir())) == 3
    examine("per_tensor", tmp_path / "tensors", expected, contents=True)


@pytest.mark.parametrize("layout", ["torch_sharded", "safetensors_sharded"])
def test_so_do_shards_of_which_one_has_a_tied_tensor(layout: str, tmp_path: Path) -> None:
    with torch.device("meta"):
        expected = Tied().state_dict()
    LAYOUTS[layout].save(Tied().state_dict(), tmp_path, save_plain)
    path = tmp_path / LAYOUTS[layout].entrance
    examine(layout, path, expected, contents=True)
    untied = {name: torch.empty(tensor.shape, device="meta") for name, tensor in expected.items()}
    assert "other.weight " in refusal(path, untied, layout)


@pytest.mark.parametrize("layout", ["torch_sharded", "safetensors_sharded"])
def test_names_of_one_tensor_in_two_shards_are_not_one(layout: str, tmp_path: Path) -> None:
    """Both would be loaded, and either could win."""
    state_dict = {name: tensor.clone() for name, tensor in Tied().state_dict().items()}
    LAYOUTS[layout].save(state_dict, tmp_path, save_plain)
    reason = refusal(tmp_path / LAYOUTS[layout].entrance, Tied().state_dict(), layout)
    assert reason.endswith("other.weight has its own memory, where in the model it shares its memory with one.weight")


@pytest.mark.parametrize("large_bytes", [600 * 2**20, 5 * 2**30])
def test_a_file_of_many_gigabytes_is_examined_in_no_time(tmp_path: Path, large_bytes: int) -> None:
    """Its index is written otherwise: beyond 4 GiB sizes and places take more digits."""
    with FakeTensorMode():
        state_dict = {f"large.{i}": torch.empty(large_bytes // 4) for i in range(9)}
        state_dict |= {"small": torch.empty(3), "none": torch.empty(0)}
        save_sparse(state_dict, tmp_path / "checkpoint.pt")
    expected = {name: torch.empty(tensor.shape, device="meta") for name, tensor in state_dict.items()}
    assert (tmp_path / "checkpoint.pt").stat().st_size > 2**32
    start = time.perf_counter()
    examine("torch", tmp_path / "checkpoint.pt", expected)
    assert time.perf_counter() - start < 1


def test_a_link_to_a_checkpoint_is_one_but_in_a_folder(tmp_path: Path) -> None:
    """Caches of downloads link; who names a file means what it links to."""
    path = saved({"a": torch.ones(3)}, tmp_path)
    (tmp_path / "link").symlink_to(path)
    examine("torch", tmp_path / "link", {"a": torch.ones(3)})


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # Paths of sockets must be short.
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind("socket")
    assert refusal(tmp_path / "fifo", {}) == " is a FIFO, not a file"
    assert refusal(tmp_path / "socket", {}) == " is a socket, not a file"
    assert refusal(Path("/dev/zero"), {}) == " is a device, not a file"
    assert refusal(tmp_path, {}) == " is a folder, not a file"
    assert refusal(tmp_path / "none", {}) == " is missing: download or copy it again"
    assert refusal(tmp_path / "fifo", {}, "per_tensor") == " is a FIFO, not a folder"


def test_an_error_is_one_line_that_names_file_key_and_reason(tmp_path: Path) -> None:
    error = UntrustedCheckpoint(tmp_path / "a\nb.pt", "layer\x1b[2J", "is missing")
    assert str(error) == f"{tmp_path}/a\\nb.pt: layer\\x1b[2J is missing"
    assert len(str(UntrustedCheckpoint(tmp_path, "k" * 10**6, "is\n" * 10**6))) < 3000


def test_an_error_survives_the_way_out_of_a_process(tmp_path: Path) -> None:
    error = UntrustedCheckpoint(tmp_path, "key", "is missing")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - it was made here
    assert (copy.file, copy.key, copy.reason, str(copy)) == (tmp_path, "key", "is missing", str(error))


def test_tensors_share_memory_as_they_do_in_the_model(tmp_path: Path) -> None:
    with torch.device("meta"):
        tied = Tied().state_dict()
    own = "other.weight has its own memory, where in the model it shares its memory with one.weight"
    untied = {name: torch.ones(tensor.shape) for name, tensor in tied.items()}
    assert refusal(saved(untied, tmp_path), tied) == f": {own}"
    shared = "other.weight shares its memory with one.weight, where in the model it has its own memory"
    assert refusal(saved(Tied().state_dict(), tmp_path), untied) == f": {shared}"


def test_tensors_that_share_memory_have_their_own_places_in_it(tmp_path: Path) -> None:
    both, expected = torch.ones(9), torch.empty(9, device="meta")
    path = saved({"a": both[:4], "b": both[3:7]}, tmp_path)
    examine("torch", path, {"a": expected[:4], "b": expected[3:7]})
    reason = refusal(path, {"a": expected[:4], "b": expected[4:8]})
    assert reason == ": b is at another place of the memory that it shares with a"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_contents_are_read_when_asked_for(made: MakeOne, layout: str) -> None:
    """A .safetensors file has no checksum to compare them with."""
    checkpoint = made(layout)
    value = bytes(dict(checkpoint.tensors())["final_norm.scale"].view(torch.uint8).tolist())
    [path] = [path for path in checkpoint.folder.rglob("*") if path.is_file() and value in path.read_bytes()]
    content = path.read_bytes()
    place = content.index(value)
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    with torch.device("meta"):
        expected = checkpoint.specification.build().state_dict()
    examine(layout, checkpoint.path, expected)
    if layout.startswith("safetensors"):
        examine(layout, checkpoint.path, expected, contents=True)
    else:
        reason = refusal(checkpoint.path, expected, layout, contents=True)
        assert "CRC-32 is not the one that was written" in reason
    assert f"{path.name} has changed" in str(misfit(checkpoint.specification, checkpoint.folder))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "broken"),
        (b"c__builtin__\neval\nX\x01\x00\x00\x001\x85R.", "uses __builtin__.eval"),
        (b"\x80\x02ctorch\n_C._autograd\n.", "uses torch._C._autograd"),
        (b"]q\xff\xff\xff\xff.", "instruction|broken"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "broken"),
        (b"}(K\x01K\x02u.", ""),
        (b"}(]K\x02u.", "a key that is no string but a list"),
        (b"}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u.", "is there twice"),
        (b"}X\x01\x00\x00\x00aK\x01sX\x01\x00\x00\x00aK\x02s.", "is there twice"),
        (b"ctorch\nfloat32\n)R.", "calls torch.float32"),
        (b"K\x01K\x02.", "with more behind it"),
        (b"(K\x01.", "with more behind it"),
        (b".", "broken"),
        (b"0.", "broken|instruction POP"),
        (b"(((((t.", "with more behind it"),
        (b"K\x01Q.", "broken"),
        (b"h\x07.", "broken"),
    ],
)
def test_a_pickle_is_read_without_running_it(content: bytes, reason: str) -> None:
    if not reason:
        assert read_pickle(content, ReadAllowance.of(len(content))).value == {1: 2}
        return
    with pytest.raises(MalformedFile, match=reason):
        read_pickle(content, ReadAllowance.of(len(content)))


def test_a_pickle_that_grows_when_it_is_read_is_not_looked_at_twice(tmp_path: Path) -> None:
    """Forty lists, each of which holds the one before it twice: written out, a million million."""
    nested: list[Any] = []
    for _ in range(40):
        nested = [nested, nested]
    state_dict = {"a": torch.ones(3), "_extra_state": nested}
    examine("torch", saved(state_dict, tmp_path), {"a": torch.ones(3), "_extra_state": None})
