"""The command line: every option in one table, and what they say as values that can be trusted."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bench.cases.case import Case
from bench.strategies import STRATEGIES
from model.checkpoints import DTYPES
from model.gpt2 import SIZES

ALL_SIZES = ("small", "medium", "large", "xl")

OPTIONS = (
    ("--sizes", "small", "LIST", f"GPT-2 sizes: a comma list of {', '.join(SIZES)}; all: the four real ones"),
    ("--device", "auto", "DEVICE", "where the weights must end: cpu, cuda, cuda:N; auto: CUDA if there is one"),
    ("--strategies", "all", "LIST", f"a comma list of {', '.join(STRATEGIES)}; all: those that can run here"),
    ("--dtype", "float32", "DTYPE", f"of the checkpoint: {', '.join(DTYPES)}"),
    ("--checkpoints", None, "FOLDER", "where checkpoints are made and kept (default: a cache folder of this user)"),
)


@dataclass(frozen=True)
class Settings:
    """What is to be measured, and where its checkpoints are kept."""

    sizes: tuple[str, ...]
    strategies: tuple[str, ...]
    device: str
    dtype: str
    checkpoints: Path

    def cases(self) -> list[Case]:
        """Every measurement, size by size."""
        return [Case(strategy, size, self.device, self.dtype) for size in self.sizes for strategy in self.strategies]


def add_options(group: Any) -> None:
    """Give pytest's option group every option of `OPTIONS`."""
    for name, default, metavar, meaning in OPTIONS:
        shown = "" if default is None else f" (default: {default})"
        group.addoption(name, default=default, metavar=metavar, help=meaning + shown)


def settings(options: Any) -> Settings:
    """The options of one run, checked. Raises `ValueError` with one line: what is wrong, and what would be right."""
    return Settings(
        sizes=_names("--sizes", options.sizes, SIZES, ALL_SIZES),
        strategies=_names("--strategies", options.strategies, STRATEGIES, tuple(STRATEGIES)),
        device=_device(options.device),
        dtype=_dtype(options.dtype),
        checkpoints=_checkpoints(options.checkpoints),
    )


def _names(option: str, text: str, known: Collection[str], everything: tuple[str, ...]) -> tuple[str, ...]:
    """The names of a comma list, each once; `all` stands for `everything`."""
    names: dict[str, None] = {}
    for name in (part.strip() for part in text.split(",")):
        if name == "all":
            names |= dict.fromkeys(everything)
        elif name in known:
            names[name] = None
        else:
            raise ValueError(f"{option}: there is no {name!r}; choose from {', '.join((*known, 'all'))}")
    return tuple(names)


def _dtype(text: str) -> str:
    if text not in DTYPES:
        raise ValueError(f"--dtype: there is no {text!r}; choose one of {', '.join(DTYPES)}")
    return text


def _device(text: str) -> str:
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return "cuda" if gpus else "cpu"
    kind, _, index = text.partition(":")
    if text not in ("cpu", "cuda") and not (kind == "cuda" and index.isdecimal()):
        raise ValueError(f"--device: there is no {text!r}; choose from auto, cpu, cuda, cuda:N")
    if kind == "cuda" and not gpus:
        raise ValueError(f"--device {text}: torch {torch.__version__} finds no CUDA device; use --device cpu")
    if index and int(index) >= gpus:
        raise ValueError(f"--device {text}: there are {gpus} CUDA devices, the last is cuda:{gpus - 1}")
    return f"{kind}:{int(index)}" if index else text


def _checkpoints(text: str | None) -> Path:
    if text is None:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weight-loading"
    folder = Path(text)
    if not text or not folder.is_dir():
        raise ValueError(f"--checkpoints: {text!r} is not a folder; name one that exists")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"--checkpoints: {text} cannot be written to; name a folder that can")
    return folder
