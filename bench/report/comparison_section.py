"""The report of a comparison with earlier runs: a table of changes, and notes."""

from collections.abc import Iterator, Sequence
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from bench.history.baselines import Baselines
from bench.history.comparison import Comparison
from bench.history.findings import GAINS, GREW, Finding
from bench.history.fingerprint import MachineDifference, gpus
from bench.history.runs import Change, Key
from bench.history.spread import FEWEST
from bench.meters.allocations import LiveAllocation
from bench.record.field import format_figure, title
from bench.report.alive import alive_lines
from bench.report.text_table import fitting, markdown_table
from bench.report.unseen import UNSEEN_FIGURES, unseen_cells

# Longer lists are for the JSON.
MOST_NAMES = 12

HEADING = ("", "benchmark", "figure", "before", "now", "change", "against")
FIGURES = (3, 4, 5)
# Where the terminal is narrow, what it was held against goes first, then what can be worked out.
SPARE = (6, 3)


class RemarkKind(Enum):
    """The kind of a remark on a comparison, and the prefix of its line."""

    PASSED_OVER = "PASSED OVER: "
    NOT_COMPARED = "NOT COMPARED: "
    VANISHED = "VANISHED: "
    NEW = "NEW: "
    NOT_JUDGED = "NOT JUDGED: "
    GAIN = "GAIN: "
    ACCEPTED = "ACCEPTED: "
    NOT_ACCEPTED = "NOT ACCEPTED: "
    REGRESSION = "REGRESSION: "
    HINT = "  "
    RESULT = ""


class Remark(NamedTuple):
    """A remark on a comparison; `str()` is its line."""

    kind: RemarkKind
    text: str

    def __str__(self) -> str:
        return f"{self.kind.value}{self.text}"


def comparison_title(comparison: Comparison) -> str:
    """Name the runs that it was compared with."""
    baselines = comparison.baselines
    runs = baselines.named or baselines.having({*comparison.records, *comparison.vanished, *comparison.missed})
    if not runs:
        return "compared with nothing"
    last = runs[-1]
    what = ", ".join(filter(None, (f"torch {last.machine.get('torch')}", gpus(last.machine))))
    others = f" and {len(runs) - 1} before it" if len(runs) > 1 else ""
    return f"compared with {last.number} ({', '.join(filter(None, (last.short_commit, what)))}){others}"


def comparison_lines(comparison: Comparison, recorded: Path | None, width: int) -> list[str]:
    """Render changes, in a table of `width` columns if that is possible, then slow-downs that are hidden, and remarks.

    `recorded` is the file of this run, if it has one.
    """
    hidden = unseen_cells(comparison.times.unseen)
    unseen = fitting(hidden, UNSEEN_FIGURES, (), width) if hidden else []
    return [*_table(comparison, width), *unseen, *map(str, remarks(comparison, recorded))]


def comparison_markdown(comparison: Comparison, recorded: Path | None) -> str:
    """Render the same as Markdown, for `$GITHUB_STEP_SUMMARY`."""
    table = markdown_table(_cells(comparison.findings), FIGURES) if comparison.findings else []
    hidden = unseen_cells(comparison.times.unseen)
    unseen = markdown_table(hidden, UNSEEN_FIGURES) if hidden else []
    alive = [
        f"- alive in {one.change.key.title}: {line.strip()}"
        for one in comparison.findings
        if one.verdict == GREW
        for line in _alive(comparison, one)
    ]
    listed = [*alive, *(f"- {str(remark).strip()}" for remark in remarks(comparison, recorded))]
    return "\n".join([f"### {comparison_title(comparison).capitalize()}", "", *table, "", *unseen, "", *listed, "", ""])


def _table(comparison: Comparison, width: int) -> Iterator[str]:
    if not comparison.findings:
        return
    lines = fitting(_cells(comparison.findings), FIGURES, SPARE, width)
    yield lines[0]
    for line, finding in zip(lines[1:], comparison.findings, strict=True):
        yield line
        if finding.verdict == GREW:
            yield from _alive(comparison, finding)


