"""The suite's loads: the peaks that PyTorch's own allocators tell, beside those that are simulated."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

import bench.meters.warm  # noqa: F401 - once, and not in every fork
from bench.measure.case import Case
from bench.measure.load_process import run_load
from bench.meters import device_meter
from bench.meters.oracle.agreement import CaseGroup, Figures, group
from bench.meters.oracle.argument_types import names
from bench.meters.oracle.forks import answered, in_fork, in_forks
from bench.meters.oracle.measured import measured
from bench.meters.oracle.unread import unfilled, unread
from bench.strategies import STRATEGIES
from model.architecture import DTYPES
from model.checkpoints.cache import CheckpointCache, cache_folder
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make_sparse
from model.checkpoints.specification import Specification
from model.gpt2 import SIZES

GetCheckpoint = Callable[[Specification], Checkpoint]


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--sizes", type=partial(names, known=SIZES), default=["tiny", "small"])
    parser.add_argument("--strategies", type=partial(names, known=STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="that of the checkpoints")
    parser.add_argument("--cast", choices=DTYPES, default="", help="the dtype that weights end in")
    parser.add_argument("--checkpoint-dir", type=Path, default=cache_folder(), help="where they are kept")
    parser.add_argument(
        "--sparse",
        action="store_true",
        help="checkpoints without bytes, beside plans of their loads: for devices that keep no bytes",
    )


def groups(options: Namespace) -> Iterator[CaseGroup]:
    """Compare a load in each group: all strategies of each size."""
    with TemporaryDirectory(prefix="oracle-") as folder, closing(_shelf(options.checkpoints)) as shelf:
        made = partial(_made, shelf)
        get = partial(_sparse, Path(folder)) if options.sparse else made
        for size in options.sizes:
            cases = {name: Case(name, size, "cuda", options.dtype, cast=options.cast) for name in options.strategies}
            files = {name: (get(case.specification), made(case.rehearsal)) for name, case in cases.items()}

            calls = [
                partial(_figures_of, replace(case, device=device), *files[name], sparse=options.sparse)
                for name, case in cases.items()
                for device in ("cuda", "sim")
            ]
            answers = in_forks(calls, options.at_once)
            for name in cases:
                yield group(f"{size} {name}", "loads", [(name, next(answers), next(answers))])


def _figures_of(case: Case, checkpoint: Checkpoint, rehearsal: Checkpoint, *, sparse: bool) -> Figures:
    planned = sparse and case.device == "sim"
    meter = device_meter(case.device, case.strategy.source, planned=planned)
    load, empty = case.strategy.load, sparse and not planned

    def loaded(on: torch.device) -> nn.Module:
        with unread() if empty else nullcontext():
            return run_load(load, checkpoint, on, unfilled if empty else None)

    return measured(meter, lambda on: run_load(load, rehearsal, on), loaded)


def _shelf(folder: Path) -> CheckpointCache:
    return CheckpointCache(folder, print, lambda *_: nullcontext(lambda _: None))


def _made(shelf: CheckpointCache, specification: Specification) -> Checkpoint:
    """Return a checkpoint with bytes, made in a fork: threads that made it here would be missing in every fork."""
    answered(in_fork(lambda: _shelf(shelf.folder).get(specification).folder))
    return shelf.get(specification)


def _sparse(folder: Path, specification: Specification) -> Checkpoint:
    """Return a checkpoint without bytes, made in a fork, since that begins CUDA."""
    checkpoint = Checkpoint(specification, folder / specification.name)
    if not checkpoint.folder.exists():
        answered(in_fork(partial(make_sparse, specification, checkpoint.folder)))
    return checkpoint
