import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.checkpoints.manifest import misfit
from model.checkpoints.specification import Specification
from model.gpt2 import REHEARSAL
from model.user.from_options import user_model
from model.user.pretrained_folder import weights_of
from model.user.user_model import UserModel


def make_checkpoint(specification: Specification, folder: Path) -> Checkpoint:
    """Make a checkpoint in a new folder."""
    make(specification, folder, lambda _: None)
    assert misfit(specification, folder) is None
    return Checkpoint(specification, folder)


def of_user_model(model: UserModel, folder: Path, layout: str = "torch") -> Checkpoint:
    """Make a checkpoint of a user's model in a folder below another."""
    specification = Specification(model.label, model.dtype, layout, model)
    return make_checkpoint(specification, folder / specification.name)


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Checkpoint]:
    """Makes a checkpoint of the smallest model there is, in a layout and a dtype."""

    def make_one(layout: str = "torch", dtype: str = "float32", name: str = "made") -> Checkpoint:
        return make_checkpoint(Specification(REHEARSAL, dtype, layout), tmp_path / name)

    return make_one


def refusal(call: Callable[..., object], *arguments: Any, **options: Any) -> str:
    """Return the one line of the `ValueError` that a call raises."""
    with pytest.raises(ValueError, match=r".") as caught:
        call(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(folder: Path, **entries: Any) -> Path:
    """Change entries of a configuration in a folder, and return the folder; None removes an entry."""
    described = json.loads((folder / "config.json").read_text()) | entries
    kept = {name: value for name, value in described.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def of(folder: Path | str) -> UserModel:
    """Return the model of a folder of Hugging Face, with the weights in it."""
    return user_model(str(folder), weights_of(str(folder)))
