"""The results of a run, collected from the plugins as data for the report."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.conformance.sweep import Cell
from bench.history.runs import runs_with
from bench.plugin.history_scope import is_of_model
from bench.plugin.regression import RegressionPlugin
from bench.plugin.settings import Settings
from bench.plugin.versus_plugin import Versus
from bench.report.advice.advice import Advice
from bench.report.rows import CaseResult
from bench.report.sections import RunResults


def run_results(  # noqa: PLR0913 - who found it
    chosen: Settings,
    regression: RegressionPlugin,
    versus: Versus | None,
    outcomes: Sequence[CaseResult],
    cells: Sequence[Cell],
    *,
    advice: Advice | None,
    advice_file: Path | None,
    interrupted: str,
) -> RunResults:
    """Return what a run found, and what of it was asked for."""
    history = regression.history
    if history is not None and chosen.own:
        history = runs_with(history, partial(is_of_model, chosen))
    return RunResults(
        title=title(chosen),
        notes=notes(chosen),
        outcomes=outcomes,
        cells=cells,
        explain=chosen.options.explain,
        whole_conformance=chosen.options.conformance,
        stand_in=chosen.stand_in,
        earlier_runs=regression.runs,
        recorded=regression.recorded,
        comparison=regression.comparison,
        compared=regression.requested_comparison is not None,
        history=history,
        history_of=chosen.own.factory.display_name if chosen.own else "",
        passed_over=regression.passed_over,
        versus=versus.result if versus else None,
        advice=advice,
        advice_file=advice_file,
        budget=chosen.budget,
        interrupted=interrupted,
    )


def title(chosen: Settings) -> str:
    """Say what is measured where, in a few words."""
    dtype = f"{chosen.dtype} cast to {chosen.cast}" if chosen.cast else chosen.dtype
    device = f"{chosen.device} (stand-in {chosen.stand_in})" if chosen.stand_in else chosen.device
    if chosen.options.plan:
        return f"{dtype} to {device}, planned"
    times = "" if chosen.real_device in (None, chosen.device) else f", times on {chosen.real_device}"
    return f"{dtype} to {device}{times}, page cache {chosen.options.cache}"


def notes(chosen: Settings) -> list[str]:
    """Return a line for each thing to say of the user's model and checkpoint."""
    if not chosen.own:
        return []
    of_checkpoint = chosen.own.source.note(planned=chosen.options.plan) if chosen.own.source else None
    return [f"{chosen.own.label}: {note}" for note in (*chosen.own.notes, of_checkpoint) if note]
