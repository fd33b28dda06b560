"""Promise: what a strategy loads is what was saved, whatever the model; what it cannot load it refuses by name."""

from functools import partial

import pytest

from bench.conformance.conformance_case import ConformanceCase
from bench.conformance.isolated_runner import IsolatedRunner, judge_isolated
from bench.conformance.judge import CellStatus
from bench.conformance.sweep import Cell
from bench.measure.case import Case
from bench.measure.judging import judged_seconds, judgement
from bench.measure.refusals import remedy, states_refusal
from bench.meters.process import LoadFailed
from bench.plugin.failures import failures_reported
from bench.plugin.progress import say, uncaptured
from bench.plugin.unusable_checkpoints import UNTRUSTED, CheckpointUnusable
from bench.report.conformance import shortened

# Of what is wrong with one model.
MOST_LINES = 5


@pytest.mark.real_device
@pytest.mark.own_model
def test_own_equivalence(case: Case, request: pytest.FixtureRequest) -> None:
    """Test the user's own model, with its weights and its example, or any model with a loader of the user's."""
    with failures_reported(case):
        judged = judgement(case, partial(request.getfixturevalue, "checkpoint"))
        verdict = judge_isolated(judged, judged_seconds(case))
    if verdict.outcome == CellStatus.REFUSED and states_refusal(case):
        pytest.skip(f"refused: {verdict.why.partition(': ')[2]}; {remedy(case)}")
    if verdict.outcome == CellStatus.REFUSED and verdict.why.startswith(UNTRUSTED):
        raise CheckpointUnusable(verdict.why)
    if verdict.outcome != CellStatus.PASSED:
        lines = shortened(verdict.why.splitlines(), MOST_LINES)
        if case.user_strategy:
            # Who writes a loader need not wait for what is measured after this.
            with uncaptured(request.config):
                say(request.config, f"{case}: {lines[0]}")
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.mark.real_device
def test_equivalence(trial: ConformanceCase, apart: IsolatedRunner, cells: list[Cell]) -> None:
    """Names, order, dtypes, shapes, strides, bits, ties, gradients, modes, optimizers, second loads, and logits."""
    if reason := trial.skip_reason or trial.given_up(cells):
        pytest.skip(reason)
    try:
        # What is not the suite's own may do anything to its process.
        asked = trial.strategy, trial.property_name, trial.device
        cell = trial.cell() if trial.strategy.is_stated else apart.cell(*asked, shrinks=trial.shrinks(cells))
    except LoadFailed as error:
        raise pytest.fail.Exception(f"{trial}: {error.told}", pytrace=False) from None
    cells.append(trial.tolerated(cell))
    if breach := trial.breach(cell):
        pytest.fail(breach, pytrace=False)
