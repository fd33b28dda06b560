"""File names in a folder with one file per tensor."""

from collections.abc import Mapping
from urllib.parse import quote, unquote


def file_name(name: str) -> str:
    """Return the file name of a tensor: legible, and below the folder whatever the tensor's name is."""
    return f"{quote(name, safe='')}.pt"


def tensor_name(file: str) -> str:
    """Return the name of the tensor whose file has this name."""
    return unquote(file.removesuffix(".pt"))


def wrong_name(file: str, files: Mapping[str, str], found: list[str]) -> str:
    """Explain a file name that no tensor of the model has.

    `files` has the names of the model's tensors by their files, `found` the names of all files in the folder.
    """
    name = tensor_name(file)
    if name in files.values():
        return f"is another spelling of {file_name(name)}"
    if same := next(
        (other for other in (*files, *found) if other != file and other.casefold() == file.casefold()), None
    ):
        return f"would be one file with {same} where case does not count"
    if "/" in name or "\\" in name or name in {".", ".."} or name.startswith("../"):
        return "stands for a name that leads out of the folder"
    return "belongs to no tensor of the model"