def _cells(findings: list[Finding]) -> list[list[str]]:
    body = [
        [
            finding.verdict,
            change.key.title,
            title(change.figure),
            format_figure(change.figure, change.before),
            format_figure(change.figure, change.after),
            change.percent,
            finding.against,
        ]
        for finding in findings
        if (change := finding.change).figure
    ]
    return [list(HEADING), *body]


def _alive(comparison: Comparison, finding: Finding) -> list[str]:
    """Render the allocations that were alive at the new peak."""
    record = comparison.grown[finding.change.key]
    return alive_lines(
        [LiveAllocation(**held) for held in (record.alive_at_peak or {}).get(finding.change.figure or "", ())]
    )


def remarks(comparison: Comparison, recorded: Path | None) -> Iterator[Remark]:
    """Yield remarks on all that the table of changes does not show, and the result at the end."""
    for line in comparison.passed_over:
        yield Remark(RemarkKind.PASSED_OVER, line)
    if not (comparison.baselines.named or comparison.baselines.runs):
        yield Remark(
            RemarkKind.NOT_COMPARED,
            "no run that passed is recorded yet; later runs are held against this one, if it passes",
        )
        return
    for key, run in comparison.vanished.items():
        new = comparison.renamed.get(key)
        renamed = f"; {new.title} is new and takes the same bytes: renamed, it seems" if new else ""
        accepted = ", and let go" if comparison.accepted else ""
        yield Remark(RemarkKind.VANISHED, f"{_name(key)}, last recorded in {run.number}{accepted}{renamed}")
    yield from _unrecorded(comparison)
    if comparison.missed:
        yield Remark(RemarkKind.NOT_COMPARED, f"skipped or failed: {_names(comparison.missed)}")
    yield from _elsewhere(comparison)
    if comparison.times.waiting:
        least = min(comparison.times.waiting.values())
        yield Remark(
            RemarkKind.NOT_JUDGED,
            f"the times of {_benchmarks(len(comparison.times.waiting))}: it takes {FEWEST} runs on this machine to "
            f"tell their spread, and there {'is' if least == 1 else 'are'} {least}",
        )
    if busy := {change.key for change in comparison.busy}:
        yield Remark(
            RemarkKind.NOT_JUDGED,
            f"the times of {_benchmarks(len(busy))}: beside them the machine's own limit was lower, too",
        )
    yield from _conclusion(comparison, recorded)


def _unrecorded(comparison: Comparison) -> Iterator[Remark]:
    """Remark on benchmarks that are not recorded: one for each other model or loader, and one that names the rest."""
    by_reason: dict[str | None, list[Key]] = {}
    for key in comparison.new:
        by_reason.setdefault(_other(comparison.baselines, key), []).append(key)
    new = by_reason.pop(None, [])
    for reason, keys in by_reason.items():
        which = "" if len(keys) == len(comparison.records) else f"{_benchmarks(len(keys))}: "
        yield Remark(RemarkKind.NOT_COMPARED, f"{which}{reason}")
    if new:
        yield Remark(RemarkKind.NEW, _names(new))


def _other(baselines: Baselines, key: Key) -> str | None:
    """Say which other model or loader the recorded runs are of; None if the benchmark is new."""
    where = f" in {', '.join(run.number for run in baselines.named)}" if baselines.named else ""
    named = [one for one in baselines.keys if one.model == key.model]
    if not named:
        return f"nothing is recorded of {key.model or 'GPT-2'}{where}"
    same = [one for one in named if one.state_digest == key.state_digest]
    if not same and named[-1].state_digest is None:
        return f"what is recorded of {key.model}{where} does not say which state dict it had: older versions wrote it"
    if not same:
        return f"{key.model} was recorded{where} with other names, dtypes, shapes or ties in its state dict"
    alike = [one for one in same if (one[:4], one.cast) == (key[:4], key.cast)]
    if alike and alike[-1].layout != key.layout:
        return f"recorded{where} from a checkpoint in the layout {alike[-1].layout}, and not {key.layout}"
    if alike:
        return f"nothing is recorded of {key.loader}{where}"
    return None


