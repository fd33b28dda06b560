"""Folders of tensors that are not what they should be, or lead elsewhere."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bench.selftest.faults.fault import Fault, Inject

NAME = "final_norm.scale"  # [16]
FILE = f"{NAME}.pt"


def _file(damage: Callable[[Path], object]) -> Inject:
    """Damage one file."""
    return lambda path: damage(path / FILE)


def _instead(place: Callable[[Path], object]) -> Inject:
    """Put something else in place of one file."""

    def inject(path: Path) -> None:
        (path / FILE).unlink()
        place(path / FILE)

    return inject


def _copied_to(name: str) -> Inject:
    """Add a file that is right but for its name."""
    return lambda path: shutil.copyfile(path / FILE, path / name)


def _link(path: Path) -> None:
    """Link to the right values, elsewhere."""
    outside = path.parent / "outside.pt"
    (path / FILE).rename(outside)
    (path / FILE).symlink_to(outside)


def _link_inside(path: Path) -> None:
    (path / FILE).rename(path.parent / "outside.pt")
    (path / FILE).symlink_to(path / "final_norm.shift.pt")


def _socket(path: Path) -> None:
    # Bound by its name alone: paths of sockets must be short.
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(path.name)
    finally:
        os.chdir(before)


def _changed(change: Callable[[Tensor], object]) -> Inject:
    return _file(lambda path: torch.save(change(torch.load(path, weights_only=True)), path))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _file_instead(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"tensors")


_OUT = "stands for a name that leads out of the folder"

FOLDER_FAULTS = {
    "file missing": Fault(_file(Path.unlink), "^is missing: download or copy it again$", NAME),
    "file too many": Fault(_copied_to("stranger.pt"), "belongs to no tensor of the model", "stranger"),
    "file without a suffix": Fault(_copied_to("notes"), "belongs to no tensor of the model", "notes"),
    "name of a folder above": Fault(_copied_to("..%2F..%2Fescape.pt"), _OUT, "../../escape"),
    "absolute name": Fault(_copied_to("%2Fescape.pt"), _OUT, "/escape"),
    "name of the folder above": Fault(_copied_to("...pt"), _OUT, ".."),
    "other spelling of a name": Fault(_copied_to("final%5Fnorm.scale.pt"), f"is another spelling of {FILE}", NAME),
    "name in other case": Fault(
        _copied_to("Final_Norm.scale.pt"), "would be one file with .* where case does not count", "Final_Norm.scale"
    ),
    "name with a line break": Fault(_copied_to("a\nb.pt"), "belongs to no tensor of the model", "a\nb"),
    "symbolic link out": Fault(_link, "is a symbolic link, not a file", NAME),
    "symbolic link within": Fault(_link_inside, "is a symbolic link, not a file", NAME),
    "link to nothing": Fault(_instead(lambda path: path.symlink_to("nothing")), "is a symbolic link", NAME),
    "FIFO": Fault(_instead(os.mkfifo), "is a FIFO, not a file", NAME),
    "socket": Fault(_instead(_socket), "is a socket, not a file", NAME),
    "folder for a file": Fault(_instead(Path.mkdir), "is a folder, not a file", NAME),
    "file for the folder": Fault(_file_instead, "is a file, not a folder"),
    "nothing for the folder": Fault(shutil.rmtree, "^is missing: download or copy it again$"),
    "file empty": Fault(_file(lambda path: path.write_bytes(b"")), "is empty", NAME),
    "file cut": Fault(_file(_cut), "is cut off", NAME),
    "file of another kind": Fault(_file(lambda path: path.write_bytes(b"text" * 99)), "is text that begins with", NAME),
    "row that would broadcast": Fault(_changed(lambda tensor: tensor[:1].clone()), r"has the shape \[1\]", NAME),
    "dtype that would be cast": Fault(_changed(Tensor.half), r"is torch\.float16", NAME),
    "dict in a file": Fault(_changed(lambda tensor: {NAME: tensor}), "is a dict, where the model has a tensor", NAME),
}
