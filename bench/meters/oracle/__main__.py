"""The command that compares the simulator with PyTorch's own allocators: `python -m bench.meters.oracle --help`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from bench.meters.driver.variables import CARD
from bench.meters.oracle.allocator_variants import named_settings, use
from bench.meters.oracle.argument_types import count
from bench.meters.oracle.forks import ForkFailed, answered, in_fork

# By command: its module, which is imported where it is asked for, and what it holds against each other.
COMMANDS = {
    "loads": "peaks of the suite's loads",
    "operations": "peaks of single operations",
    "steps": "figures after every step of random allocations and frees",
    "pinned": "the same of page-locked memory",
}
PACKAGE = "bench.meters.oracle"


def main(arguments: Sequence[str]) -> int:
    """Return the status: 1 if something differs, 2, after one line, if nothing can be compared."""
    command = arguments[0] if arguments and arguments[0] in COMMANDS else None
    parser = argparse.ArgumentParser(
        prog=f"python -m {PACKAGE}",
        description="Hold the simulator against PyTorch's own allocators.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, meaning in COMMANDS.items():
        one = commands.add_parser(name, help=meaning)
        one.add_argument(
            "--settings",
            nargs="+",
            metavar="CONF",
            help="allocator settings, each as PYTORCH_ALLOC_CONF has them (default: that variable's)",
        )
        one.add_argument("--json", type=Path, metavar="FILE", help="write counts and differences there")
        one.add_argument(
            "--at-once", type=count, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)"
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
    print(f"{options.command}: PyTorch {torch.__version__}, {device}")  # noqa: T201
    groups: list[dict[str, Any]] = []
    for settings in options.settings or [named_settings()]:
        use(settings)
        print(f"allocator settings {settings or 'by default'}")  # noqa: T201
        for group in import_module(f"{PACKAGE}.{options.command}").groups(options):
            print(group, flush=True)  # noqa: T201
            groups.append({"settings": settings, **group.as_json()})
            if options.json:
                # After each group: a run may be ended before its end.
                options.json.write_text(json.dumps(_as_json(options.command, device, groups), indent=1) + "\n")
    result = _as_json(options.command, device, groups)
    print(f"{result['same']:,} the same, {result['different']:,} different, {result['refused']:,} refused")  # noqa: T201
    return 1 if result["different"] else 0


def _as_json(command: str, device: str, groups: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a command as JSON."""
    same, different = (sum(one[name] for one in groups) for name in ("same", "different"))
    return {
        "command": command,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "device": device,
        "same": same,
        "different": different,
        "refused": sum(len(one["refused"]) for one in groups),
        "groups": groups,
    }


def _device() -> str | None:
    """Return the name of the device; None: there is none."""
    if not torch.cuda.is_available():
        return None
    return "stand-in" if CARD in os.environ else torch.cuda.get_device_name()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