def _elsewhere(comparison: Comparison) -> Iterator[Remark]:
    """Remark on benchmarks that ran on other machines only, by what differs."""
    by_difference: dict[tuple[MachineDifference, ...], list[Key]] = {}
    for key, differing in comparison.elsewhere.items():
        by_difference.setdefault(tuple(differing), []).append(key)
    for what, keys in by_difference.items():
        yield Remark(
            RemarkKind.NOT_COMPARED,
            f"times, host bytes and allocator bytes of {_benchmarks(len(keys))}: recorded on another machine or set-up "
            f"only ({'; '.join(map(str, what))})",
        )
        if torch := next((one for one in what if one.name == "torch"), None):
            version = torch.before.partition("+")[0]
            yield Remark(RemarkKind.HINT, f"both can be measured here, in turn: --versus torch=={version}")


def _conclusion(comparison: Comparison, recorded: Path | None) -> Iterator[Remark]:
    compared = len(comparison.records) - len(comparison.new) - len(comparison.elsewhere)
    if gains := [finding for finding in comparison.findings if finding.verdict in GAINS]:
        where = f"it is in {recorded.name}: keep that file" if recorded else "a run has to pass and to be recorded"
        yield Remark(RemarkKind.GAIN, f"{_figures(len(gains))} better. For later runs to be held against that, {where}")
    worse = changes_in_words(comparison.changes)
    if not comparison.records:
        yield Remark(RemarkKind.RESULT, "Nothing was measured, so nothing was compared")
    elif not worse:
        yield from _all_well(comparison, compared)
    elif comparison.accepted and recorded:
        yield Remark(RemarkKind.ACCEPTED, f"{worse}. Later runs are held against this one")
    elif comparison.accepted:
        yield Remark(RemarkKind.NOT_ACCEPTED, f"{worse}, but this run did not pass, or is not recorded")
    else:
        yield Remark(
            RemarkKind.REGRESSION, f"{worse}. Every run fails until a run with --accept-regressions accepts it"
        )


def _all_well(comparison: Comparison, compared: int) -> Iterator[Remark]:
    if not compared and not comparison.elsewhere:
        if not all(_other(comparison.baselines, key) for key in comparison.new):
            yield Remark(RemarkKind.NOT_COMPARED, "no run that is recorded has one of these benchmarks")
        return
    asked = f", {len(comparison.elsewhere)} in what they ask a device for" if comparison.elsewhere else ""
    slower = ", nothing is slower" if comparison.times.judged else ""
    yield Remark(RemarkKind.RESULT, f"{_benchmarks(compared)} compared{asked}: nothing grew{slower}")


def quiet_line(comparison: Comparison) -> str | None:
    """Return a line on changes for the worse in a run that nobody asked to compare; None without any."""
    if not comparison.changes:
        return None
    return (
        f"{_figures(len(comparison.changes))} worse than recorded: --benchmark-compare says which, and no later run is "
        "held against them"
    )


def changes_in_words(changes: Sequence[Change]) -> str:
    """Count the figures that are worse and the benchmarks that are gone; empty without any."""
    figures = sum(change.figure is not None for change in changes)
    gone = len(changes) - figures
    return " and ".join(
        [*([f"{_figures(figures)} worse"] if figures else []), *([f"{_benchmarks(gone)} gone"] if gone else [])]
    )


def _figures(count: int) -> str:
    return f"{count} figure{' is' if count == 1 else 's are'}"


def _benchmarks(count: int) -> str:
    return f"{count} benchmark{'' if count == 1 else 's'}"


def _name(key: Key) -> str:
    return f"{key.test}[{key.title}]"


def _names(keys: list[Key]) -> str:
    more = f" and {len(keys) - MOST_NAMES} more" if len(keys) > MOST_NAMES else ""
    return ", ".join(_name(key) for key in keys[:MOST_NAMES]) + more
