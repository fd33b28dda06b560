from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing._internal.two_tensor import TwoTensor

from model.examine.safetensors_file import (
    MOST_HEADER_BYTES,
    SAFETENSORS_DTYPES,
    file_parts,
    read_header,
    read_safetensors,
)
from model.examine.zip_directory import MalformedFile
from model.layouts.files import RawContent, save_plain, save_sparse
from model.values.bits import difference

# Two tensors that say they are one.
Twin: Any = TwoTensor

# To the byte what the format's own library, safetensors 0.8.0, writes of these.
TENSORS = {
    "b": torch.tensor([True, False, True]),
    "ä": torch.tensor([[1.0, -2.0]]),
    "n": torch.tensor(7),
    "e": torch.empty(0, 3, dtype=torch.float16),
}
WRITTEN = (
    b'\x00\x01\x00\x00\x00\x00\x00\x00{"__metadata__":{"format":"pt"},'
    b'"n":{"dtype":"I64","shape":[],"data_offsets":[0,8]},'
    b'"\xc3\xa4":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},'
    b'"e":{"dtype":"F16","shape":[0,3],"data_offsets":[16,16]},'
    b'"b":{"dtype":"BOOL","shape":[3],"data_offsets":[16,19]}}  '
    b"\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x80?\x00\x00\x00\xc0\x01\x00\x01"
)


def saved(tensors: dict[str, Any], folder: Path) -> Path:
    save_plain(RawContent(file_parts(tensors)), folder / "model.safetensors")
    return folder / "model.safetensors"


def test_a_file_is_what_the_library_of_the_format_writes(tmp_path: Path) -> None:
    assert saved(TENSORS, tmp_path).read_bytes() == WRITTEN


def test_it_is_read_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(WRITTEN)
    read = read_safetensors(tmp_path / "model.safetensors")
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert difference(read[name], tensor) is None
        assert read[name].stride() == tensor.stride()


@pytest.mark.parametrize("dtype", SAFETENSORS_DTYPES.values())
def test_every_dtype_keeps_its_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    content = torch.arange(3 * dtype.itemsize, dtype=torch.int64).remainder(2).to(torch.uint8)
    path = saved({"a": torch.ones(1, dtype=torch.int8), "b": content.view(dtype)}, tmp_path)
    assert read_safetensors(path)["b"].dtype == dtype
    assert torch.equal(read_safetensors(path)["b"].view(torch.uint8), content)


def conjugated() -> Tensor:
    return torch.ones(2, dtype=torch.complex64).conj()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: {"name": torch.ones(3, 4).t()}, "is not contiguous"),
        (lambda: {"name": torch.ones(2)[::2]}, "is not contiguous"),
        (lambda: {"name": conjugated()}, "is not contiguous"),
        (lambda: {"name": torch.ones(2, dtype=torch.complex128)}, "is torch.complex128, which .* has no name for"),
        (lambda: {"name": {"step": 3}}, "is <class 'dict'>, which .* has no name for"),
        (lambda: {"name": Twin(torch.ones(2), torch.ones(2))}, "is <class '.*TwoTensor'>, which .* has no name for"),
        (lambda: {"other": (other := torch.ones(4)), "name": other[1:]}, "is in the memory of other"),
    ],
)
def test_what_the_format_cannot_hold_is_named(make: Callable[[], dict[str, Any]], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^name {reason}"):
        file_parts(make())


def test_a_name_that_the_format_has_for_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="__metadata__ is no name for a tensor"):
        file_parts({"__metadata__": torch.ones(2)})


def test_a_plan_has_a_header_and_a_hole(tmp_path: Path) -> None:
    with FakeTensorMode():
        save_sparse(RawContent(file_parts({"huge": torch.empty(10**9)})), tmp_path / "model.safetensors")
    [extent] = read_header(tmp_path / "model.safetensors").values()
    assert extent.end - extent.start == 4 * 10**9
    assert (tmp_path / "model.safetensors").stat().st_blocks * 512 < 2**20


@pytest.mark.parametrize("cut", range(0, len(WRITTEN), 3))
def test_a_file_cut_anywhere_is_unsound(cut: int, tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(WRITTEN[:cut])
    with pytest.raises(MalformedFile):
        read_header(tmp_path / "cut")


def test_two_values_of_four_bits_are_one_element(tmp_path: Path) -> None:
    """The bytes are those that the format's own library writes."""
    pairs = torch.arange(6, dtype=torch.uint8).view(2, 3).view(torch.float4_e2m1fn_x2)
    path = saved({"a": pairs}, tmp_path)
    header = b'{"__metadata__":{"format":"pt"},"a":{"dtype":"F4","shape":[2,6],"data_offsets":[0,6]}}'
    header += b" " * (-len(header) % 8)
    assert path.read_bytes() == len(header).to_bytes(8, "little") + header + bytes(range(6))
    [extent] = read_header(path).values()
    assert (extent.dtype, extent.shape) == (torch.float4_e2m1fn_x2, (2, 3))
    path.write_bytes(path.read_bytes().replace(b"[2,6]", b"[4,3]"))
    with pytest.raises(
        MalformedFile, match=r"has the shape \[4, 3\], in rows of which torch cannot hold values of 4 bits"
    ):
        read_header(path)
    with pytest.raises(ValueError, match=r"^a is a torch.float4_e2m1fn_x2 without a dimension"):
        file_parts({"a": pairs[0, 0]})


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_header_may_be_as_long_as_the_format_allows(surplus: int, tmp_path: Path) -> None:
    [_, header, *tensors] = file_parts({"a": torch.ones(1)})
    assert isinstance(header, bytes)
    length = MOST_HEADER_BYTES + surplus
    header = header if surplus else header.ljust(length)
    save_plain(RawContent([length.to_bytes(8, "little"), header, *tensors]), tmp_path / "long")
    if surplus:
        with pytest.raises(MalformedFile, match="its header would have 100,000,001 bytes"):
            read_header(tmp_path / "long")
    else:
        assert list(read_header(tmp_path / "long")) == ["a"]


@pytest.mark.parametrize("magic", [b"\x1f\x8b", b"<a", b"GG", b"PK\3"])
def test_the_length_of_a_header_may_be_any_number(magic: bytes, tmp_path: Path) -> None:
    """One that is the beginning of a file of another kind too."""
    [_, header, *tensors] = file_parts({"a": torch.ones(1)})
    assert isinstance(header, bytes)
    length = int.from_bytes(magic, "little")
    save_plain(
        RawContent([length.to_bytes(8, "little"), header.ljust(length), *tensors]), tmp_path / "model.safetensors"
    )
    assert list(read_header(tmp_path / "model.safetensors")) == ["a"]
