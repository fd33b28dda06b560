import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.checkpoints.specification import Specification
from model.gpt2 import REHEARSAL
from model.user.from_options import user_model
from model.user.pretrained_folder import weights_of
from model.user.user_model import UserModel


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Makes a checkpoint of the smallest model there is, in the layout and dtype asked for."""

    def make_one(layout: str = "torch", dtype: str = "float32") -> Checkpoint:
        specification = Specification(REHEARSAL, dtype, layout)
        folder = tmp_path / specification.name
        make(specification, folder, lambda _: None)
        return Checkpoint(specification, folder)

    return make_one


def changed(folder: Path, **entries: Any) -> Path:
    """The folder with other entries in its configuration; None: without them."""
    described = json.loads((folder / "config.json").read_text()) | entries
    kept = {name: value for name, value in described.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def of(folder: Path | str) -> UserModel:
    """The model of a folder of Hugging Face, with the weights in it."""
    return user_model(str(folder), weights_of(str(folder)), None, None)
