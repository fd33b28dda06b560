"""Sound checkpoints of every layout, and random changes of their bytes, as a fuzzer makes them."""

import json
import pickletools
import random
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.selftest.faults.fault import records_of, write_archive
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS

# Changes bytes, by the numbers that it draws.
Change = Callable[[random.Random, bytes], bytes]

# Where a number has one digit or bit more, or none.
NUMBERS = (0, 1, -1, 2, 127, 255, 256, 2**15, 2**16 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63, 2**64 - 1, 10**30)
_TEXTS = ("", "..", "/", "a" * 5_000, "\x1b[2J", "\n", "\0", "\ud800", "weight", "F32", "0")


def state() -> dict[str, Tensor]:
    """A model's tensors, of which some are small, share memory, or have strides of their own."""
    base = torch.arange(24, dtype=torch.float32)
    return {
        "weight": base.clone().view(2, 3, 4),
        "transposed": (base + 1).view(4, 6).t(),
        "tied": base,
        "also.tied": base,
        "half": base.bfloat16(),
        "count": torch.tensor(7),
        "none": torch.empty(0, 3),
        "mask": torch.tensor([True, False]),
    }


def plain_state() -> dict[str, Tensor]:
    """The tensors of `state` that every layout can hold."""
    return {name: tensor.clone() for name, tensor in state().items() if name not in {"transposed", "also.tied"}}


def _sample(layout: str, state_dict: dict[str, Tensor]) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        LAYOUTS[layout].save(state_dict, folder, save_plain)
        return folder / LAYOUTS[layout].entrance

    return make


def _training(folder: Path) -> Path:
    saved = {"model": OrderedDict(state()), "step": 7, "rate": 0.5, "names": ["a", (1, None)], "sets": {1, 2}}
    torch.save(saved | {"optimizer": {"state": {0: {"step": torch.tensor(3.0)}}}}, folder / "run.ckpt")
    return folder / "run.ckpt"


# Write a sound checkpoint into a folder, and return what `--checkpoint` names.
SAMPLES: dict[str, Callable[[Path], Path]] = {
    "torch": _sample("torch", state()),
    "training": _training,
    **{layout: _sample(layout, plain_state()) for layout in LAYOUTS if layout != "torch"},
}


