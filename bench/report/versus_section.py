"""Report of `--versus`: a table for a terminal of any width, and as Markdown."""

from collections.abc import Iterator, Sequence
from math import floor, log10

from bench.record.field import title
from bench.record.formats import percent
from bench.record.record import SECONDS
from bench.report.text_table import aligned, markdown_table
from bench.versus.run_figures import PEAKS, BenchmarkKey
from bench.versus.side_comparison import CONFIDENCE, MOST_ROUNDS, ComparedPeak, ComparedTime, SideComparison, TimeChange
from model.byte_sizes import MIB

# The column that says what was measured, and what it is called where the terminal is narrow.
TITLES = {one.name: (f"{one.title} s", one.column.heading) for one in SECONDS if one.column} | {
    name: (title(name), title(name).removesuffix(" peak")) for name in PEAKS
}

HEADING = ("benchmark", "figure", "reference", "candidate", "change", "95 % interval", "verdict")
FIGURES = (2, 3, 4, 5)

# One after the other until the table fits: whether figures have their long names, and which columns are left out.
NARROWER: tuple[tuple[bool, tuple[str, ...]], ...] = (
    (True, ()),
    (False, ()),
    (True, ("reference", "candidate")),
    (False, ("reference", "candidate")),
    (False, ("reference", "candidate", "change")),
    (False, ("reference", "candidate", "95 % interval")),
)


def versus_lines(result: SideComparison, width: int) -> list[str]:
    """Render the table in `width` columns if that is possible, then remarks and a summary."""
    lines: list[str] = []
    for whole, left_out in NARROWER:
        cells = _cells(result, left_out, whole=whole)
        figures = [place for place, name in enumerate(cells[0]) if HEADING.index(name) in FIGURES]
        lines = aligned(cells, figures) if len(cells) > 1 else []
        if max(map(len, lines), default=0) <= width:
            break
    return [*lines, *_remarks(result)]


def versus_markdown(result: SideComparison) -> str:
    """Render the same as Markdown, for `$GITHUB_STEP_SUMMARY`."""
    cells = _cells(result, (), whole=True)
    table = markdown_table(cells, FIGURES) if len(cells) > 1 else []
    return "\n".join([*table, "", *(f"{line}\n" for line in _remarks(result))])


def _cells(result: SideComparison, left_out: Sequence[str], *, whole: bool) -> list[list[str]]:
    """Heading and rows: every time, and the peaks that differ."""
    rows = [HEADING, *(_time_row(one) for one in result.times), *(_peak_row(one) for one in _differing(result))]
    kept = [place for place, name in enumerate(HEADING) if name not in left_out]
    named = [rows[0], *((row[0], TITLES[row[1]][not whole], *row[2:]) for row in rows[1:])]
    return [[row[place] for place in kept] for row in named]


def _time_row(time: ComparedTime) -> tuple[str, ...]:
    change = time.change
    between = f"{percent(change.lowest - 1)} to {percent(change.highest - 1)}"
    seconds = (_seconds(time.reference), _seconds(time.candidate))
    return time.benchmark.name, time.figure, *seconds, percent(change.ratio - 1), between, change.verdict


def _peak_row(peak: ComparedPeak) -> tuple[str, ...]:
    sizes = (f"{peak.reference:,.0f}", f"{peak.candidate:,.0f}")
    return peak.benchmark.name, peak.figure, *sizes, _bytes_changed(peak), "-", peak.verdict


def _bytes_changed(peak: ComparedPeak) -> str:
    """Write a change as a fraction, or in bytes if that rounds to none, or is of nothing."""
    if peak.reference and abs(peak.candidate / peak.reference - 1) >= 0.001:  # noqa: PLR2004 - what `percent` shows
        return percent(peak.candidate / peak.reference - 1)
    changed = peak.candidate - peak.reference
    return f"{changed / MIB:+,.1f} MiB" if abs(changed) >= MIB else f"{changed:+,.0f} B"


def _seconds(seconds: float) -> str:
    """Three digits."""
    return f"{seconds:.{max(0, 2 - floor(log10(seconds)))}f}"


def _differing(result: SideComparison) -> list[ComparedPeak]:
    return [peak for peak in result.peaks if not peak.equal or peak.verdict != "same"]


def _remarks(result: SideComparison) -> Iterator[str]:
    yield from _equal_peaks(result)
    for benchmarks, what in (
        (result.only_reference, f"only {result.reference} has"),
        (result.only_candidate, f"only {result.candidate} has"),
        (result.unmeasured, "measured in too few rounds:"),
    ):
        if benchmarks:
            yield f"{what} {', '.join(map(_whole_name, benchmarks))}"
    yield from _undecided([one.change for one in result.times if one.change.verdict == "undecided"])
    yield _summary(result)


def _equal_peaks(result: SideComparison) -> Iterator[str]:
    if equal := len(result.peaks) - len(_differing(result)):
        yield f"{equal} of {len(result.peaks)} byte figures are equal, the host's but for 4 MiB"


def _whole_name(benchmark: BenchmarkKey) -> str:
    """Return a name that no other benchmark of the run has."""
    test = benchmark.fullname.rpartition("::")[2]
    plan = "planned" if benchmark.planned else None
    to = f"cast to {benchmark.cast}" if benchmark.cast else None
    return f"{test} ({', '.join(filter(None, (benchmark.dtype, to, benchmark.cache, plan)))})".removesuffix(" ()")


def _undecided(changes: Sequence[TimeChange]) -> Iterator[str]:
    if not changes:
        return
    needed = [change.rounds_to_decide for change in changes if change.rounds_to_decide is not None]
    parts = []
    if needed:
        parts.append(f"{max(needed)} rounds would likely decide {len(needed)} of them")
    if more := len(changes) - len(needed):
        parts.append(f"{more} would take more than {MOST_ROUNDS}")
    yield f"{len(changes)} undecided: {', '.join(parts)}"


def _summary(result: SideComparison) -> str:
    times = [one.change.verdict for one in result.times]
    peaks = [one.verdict for one in result.peaks]
    if not times and not peaks:
        return f"{result.candidate} and {result.reference} have no figure in common: nothing could be compared"
    found = [
        f"{word} in {count} of {len(verdicts)} {what}"
        for word, verdict, verdicts, what in (
            ("slower", "slower", times, "times"),
            ("faster", "faster", times, "times"),
            (f"the same within {100 * result.threshold:.0f} %", "same", times, "times"),
            ("larger", "grew", peaks, "byte figures"),
            ("smaller", "shrank", peaks, "byte figures"),
        )
        if (count := verdicts.count(verdict))
    ]
    words = ", ".join(found) or "not found to differ"
    sure = f" ({result.rounds} rounds, {100 * CONFIDENCE:.0f} % confidence in all times together)" if times else ""
    return f"Beside {result.reference}, {result.candidate} is {words}{sure}"
