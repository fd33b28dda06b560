import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from model.checkpoints import specification
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make, make_sparse
from model.checkpoints.manifest import MANIFEST, misfit
from model.checkpoints.specification import Specification
from model.digest import TensorDigest, digests
from model.gpt2 import REHEARSAL
from model.layouts import dcp
from model.layouts.dcp import PLANNED, SAVED, DcpSettings
from model.layouts.files import save_plain
from model.layouts.foreign import ALL_LAYOUTS, FOREIGN
from model.verification.verify import WrongModel, check_model, check_structure

CPU = torch.device("cpu")


def require(layout: str) -> None:
    if find_spec(FOREIGN[layout].library) is None:
        pytest.skip(f"{FOREIGN[layout].library} is not installed: it is in the extra peers")


@pytest.fixture
def checkpoint(made: Callable[..., Checkpoint]) -> Checkpoint:
    return made("dcp")


@pytest.mark.parametrize("layout", FOREIGN)
def test_a_checkpoint_is_made_by_its_library_and_known_again(layout: str, tmp_path: Path) -> None:
    require(layout)
    specification = Specification(REHEARSAL, "float32", layout)
    done: list[int] = []
    make(specification, tmp_path / "made", done.append)
    assert misfit(specification, tmp_path / "made") is None
    made = Checkpoint(specification, tmp_path / "made")
    assert made.path.exists()
    # No load reads what it is held against.
    assert {"digests.json", "logits.pt", "manifest.json"}.isdisjoint(file.name for file in made.files)
    assert sum(file.stat().st_size for file in made.files) >= specification.footprint.state_bytes
    assert sum(done) >= 2 * specification.footprint.state_bytes
    saved = specification.architecture.saved(lambda _: None)
    check_model(made, CPU, saved)
    assert {name for name, _ in made.tensors()} == saved.state_dict().keys()


def test_one_by_another_version_of_the_library_is_made_again(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(specification, "version", lambda _: "0.0.1")
    assert misfit(checkpoint.specification, checkpoint.folder) == "its written_by differs"


def test_one_that_was_saved_with_other_settings_is_made_again(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = json.loads((checkpoint.folder / MANIFEST).read_bytes())
    assert manifest["saved_with"] == SAVED.as_record()
    other = replace(ALL_LAYOUTS["dcp"], saved_with=replace(SAVED, ranks=8).as_record())
    monkeypatch.setitem(ALL_LAYOUTS, "dcp", other)
    assert misfit(checkpoint.specification, checkpoint.folder) == "its saved_with differs"


@pytest.mark.parametrize("settings", [SAVED, replace(SAVED, threads=2), replace(SAVED, one_file_each_tensor=True)])
def test_a_distributed_checkpoint_is_saved_with_the_settings_that_are_recorded(
    settings: DcpSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dcp, "SAVED", settings)
    state_dict = {name: torch.ones(4) for name in "abc"}
    dcp.save_dcp(state_dict, tmp_path, save_plain)
    files = len(state_dict) if settings.one_file_each_tensor else settings.ranks * settings.threads
    assert len(list((tmp_path / "dcp").glob("*.distcp"))) == files


def test_a_planned_one_has_a_file_for_each_tensor(tmp_path: Path) -> None:
    make_sparse(Specification(REHEARSAL, "float32", "dcp"), tmp_path / "sparse")
    tensors = Specification(REHEARSAL, "float32", "dcp").footprint.tensors
    assert PLANNED.as_record()["single_file_per_rank"] is False
    assert len(list((tmp_path / "sparse" / "dcp").glob("*.distcp"))) == tensors


def test_a_changed_file_is_found(checkpoint: Checkpoint) -> None:
    file = next(file for file in checkpoint.files if file.suffix == ".distcp")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert misfit(checkpoint.specification, checkpoint.folder) == f"{file.name} has changed since it was written"


def test_a_wrong_bit_is_found_by_its_digest(checkpoint: Checkpoint) -> None:
    model = checkpoint.specification.architecture.saved(lambda _: None)
    with torch.no_grad():
        model.get_parameter("final_norm.shift")[3].mul_(-1)
    check_structure(checkpoint, CPU, model)
    with pytest.raises(WrongModel, match=r"^final_norm\.shift differs from what was saved, by its SHA-256"):
        check_model(checkpoint, CPU, model)


def test_digests_are_of_values_whatever_their_place() -> None:
    values = torch.arange(6.0).reshape(2, 3)
    one = TensorDigest.of(values)
    assert TensorDigest.of(values.t().contiguous().t()) == one
    assert TensorDigest.of(values.flatten()) != one
    assert TensorDigest.of(values.to(torch.float64)) != one
    assert TensorDigest.of(-values) != one
    assert TensorDigest.from_json(json.loads(json.dumps(one.as_json()))) == one
    assert TensorDigest.of(torch.empty(0)).sha256.startswith("e3b0c442")
    assert digests({"a": values, "b._extra_state": 3}).keys() == {"a"}


class Kinds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2, bias=False).requires_grad_(requires_grad=False)
        self.register_buffer("mask", torch.ones(3))


def test_a_misfit_of_a_module_is_saved_with_its_parameters_and_buffers(tmp_path: Path) -> None:
    require("tensorizer")
    from tensorizer import TensorDeserializer  # noqa: PLC0415 - of an extra

    model = Kinds()
    for folder, state_dict in (
        ("own", model.state_dict()),
        ("other", dict(model.state_dict()) | {"new": torch.ones(1)}),
    ):
        (tmp_path / folder).mkdir()
        ALL_LAYOUTS["tensorizer"].save_of(model, state_dict, tmp_path / folder, save_plain)
        with TensorDeserializer(tmp_path / folder / "model.tensors", device="cpu") as saved:
            assert {str(name).lstrip(".") for name in saved} == state_dict.keys()
