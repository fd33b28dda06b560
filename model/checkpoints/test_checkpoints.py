import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from model.architecture import DTYPES, SEED
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.file_identity import file_identities
from model.checkpoints.manifest import misfit
from model.examine.trust import UntrustedCheckpoint
from model.gpt2 import CONFIGS, REHEARSAL, first_logits
from model.layouts.layouts import LAYOUTS
from model.weights import random_gpt2

MakeOne = Callable[..., Checkpoint]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_checkpoint_holds_every_tensor_and_the_logits(made: MakeOne, layout: str, dtype: str) -> None:
    checkpoint = made(layout, dtype)
    model = random_gpt2(CONFIGS[REHEARSAL], DTYPES[dtype], SEED)
    saved, expected = dict(checkpoint.tensors()), model.state_dict()
    assert saved.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(saved[name], tensor), name
        assert saved[name].dtype == tensor.dtype, name
    assert torch.equal(checkpoint.outputs()[0], first_logits(model))
    assert misfit(checkpoint.specification, checkpoint.folder) is None


def test_a_torch_checkpoint_is_what_people_have(made: MakeOne) -> None:
    """Plain `torch.load` reads it, and each of its storages belongs to one tensor."""
    state_dict = torch.load(made().path, weights_only=True)
    assert len({tensor.untyped_storage().data_ptr() for tensor in state_dict.values()}) == len(state_dict)


def test_disk_bytes_is_no_less_than_what_is_written(made: MakeOne) -> None:
    for layout in LAYOUTS:
        checkpoint = made(layout, name=layout)
        files = [path for path in checkpoint.folder.rglob("*") if path.is_file()]
        written = sum(path.stat().st_blocks * 512 for path in files)
        assert written <= checkpoint.specification.disk_bytes


def flipped(content: bytes) -> bytes:
    """Flip a bit in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def edited(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    """Change the content of a file."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def manifest(change: Callable[[Any], Any]) -> Callable[[Path], object]:
    """Change the manifest."""
    return edited("manifest.json", lambda content: json.dumps(change(json.loads(content))).encode())


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (edited("checkpoint.pt", lambda content: content[:-1]), "checkpoint.pt has"),
        (edited("checkpoint.pt", flipped), "checkpoint.pt has changed"),
        (lambda folder: (folder / "checkpoint.pt").unlink(), "checkpoint.pt is missing"),
        (lambda folder: (folder / "stray.pt").touch(), "stray.pt is not in its manifest"),
        (lambda folder: (folder / "manifest.json").unlink(), "no manifest"),
        (manifest(lambda _: []), "manifest cannot be read"),
        (manifest(lambda _: 7), "manifest cannot be read"),
        (edited("manifest.json", lambda text: text.replace(b'"bytes"', b'"bxtes"')), "manifest cannot be read"),
        (manifest(lambda found: found | {"files": list(found["files"])}), "manifest cannot be read"),
        (manifest(lambda found: found | {"model": found["model"] | {"layers": 7}}), "its model differs"),
    ],
)
def test_a_damaged_checkpoint_is_noticed(made: MakeOne, damage: Callable[[Path], object], reason: str) -> None:
    checkpoint = made()
    damage(checkpoint.folder)
    assert reason in str(misfit(checkpoint.specification, checkpoint.folder))


def test_a_flipped_bit_in_one_of_many_files_is_noticed(made: MakeOne) -> None:
    checkpoint = made("per_tensor")
    edited("final_norm.shift.pt", flipped)(checkpoint.path)
    assert "final_norm.shift.pt has changed" in str(misfit(checkpoint.specification, checkpoint.folder))


def test_a_checkpoint_of_another_dtype_does_not_fit(made: MakeOne) -> None:
    checkpoint = made()
    assert misfit(replace(checkpoint.specification, dtype="float16"), checkpoint.folder) == "its dtype differs"


def put_a_copy_in_its_place(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def flip_a_bit_in_place(path: Path) -> None:
    """Change a byte, and give the file its old times back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"p")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("file", ["tensors/final_norm.scale.pt", "logits.pt"])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(path.read_bytes()), "was written to while it was in use"),
        (put_a_copy_in_its_place, "was replaced by another file while it was in use"),
        (flip_a_bit_in_place, "was written to while it was in use"),
        (lambda path: path.write_bytes(b"12"), r"was changed from [\d,]+ bytes to 2 while it was in use"),
        (Path.unlink, "was sound, and can no longer be found: No such file or directory"),
    ],
)
def test_a_checkpoint_knows_its_files(made: MakeOne, file: str, change: Callable[[Path], object], reason: str) -> None:
    """Equal bytes do not count: a load may have read others in between."""
    checkpoint = made("per_tensor")
    known = replace(checkpoint, file_identities=file_identities(checkpoint.folder))
    known.require_unchanged()
    change(checkpoint.folder / file)
    with pytest.raises(UntrustedCheckpoint, match=reason) as caught:
        known.require_unchanged()
    assert caught.value.file == checkpoint.folder / file
    checkpoint.require_unchanged()
