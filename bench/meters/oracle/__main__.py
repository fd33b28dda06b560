"""Holds the simulator against PyTorch's own allocators: `python -m bench.meters.oracle --help`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from bench.meters.oracle.forks import ForkFailed, answered, in_fork
from bench.meters.oracle.verdict import Group

# By command: its module, which is imported where it is asked for, and what it holds against each other.
COMMANDS = {
    "loads": "peaks of the suite's loads",
    "operations": "peaks of single operations",
    "steps": "figures after every step of random allocations and frees",
    "pinned": "the same of page-locked memory",
}
PACKAGE = "bench.meters.oracle"


def main(arguments: Sequence[str]) -> int:
    """The status: 1 where something differs. What cannot be compared ends with one line and status 2."""
    command = arguments[0] if arguments and arguments[0] in COMMANDS else None
    parser = argparse.ArgumentParser(
        prog=f"python -m {PACKAGE}",
        description="Hold the simulator against PyTorch's own allocators. Their settings are those of "
        "PYTORCH_ALLOC_CONF.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, told in COMMANDS.items():
        one = commands.add_parser(name, help=told)
        one.add_argument("--json", type=Path, metavar="FILE", help="write counts and differences there")
        one.add_argument(
            "--at-once", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)"
        )
        if name == command:
            import_module(f"{PACKAGE}.{name}").add_options(one)
    options = parser.parse_args(arguments)
    try:
        return _compared(options)
    except (ValueError, ForkFailed) as error:
        parser.error(str(error))


def _compared(options: argparse.Namespace) -> int:
    # In a fork, since to ask begins CUDA.
    device = answered(in_fork(_device))
    if device is None:
        raise ValueError(
            f"PyTorch {torch.__version__} finds no CUDA device: run it where there is a GPU, or on the stand-in"
        )
    settings = os.environ.get("PYTORCH_CUDA_ALLOC_CONF", os.environ.get("PYTORCH_ALLOC_CONF", ""))
    print(f"{options.command}: PyTorch {torch.__version__}, {device}, {settings or 'default settings'}")  # noqa: T201
    groups: list[Group] = []
    for group in import_module(f"{PACKAGE}.{options.command}").groups(options):
        print(group, flush=True)  # noqa: T201
        groups.append(group)
    same, different, refused = (
        sum(values) for values in zip(*((one.same, one.different, len(one.refusals)) for one in groups), strict=True)
    )
    print(f"{same:,} the same, {different:,} different, {refused:,} refused")  # noqa: T201
    if options.json:
        told = {
            "command": options.command,
            "torch": torch.__version__,
            "cuda": torch.version.cuda,
            "device": device,
            "settings": settings,
            "same": same,
            "different": different,
            "refused": refused,
            "groups": [one.as_json() for one in groups],
        }
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 1 if different else 0


def _device() -> str | None:
    """The name of the device; None: there is none."""
    if not torch.cuda.is_available():
        return None
    return "stand-in" if os.environ.get("WEIGHT_LOADING_STAND_IN") else torch.cuda.get_device_name()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
