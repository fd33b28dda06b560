"""Check of a loader before the measurements, with the model and the checkpoint of the run."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from bench.conformance.judge import CellStatus, Judgement, judge, judge_own
from bench.conformance.own_model import OwnModel
from bench.measure.case import Case
from bench.measure.load_process import run_load
from bench.meters import kind_of
from bench.strategies import Load
from model.checkpoints.checkpoint import Checkpoint
from model.user.source import Source
from model.verification.verify import WrongModel, check_model

# Of a larger model every bit and its outputs are compared, and nothing else: the rest takes half a dozen copies of it.
MOST_JUDGED_BYTES = 256 * 2**20

# How many models are built, one after the other, to judge a load.
MODELS_BUILT, MODELS_BUILT_FOR_OWN = 8, 3


def judges_whole(case: Case) -> bool:
    """Return whether everything is compared that a model has: of the user's model, unless it is large."""
    return case.user_model is not None and case.specification.footprint.state_bytes <= MOST_JUDGED_BYTES


def judged_seconds(case: Case) -> float:
    """Return what it may take before it is ended."""
    return case.timeout_seconds * (MODELS_BUILT_FOR_OWN if case.user_strategy else MODELS_BUILT)


def judgement(case: Case, checkpoint: Callable[[], Checkpoint]) -> Callable[[], Judgement]:
    """Return what judges a load, in whichever process it is called.

    A loader of the user's loads the checkpoint itself. A strategy of the suite loads a copy of its own: it is tried
    whether an optimizer that steps its model writes to the file.
    """
    load, device = case.strategy.load, kind_of(case.device).torch_device(case.device)
    if not judges_whole(case):
        return partial(_checked, load, checkpoint(), device)
    assert case.user_model
    load = partial(load, **case.specification.keywords)
    if case.user_strategy is None:
        return partial(judge, load, case.strategy.layout, OwnModel(case.user_model), device)
    given = checkpoint()
    source = given.specification.in_place or Source(given.path, given.specification.layout)
    return partial(judge_own, load, replace(case.user_model, source=source), given.path, given.files, device)


def _checked(load: Load, checkpoint: Checkpoint, device: torch.device) -> Judgement:
    try:
        check_model(checkpoint, device, run_load(load, checkpoint, device))
    except WrongModel as error:
        return Judgement(CellStatus.WRONG, str(error))
    return Judgement(CellStatus.PASSED)
