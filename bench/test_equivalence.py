"""Promise: what a strategy loads is what was saved, whatever the model; what it cannot load it refuses by name."""

from functools import partial

import pytest

from bench.cases.case import Case
from bench.cases.endings import ending
from bench.cases.judging import judged_seconds, judgement
from bench.cases.unsound import UNTRUSTED, Unsound
from bench.conformance.apart import Apart, judge_apart
from bench.conformance.judge import Outcome
from bench.conformance.sweep import Cell
from bench.conformance.trial import Trial
from bench.meters.process import LoadFailed
from bench.report.conformance import shortened
from bench.report.progress import say, uncaptured

# Of what is wrong with one model.
MOST_LINES = 5


@pytest.mark.real_device
@pytest.mark.own_model
def test_own_equivalence(case: Case, request: pytest.FixtureRequest) -> None:
    """The same of the user's own model, with its weights and its example; of a loader of the user's with any model."""
    with ending(case):
        judged = judgement(case, partial(request.getfixturevalue, "checkpoint"))
        verdict = judge_apart(judged, judged_seconds(case))
    if verdict.outcome == Outcome.REFUSED and case.states_refusal:
        pytest.skip(f"refused: {verdict.why.partition(': ')[2]}; {case.remedy}")
    if verdict.outcome == Outcome.REFUSED and verdict.why.startswith(UNTRUSTED):
        raise Unsound(verdict.why)
    if verdict.outcome != Outcome.PASSED:
        lines = shortened(verdict.why.splitlines(), MOST_LINES)
        if case.own_strategy:
            # Who writes a loader need not wait for what is measured after this.
            with uncaptured(request.config):
                say(request.config, f"{case}: {lines[0]}")
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.mark.real_device
def test_equivalence(trial: Trial, apart: Apart, cells: list[Cell]) -> None:
    """Names, order, dtypes, shapes, strides, bits, ties, gradients, modes, optimizers, second loads, and logits."""
    if reason := trial.why_not or trial.given_up(cells):
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
