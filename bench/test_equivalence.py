"""Loaded weights equal the saved ones, for any model; a strategy refuses by name what it cannot load."""

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
from bench.plugin.progress import uncaptured, write_line
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
                write_line(request.config, f"{case}: {lines[0]}")
        pytest.fail("\n".join(lines), pytrace=False)


@pytest.mark.real_device
def test_equivalence(
    conformance_case: ConformanceCase, isolated_runner: IsolatedRunner, conformance_cells: list[Cell]
) -> None:
    """Compare names, order, dtypes, shapes, strides, bits, ties, gradients, modes, optimizers, reloads, logits."""
    if reason := conformance_case.skip_reason or conformance_case.stop_reason(conformance_cells):
        pytest.skip(reason)
    try:
        cell = conformance_case.cell(isolated_runner, conformance_cells)
    except LoadFailed as error:
        raise pytest.fail.Exception(f"{conformance_case}: {error.message}", pytrace=False) from None
    conformance_cells.append(conformance_case.tolerated(cell))
    if breach := conformance_case.breach(cell):
        pytest.fail(breach, pytrace=False)
