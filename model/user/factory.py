"""What `--model` names: a function of the user's, or a configuration of transformers or diffusers."""

from collections.abc import Hashable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from model.examine.trust import one_line
from model.user.pretrained_folder import PretrainedFolder
from model.user.reference import Reference


class Factory(Hashable, Protocol):
    """Where a model of the user's comes from; every process that is given `text` finds the same."""

    @property
    def text(self) -> str:
        """What `factory_of` makes the same of in any working folder."""

    @property
    def name(self) -> str:
        """What tables call the model."""

    @property
    def shown(self) -> str:
        """What messages and records call it: without the folders of a file."""

    @property
    def folder(self) -> Path | None:
        """Where its file is; None of installed modules."""

    @property
    def files(self) -> list[Path]:
        """The files that decide what it makes."""

    def running(self) -> AbstractContextManager[None]:
        """Have its code run, in a block, in the surroundings that it expects."""

    def without_arguments(self) -> Any:
        """The function, which can be called without arguments. Raises `ValueError`, in a line, if there is none."""

    def get(self) -> Any:
        """The function. Raises `ValueError`, in a line, if there is none."""


def factory_of(text: str) -> Factory:
    """The factory of this name. Raises `ValueError`, in a line, if it is neither a function's nor that of a folder."""
    if found := PretrainedFolder.of(text):
        return found
    if ":" not in text:
        raise ValueError(
            f"{one_line(repr(text))} names nothing; write package.module:function or file.py:function, or the folder "
            f"of a Hugging Face model"
        )
    return Reference.of(text)
