from collections.abc import Callable
from pathlib import Path

import pytest

from model.checkpoints import Checkpoint, Specification, make
from model.gpt2 import REHEARSAL


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Makes a checkpoint of the smallest model there is, in the layout and dtype asked for."""

    def make_one(layout: str = "torch", dtype: str = "float32") -> Checkpoint:
        specification = Specification(REHEARSAL, dtype, layout)
        folder = tmp_path / specification.name
        make(specification, folder, lambda _: None)
        return Checkpoint(specification, folder)

    return make_one
