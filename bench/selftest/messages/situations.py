"""The situations that the tables name, and the message that a command line ends in, without a run of pytest."""

import os
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from functools import partial, reduce
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from bench.meters.driver.variables import CARD
from bench.plugin import preconditions, versus_plugin
from bench.plugin.option import add_options
from bench.plugin.options import OPTIONS, parsed
from bench.plugin.preconditions import require_benchmarks, require_room, require_surroundings
from bench.plugin.rank_groups import rank_prefix
from bench.plugin.regression import comparison_request
from bench.plugin.settings import settings
from bench.plugin.versus_plugin import Versus
from bench.selftest.messages.table import Row
from bench.versus import uv

ROOT = Path(__file__).parents[3]
EMPTY_PROCESS_BYTES = 215 * 2**20
UNOPTIMISED = "Python without assertions"
OWN_TESTS = "pytest without bench"

# What `torchrun --nnodes 2 --nproc-per-node 4` tells the second process of the second node.
TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}
ALONE = TORCHRUN | {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}

Patch = pytest.MonkeyPatch


def _gpus(count: int, patch: Patch, cuda: str | None = None) -> None:
    patch.setattr(torch.version, "cuda", cuda)
    patch.setattr(torch.cuda, "is_available", lambda: count > 0)
    patch.setattr(torch.cuda, "device_count", lambda: count)
    patch.setattr(
        torch.cuda, "get_allocator_backend", lambda: os.environ.get("PYTORCH_ALLOC_CONF", ":native").split(":")[1]
    )


def _environment(values: Mapping[str, str], patch: Patch, gpus: int = 0) -> None:
    _gpus(gpus, patch)
    for name, value in values.items():
        patch.setenv(name, value)


class _NotInstalled:
    """A finder that finds no such package."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(self, name: str, *_: object) -> ModuleSpec | None:
        if name.partition(".")[0] == self._name:
            raise ModuleNotFoundError(f"No module named {self._name!r}", name=self._name)
        return None


def _without(package: str, patch: Patch) -> None:
    _gpus(0, patch)
    for name in [one for one in sys.modules if one.partition(".")[0] == package]:
        patch.delitem(sys.modules, name)
    patch.setattr(sys, "meta_path", [_NotInstalled(package), *sys.meta_path])


def _earlier_transformers(patch: Patch) -> None:
    _gpus(0, patch)
    patch.setitem(sys.modules, "transformers", cast(Any, SimpleNamespace(__version__="4.57.0", __spec__=None)))


def _without_eviction(patch: Patch) -> None:
    _gpus(0, patch)
    patch.delattr(os, "posix_fadvise")


def _without_writing(patch: Patch) -> None:
    _gpus(0, patch)
    patch.setattr(os, "access", lambda *_: False)


def _without_uv(patch: Patch) -> None:
    _gpus(0, patch)
    patch.setattr(uv, "find_spec", lambda _: None)


SITUATIONS: Mapping[str, Callable[[Patch], None]] = {
    "no GPU": partial(_gpus, 0),
    "2 GPUs": partial(_gpus, 2),
    "1 GPU": partial(_gpus, 1),
    "a CUDA build of torch without a GPU": partial(_gpus, 0, cuda="13.0"),
    "a folder that may not be written to": _without_writing,
    UNOPTIMISED: partial(_gpus, 0),
    OWN_TESTS: partial(_gpus, 0),
    "a system that evicts no files": _without_eviction,
    "no uv": _without_uv,
    "a stand-in for 2 GPUs": partial(_environment, {CARD: "name"}, gpus=2),
    "rank 5 of 8, started by torchrun": partial(_environment, TORCHRUN),
    "rank 5 of 8, started by torchrun beside 2 GPUs": partial(_environment, TORCHRUN, gpus=2),
    "the only rank, started by torchrun": partial(_environment, ALONE),
    "RANK without the rest of torchrun's environment": partial(_environment, {"RANK": "0", "WORLD_SIZE": "2"}),
    "RANK and numbers that are none": partial(_environment, TORCHRUN | {"LOCAL_RANK": "first"}),
    "transformers": partial(_gpus, 0),
    "no transformers": partial(_without, "transformers"),
    "transformers 4": _earlier_transformers,
    "no diffusers": partial(_without, "diffusers"),
    "no huggingface_hub": partial(_without, "huggingface_hub"),
}


# Packages that the workshop needs for a situation.
NEEDS = {"transformers": "transformers"}


def _parser() -> ArgumentParser:
    parser = ArgumentParser(add_help=False)
    group = SimpleNamespace(addoption=parser.add_argument)
    add_options(SimpleNamespace(getgroup=lambda *_, **__: group), OPTIONS)
    # Of pytest-benchmark, and of pytest-xdist.
    parser.add_argument("--benchmark-compare", nargs="?", default=False, const=True)
    parser.add_argument("--benchmark-compare-fail", action="append")
    parser.add_argument("--benchmark-json")
    parser.add_argument("-n", dest="dist", default="no")
    return parser


def message(row: Row, folder: Path) -> str:
    """Return the line that the command line of a row ends in, run in a folder; "" if nothing is wrong with it.

    Where the packages that its situation needs are not installed, it is the message of the row.
    """
    if row.situation in NEEDS and not find_spec(NEEDS[row.situation]):
        return row.message
    with pytest.MonkeyPatch.context() as patch:
        # A test of it replaces this.
        patch.setattr(versus_plugin, "require_uv", uv.require_uv)
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path, str(folder)])
        patch.setattr(preconditions, "empty_process_bytes", lambda *_: EMPTY_PROCESS_BYTES)
        SITUATIONS[row.situation](patch)
        words = shlex.split(row.command)
        while "=" in words[0] and not words[0].startswith("-"):
            patch.setenv(*words.pop(0).split("=", 1))
        try:
            _check(words, row.situation)
        except (ValueError, pytest.UsageError) as error:
            return _without_versions(f"{rank_prefix(os.environ)}{error}".replace(f"{folder}/", ""))
    return ""


def _without_versions(text: str) -> str:
    """Return a message with VERSION for those of libraries."""
    versions = [torch.__version__, getattr(sys.modules.get("transformers"), "__version__", None)]
    return reduce(lambda line, version: line.replace(version, "VERSION") if version else line, versions, text)


def _check(arguments: list[str], situation: str) -> None:
    """Do as the run does before it collects: see `pytest_configure` in `bench/plugin/hooks.py`."""
    given = _parser().parse_args(arguments)
    require_surroundings(vars(given), situation == UNOPTIMISED)
    source = pytest.Config.ArgsSource.TESTPATHS if situation == OWN_TESTS else pytest.Config.ArgsSource.ARGS
    config = {"args_source": source, "option": given, "invocation_params": SimpleNamespace(args=arguments)}
    require_benchmarks(cast(Any, SimpleNamespace(**config)))
    options = parsed(given)
    chosen = settings(options)
    comparison_request(options, given)
    if options.versus:
        Versus(cast(Any, SimpleNamespace(rootpath=ROOT)), options, chosen.checkpoints)
    require_room(chosen.budget, chosen.device, min((team.node_count for team in chosen.teams), default=1))
