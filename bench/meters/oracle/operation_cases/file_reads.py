"""Reads of files, with moves to a device on the way or afterwards."""

import io
import mmap
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from bench.meters.oracle.operation_cases.copies import BFLOAT16, HALF, square


def saved(state_dict: dict[str, Any] | None = None) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state_dict or {"weight": square(), "bias": torch.ones(1000)}, file)
    file.seek(0)
    return file


def shared() -> io.BytesIO:
    """Two tensors in one storage."""
    whole = square()
    return saved({"whole": whole, "half": whole[500:]})


def _of_a_file(d: torch.device, **options: Any) -> Any:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "checkpoint.pt"
        file.write_bytes(saved().getvalue())
        found = torch.load(file, weights_only=True, **options)
        return {name: value.to(d) for name, value in found.items()}


def _under(d: torch.device) -> Any:
    file = saved()
    with d:
        return torch.load(file, weights_only=True)


def _by_function(_: torch.device) -> Any:
    def moved(storage: Any, _: str) -> Any:
        return storage.cuda()

    return torch.load(saved(), map_location=moved)


def _cast_each(d: torch.device) -> dict[str, Tensor]:
    return {name: value.to(d, HALF) for name, value in torch.load(saved(), map_location="cpu").items()}


def _moved_and_dropped(d: torch.device) -> dict[str, Tensor]:
    found = torch.load(saved(), map_location="cpu", weights_only=True)
    return {name: found.pop(name).to(d) for name in list(found)}


def _parts_of_bytes(d: torch.device) -> list[Tensor]:
    """Read as readers of safetensors do: the bytes of a file are views of a buffer, by dtype and shape."""
    data = bytearray(8_000_000)
    whole = torch.frombuffer(data, dtype=torch.uint8)
    return [
        whole[:4_000_000].view(torch.float32).view(1000, 1000).to(d),
        whole[4_000_000:6_000_000].view(HALF).view(1000, 1000).to(d),
        whole[6_000_000:].view(BFLOAT16).view(1000, 1000).to(d, torch.float32),
    ]


def _bytes_in_one(d: torch.device) -> list[Tensor]:
    """Move the whole file to the device as bytes, where tensors are views of it."""
    whole = torch.frombuffer(bytearray(8_000_000), dtype=torch.uint8).to(d)
    return [whole[:4_000_000].view(torch.float32), whole[4_000_000:].view(HALF).view(2000, 1000)]


def _bytes_in_one_cloned(d: torch.device) -> list[Tensor]:
    return [view.clone() for view in _bytes_in_one(d)]


def _mapped(d: torch.device) -> Tensor:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "data"
        file.write_bytes(bytes(4_000_000))
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY) as data:
            return torch.frombuffer(bytearray(data), dtype=torch.float32).to(d)


def _from_file(d: torch.device) -> Tensor:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "data"
        file.write_bytes(bytes(4_000_000))
        return torch.from_file(str(file), size=1_000_000, dtype=torch.float32).to(d)


FILES: dict[str, Callable[[torch.device], Any]] = {
    "torch.load to the device": lambda d: torch.load(saved(), map_location=d, weights_only=True),
    "torch.load by name": lambda _: torch.load(saved(), map_location="cuda", weights_only=True),
    "torch.load by number": lambda _: torch.load(saved(), map_location="cuda:0", weights_only=True),
    "torch.load by map": lambda _: torch.load(saved(), map_location={"cpu": "cuda:0"}, weights_only=True),
    "torch.load by function": _by_function,
    "torch.load under the device": _under,
    "torch.load without weights_only": lambda d: torch.load(saved(), map_location=d, weights_only=False),
    "torch.load of shared storages": lambda d: torch.load(shared(), map_location=d, weights_only=True),
    "torch.load to the host, each moved": lambda d: _of_a_file(d, map_location="cpu"),
    "torch.load mapped, each moved": lambda d: _of_a_file(d, map_location="cpu", mmap=True),
    "torch.load mapped to the device": lambda d: _of_a_file(d, map_location="cuda", mmap=True),
    "torch.load to the host, each cast": _cast_each,
    "torch.load to the host, each moved and dropped": _moved_and_dropped,
    "frombuffer, parts moved": _parts_of_bytes,
    "frombuffer, moved in one": _bytes_in_one,
    "frombuffer, moved in one, cloned": _bytes_in_one_cloned,
    "mapped bytes": _mapped,
    "from_file": _from_file,
}
