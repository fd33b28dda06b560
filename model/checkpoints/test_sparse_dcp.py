from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from model.architecture import RandomGPT2
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make_sparse
from model.checkpoints.manifest import LOGITS
from model.checkpoints.specification import Specification
from model.layouts.layouts import LAYOUTS
from model.weights import Progress

KIB = 2**10


@pytest.fixture
def sparse(tmp_path: Path) -> Checkpoint:
    specification = Specification("small", "bfloat16", "dcp")
    make_sparse(specification, tmp_path / "sparse")
    return Checkpoint(specification, tmp_path / "sparse")


def test_a_sparse_distributed_checkpoint_has_holes_for_bytes(sparse: Checkpoint) -> None:
    state = sparse.specification.footprint.state_bytes
    files = [file for file in sparse.folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) > state
    assert sum(512 * file.stat().st_blocks for file in files) < 16 * KIB * len(files) < state / 50


def test_the_library_reads_the_model_of_a_sparse_checkpoint(sparse: Checkpoint) -> None:
    from torch.distributed.checkpoint.filesystem import FileSystemReader  # noqa: PLC0415 - half a second
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata  # noqa: PLC0415

    metadata = FileSystemReader(sparse.path).read_metadata()
    kinds = metadata.state_dict_metadata
    expected = sparse.specification.architecture.skeleton().state_dict()
    assert {
        name: (kind.size, kind.properties.dtype)
        for name, kind in kinds.items()
        if isinstance(kind, TensorStorageMetadata)
    } == {name: (tensor.shape, tensor.dtype) for name, tensor in expected.items()}
    # Every one is where it says, in a file that has room for it.
    assert {index.fqn for index in metadata.storage_data} == expected.keys()
    for index, place in metadata.storage_data.items():
        size = (sparse.path / place.relative_path).stat().st_size
        assert place.offset + place.length <= size
        assert place.length >= expected[index.fqn].nbytes


Make = Callable[..., Checkpoint]


@pytest.mark.parametrize("layout", [*LAYOUTS, "dcp"])
def test_a_checkpoint_is_known_on_all_machines_by_what_was_saved(
    layout: str, made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(layout, name="first")
    assert first.identity() == made(layout, name="again").identity() is not None

    saved = RandomGPT2.saved

    def changed(architecture: RandomGPT2, progress: Progress) -> nn.Module:
        model = saved(architecture, progress)
        with torch.no_grad():
            model.final_norm.shift[3].mul_(-1)
        return model

    monkeypatch.setattr(RandomGPT2, "saved", changed)
    assert made(layout, name="other").identity() not in {first.identity(), None}


def test_what_another_processor_computes_of_it_does_not_count(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made(name="first")
    outputs = RandomGPT2.outputs
    monkeypatch.setattr(RandomGPT2, "outputs", lambda self, model: [-outputs(self, model)[0]])
    elsewhere = made(name="elsewhere")
    assert (elsewhere.folder / LOGITS).read_bytes() != (first.folder / LOGITS).read_bytes()
    assert elsewhere.identity() == first.identity()


def test_nobody_knows_what_has_no_bytes(sparse: Checkpoint) -> None:
    assert sparse.identity() is None
