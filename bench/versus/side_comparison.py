"""Comparison of two sides: times that are slower or faster, peaks that grew or shrank."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist, fmean, median, stdev

from bench.history.student import t_around
from bench.record.record import FIGURES
from bench.versus.interleaved_runs import InterleavedRuns
from bench.versus.run_figures import PEAKS, TIMES, BenchmarkKey, RunFigures

# Of all intervals of a comparison together: in so many comparisons each holds what it is about.
CONFIDENCE = 0.95

# Fewer say nothing of their spread.
FEWEST_ROUNDS = 3

# With as many rounds as are said to decide, a figure is decided so often.
POWER = 0.8
MOST_ROUNDS = 100

SLACK_BYTES = {figure.name: figure.slack(planned=False) for figure in FIGURES}


@dataclass(frozen=True)
class TimeChange:
    """Ratio of the candidate's time to the reference's, its interval, and the verdict.

    `rounds_to_decide`: the number of rounds that would likely decide an `undecided` figure; None: more than
    `MOST_ROUNDS`, or nothing to decide.
    """

    ratio: float
    lowest: float
    highest: float
    verdict: str
    rounds_to_decide: int | None = None


@dataclass(frozen=True)
class ComparedTime:
    """A time of one benchmark: each side's geometric mean in seconds, so that their ratio is that of the change."""

    benchmark: BenchmarkKey
    figure: str
    reference: float
    candidate: float
    change: TimeChange


@dataclass(frozen=True)
class ComparedPeak:
    """A peak of one benchmark: each side's median in bytes. `equal`: as far as such a peak is measured exactly."""

    benchmark: BenchmarkKey
    figure: str
    reference: float
    candidate: float
    equal: bool
    verdict: str


@dataclass(frozen=True)
class SideComparison:
    """Comparison of two sides by name; benchmarks with figures in too few rounds are `unmeasured`."""

    reference: str
    candidate: str
    threshold: float
    rounds: int
    times: tuple[ComparedTime, ...]
    peaks: tuple[ComparedPeak, ...]
    only_reference: tuple[BenchmarkKey, ...]
    only_candidate: tuple[BenchmarkKey, ...]
    unmeasured: tuple[BenchmarkKey, ...]

    @property
    def regressed(self) -> bool:
        """Tell whether the candidate is slower or larger in anything."""
        return any(one.change.verdict == "slower" for one in self.times) or any(
            one.verdict == "grew" for one in self.peaks
        )


def compare_sides(measured: InterleavedRuns, threshold: float, memory_threshold: float) -> SideComparison:
    """Compare two sides; changes up to the thresholds, which are fractions, do not count. Raises `ValueError`.

    See `change_of` and `peak_verdict` for how.
    """
    if len(measured.rounds) < FEWEST_ROUNDS:
        raise ValueError(f"{len(measured.rounds)} rounds say nothing of their spread; make {FEWEST_ROUNDS} or more")
    reference, candidate = (_benchmarks(run) for run in zip(*measured.rounds, strict=True))
    both = [benchmark for benchmark in reference if benchmark in candidate]
    timed = {(one, name): pairs for one in both for name in TIMES if (pairs := _pairs(measured, one, name))}
    enough = {key: pairs for key, pairs in timed.items() if len(pairs) >= FEWEST_ROUNDS}
    return SideComparison(
        reference=measured.reference.name,
        candidate=measured.candidate.name,
        threshold=threshold,
        rounds=len(measured.rounds),
        times=tuple(
            ComparedTime(*key, *_geometric_means(pairs), change_of(pairs, threshold, len(enough)))
            for key, pairs in enough.items()
        ),
        peaks=tuple(peak for benchmark in both for peak in _peaks(measured, benchmark, memory_threshold)),
        only_reference=tuple(one for one in reference if one not in candidate),
        only_candidate=tuple(one for one in candidate if one not in reference),
        unmeasured=tuple(dict.fromkeys(benchmark for benchmark, name in timed if (benchmark, name) not in enough)),
    )


def change_of(pairs: Sequence[tuple[float, float]], threshold: float, figures: int) -> TimeChange:
    """Compute the change of a time from its values on both sides, round by round.

    Student's t for paired differences ("Student", "The Probable Error of a Mean", Biometrika 6 (1908)), taken of the
    logarithms, since noise multiplies times. Pairs leave out what both runs of a round have in common. Of `figures`
    that are looked at together each gets its part of the error (Bonferroni), so that chance alone makes one or more
    of them slower or faster in 5 % of comparisons at most. Slower or faster it is if the interval leaves out 1 and
    the estimate is beyond the threshold; the same if the whole interval is within it. On a scale of ratios a
    threshold of t lies between 1 / (1 + t) and 1 + t: sides that change places change their verdicts.
    """
    logs = [log(candidate / reference) for reference, candidate in pairs]
    middle, spread, edge = fmean(logs), stdev(logs), log(1 + threshold)
    off = _half_width(spread, len(logs), figures)
    verdict, needed = "undecided", None
    if middle - off > 0 and middle > edge:
        verdict = "slower"
    elif middle + off < 0 and middle < -edge:
        verdict = "faster"
    elif max(abs(middle - off), abs(middle + off)) <= edge:
        verdict = "same"
    else:
        needed = _rounds_to_decide(abs(middle), spread, edge, len(logs), figures)
    return TimeChange(exp(middle), exp(middle - off), exp(middle + off), verdict, needed)


def _half_width(spread: float, rounds: int, figures: int) -> float:
    return t_around(1 - (1 - CONFIDENCE) / figures, rounds - 1) * spread / sqrt(rounds)


def _rounds_to_decide(middle: float, spread: float, edge: float, rounds: int, figures: int) -> int | None:
    """Return the number of rounds that would likely decide, if mean and spread are as measured."""
    room = middle if middle > edge else edge - middle
    luck = NormalDist().inv_cdf(POWER) * spread
    for count in range(rounds + 1, MOST_ROUNDS + 1):
        if _half_width(spread, count, figures) + luck / sqrt(count) <= room:
            return count
    return None


def peak_verdict(figure: str, reference: float, candidate: float, threshold: float) -> str:
    """Return the verdict on a peak in bytes: a change counts beyond the threshold and beyond the figure's slack."""
    change = candidate - reference
    if abs(change) <= max(threshold * reference, SLACK_BYTES[figure]):
        return "same"
    return "grew" if change > 0 else "shrank"


def _peaks(measured: InterleavedRuns, benchmark: BenchmarkKey, threshold: float) -> Iterator[ComparedPeak]:
    for figure in PEAKS:
        if pairs := _pairs(measured, benchmark, figure):
            reference, candidate = (median(values) for values in zip(*pairs, strict=True))
            equal = abs(candidate - reference) <= SLACK_BYTES[figure]
            yield ComparedPeak(
                *(benchmark, figure, reference, candidate),
                equal=equal,
                verdict=peak_verdict(figure, reference, candidate, threshold),
            )


def _pairs(measured: InterleavedRuns, benchmark: BenchmarkKey, figure: str) -> list[tuple[float, float]]:
    """Return a figure of both sides, for every round in which both have it."""
    found = [tuple(run.get(benchmark, {}).get(figure) for run in pair) for pair in measured.rounds]
    return [(one, other) for one, other in found if one is not None and other is not None]


def _benchmarks(runs: Iterable[RunFigures]) -> dict[BenchmarkKey, None]:
    return dict.fromkeys(benchmark for run in runs for benchmark in run)


def _geometric_means(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    one, other = (exp(fmean(map(log, values))) for values in zip(*pairs, strict=True))
    return one, other