def _flip(draw: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if changed:
            changed[draw.randrange(len(changed))] = draw.choice((0, 255, draw.randrange(256)))
    return bytes(changed)


def _slice(draw: random.Random, content: bytes) -> tuple[int, int]:
    start = draw.randrange(len(content) + 1)
    return start, min(len(content), start + draw.choice((1, 4, 16, 100)))


def _remove(draw: random.Random, content: bytes) -> bytes:
    start, end = _slice(draw, content)
    return content[:start] + content[end:]


def _double(draw: random.Random, content: bytes) -> bytes:
    start, end = _slice(draw, content)
    return content[:end] + content[start:end] * draw.choice((1, 2, 50)) + content[end:]


def _number(draw: random.Random, content: bytes) -> bytes:
    """Another number of 1 to 8 bytes."""
    width = draw.choice((1, 2, 4, 8))
    place = draw.randrange(max(1, len(content) - width))
    number = draw.choice(NUMBERS) % 2 ** (8 * width)
    return content[:place] + number.to_bytes(width, "little") + content[place + width :]


def _cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


BYTES: tuple[Change, ...] = (_flip, _remove, _double, _number, _cut)


def _instructions(content: bytes) -> list[bytes]:
    places = [place for _, _, place in pickletools.genops(content) if place is not None]
    return [content[start:end] for start, end in zip(places, [*places[1:], len(content)], strict=True)]


def _removed(draw: random.Random, steps: list[bytes]) -> None:
    place = draw.randrange(len(steps))
    del steps[place : place + draw.choice((1, 2, 8))]


def _repeated(draw: random.Random, steps: list[bytes]) -> None:
    place, other = draw.randrange(len(steps)), draw.randrange(len(steps))
    steps[place:place] = steps[other : other + draw.choice((1, 3, 12))] * draw.choice((1, 3, 40))


def _exchanged(draw: random.Random, steps: list[bytes]) -> None:
    place, other = draw.randrange(len(steps)), draw.randrange(len(steps))
    steps[place], steps[other] = steps[other], steps[place]


def _other(draw: random.Random, steps: list[bytes]) -> None:
    steps[draw.randrange(len(steps))] = bytes([draw.choice(b"}])(tRbQsu\x86N0")])


def _renumbered(draw: random.Random, steps: list[bytes]) -> None:
    number = draw.choice(NUMBERS)
    steps[draw.randrange(len(steps))] = b"\x8a\x10" + number.to_bytes(16, "little", signed=True)


_STEPS = (_removed, _repeated, _exchanged, _other, _renumbered)


def pickle_change(draw: random.Random, content: bytes) -> bytes:
    """Other instructions, each of which can be read."""
    steps = _instructions(content)
    for _ in range(draw.randint(1, 3)):
        draw.choice(_STEPS)(draw, steps)
        steps = steps or [b"."]
    return b"".join(steps)


def _once_in(draw: random.Random, times: int) -> bool:
    return draw.randrange(times) == 0


def json_change(draw: random.Random, content: bytes) -> bytes:
    """A value of a JSON document, or a key, replaced, removed or put elsewhere."""
    value = json.loads(content)
    for _ in range(draw.randint(1, 2)):
        _change_within(draw, value)
    return json.dumps(value, ensure_ascii=not _once_in(draw, 9)).encode(errors="surrogatepass")


def _change_within(draw: random.Random, value: Any) -> None:
    while True:
        places = [*value] if isinstance(value, dict) else [*range(len(value))]
        if not places:
            return
        place = draw.choice(places)
        inner = value[place]
        if isinstance(inner, dict | list) and inner and not _once_in(draw, 3):
            value = inner
            continue
        new = draw.choice((*NUMBERS, *_TEXTS, None, True, 0.5, [], {}, [inner, inner], {"a": inner}, value[places[0]]))
        if _once_in(draw, 5):
            del value[place]
        elif isinstance(value, dict) and _once_in(draw, 3):
            value[draw.choice(_TEXTS)] = value.pop(place)
        else:
            value[place] = new
        return


def safetensors_change(draw: random.Random, content: bytes) -> bytes:
    """Another header, of the length that it says."""
    length = int.from_bytes(content[:8], "little")
    header = json_change(draw, content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def change_archive(draw: random.Random, file: Path) -> None:
    """Another pickle, or other records, in an archive that is as sound as it was; or its directory."""
    if _once_in(draw, 5):
        content = file.read_bytes()
        place = content.rindex(b"PK\6\6") if _once_in(draw, 2) else content.index(b"PK\1\2")
        file.write_bytes(content[:place] + draw.choice(BYTES)(draw, content[place:]))
        return
    records = records_of(file)
    if not _once_in(draw, 5):
        records["data.pkl"] = pickle_change(draw, records["data.pkl"])
    else:
        name = draw.choice([*records])
        records[name] = draw.choice(BYTES)(draw, records[name])
    file.unlink()
    write_archive(file, records.items())


def mutate(draw: random.Random, entrance: Path) -> None:
    """Change one file of a sound checkpoint."""
    files = sorted(file for file in entrance.parent.rglob("*") if file.is_file())
    file = draw.choice(files)
    content = file.read_bytes()
    if _once_in(draw, 4):
        file.write_bytes(draw.choice(BYTES)(draw, content))
    elif file.suffix == ".json":
        file.write_bytes(json_change(draw, content))
    elif file.suffix == ".safetensors":
        file.write_bytes(safetensors_change(draw, content))
    else:
        change_archive(draw, file)
