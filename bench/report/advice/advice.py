"""The advice of a run with a memory budget: a paragraph, a command that checks it, and code to paste."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from bench.measure.case import Case
from bench.meters.budget import Budget
from bench.meters.measure import Measurement
from bench.record.row_key import RowKey
from bench.report.advice.command import Typed, check_of, check_of_cast, check_of_ranks, without_places
from bench.report.advice.fitting import sentences, to_use
from bench.report.advice.left import left_free
from bench.report.advice.rank_remedies import of_ranks
from bench.report.advice.remedies import Remedies, of_one_process
from bench.report.advice.usage import usage
from bench.report.rows import Row
from bench.sharded.recipes import SHARDED
from bench.sharded.sharded_case import ShardedCase
from bench.strategies import STRATEGIES
from bench.strategies.inline_recipe import pasteable

Plan = Callable[[Case], Measurement]


@dataclass(frozen=True)
class Advice:
    """An advice: its strategy (None: no strategy fits), a paragraph, and a line for each remedy where none fits.

    `command` checks the advice where the model is to be loaded; "": there is nothing to check. `recorded_command` is
    the same without where files are. `usage` are the lines that use the strategy's code. `of_ranks`: many processes
    load together, and the strategy is one of theirs.
    """

    strategy: str | None
    paragraph: str
    remedies: tuple[str, ...] = ()
    command: str = ""
    recorded_command: str = ""
    usage: tuple[str, ...] = ()
    of_ranks: bool = False

    @property
    def code_file(self) -> str:
        """The name of the file with the strategy's code."""
        return f"load_{self.strategy}.py"

    def code(self) -> str | None:
        """Return a module to be pasted; None if the strategy is the user's own, or there is none."""
        strategy = (SHARDED if self.of_ranks else STRATEGIES).get(self.strategy or "")
        return pasteable(strategy) if strategy else None

    def recorded(self) -> "Advice":
        """Return the advice as it is recorded: it says nothing of where files are on this machine."""
        return replace(self, command=self.recorded_command)

    def lines(self, code_file: str = "") -> list[str]:
        """Return all of it; `code_file` is where the code lies, by default the name of its file.

        What begins with four blanks is to be copied, and is not to be wrapped.
        """
        lines = [self.paragraph, *(f"  {remedy}" for remedy in self.remedies)]
        if self.command:
            lines += ["Check it:", f"    {self.command}"]
        if code := self.code():
            count = len(code.splitlines())
            lines += [
                f"Its code needs torch and the standard library only: {code_file or self.code_file}, {count} lines"
            ]
            lines += [f"    {line}".rstrip() for line in self.usage]
        return lines


def advised(
    table: Sequence[Row], cases: Sequence[Case], plan: Plan, budget: Budget, typed: Typed | None = None
) -> Advice | None:
    """Return advice for the largest model whose loads were tried under a budget; None if none was.

    `cases` are those of the run, and `plan` says what a load would take that there is not. `typed` are the options of
    the run.
    """
    tried = [row for row in table if row.record.fits is not None or _cannot_fit(row, budget)]
    if not tried:
        return None
    largest = max(row.record.state_bytes for row in tried)
    tried = [row for row in tried if row.record.state_bytes == largest]
    known: dict[RowKey, Case] = {}
    # First the loads on the device that the advice is about: the user's model was tested elsewhere before.
    for case in sorted(cases, key=lambda case: case.device != tried[0].record.device):
        if case.size == tried[0].size and not case.row_key.roofline:
            known.setdefault(case.row_key, case)
    fitting = [row for row in tried if row.record.fits and not (row.has_failed or row.was_refused)]
    if fitting:
        return _one_that_fits(fitting, tried, known, typed or {})
    return _what_would(tried, known, plan, budget, typed or {})


def _cannot_fit(row: Row, budget: Budget) -> bool:
    """Return True if the weights alone are more than the device has: such a load needs no trial."""
    if budget.device_bytes is None or row.key.parallelism or row.record.strategy is None:
        return False
    state: int = row.record.state_bytes
    return state > budget.device_bytes


def _one_that_fits(fitting: Sequence[Row], tried: Sequence[Row], known: Mapping[RowKey, Case], typed: Typed) -> Advice:
    best, *equal = to_use(fitting)
    case = known.get(best.key)
    said = list(sentences(best, equal, fitting, tried))
    # Which one, what it takes, and then what it leaves.
    said[2:2] = left_free(best, case)
    return Advice(
        best.key.strategy,
        " ".join(said),
        command=check_of(best, typed),
        recorded_command=check_of(best, without_places(typed)),
        usage=tuple(usage(best, case)),
        of_ranks=bool(best.key.parallelism),
    )


def _what_would(tried: Sequence[Row], known: Mapping[RowKey, Case], plan: Plan, budget: Budget, typed: Typed) -> Advice:
    sharded = [case for case in known.values() if isinstance(case, ShardedCase)]
    found: Remedies = (
        of_ranks(tried, sharded, budget)
        if tried[0].key.parallelism
        else of_one_process(tried[0].size, {key.strategy: case for key, case in known.items()}, plan, budget)
    )
    command, recorded = (_check_of_remedy(tried[0], found, options) for options in (typed, without_places(typed)))
    return Advice(None, found.paragraph, found.lines, command, recorded)


def _check_of_remedy(tried: Row, found: Remedies, typed: Typed) -> str:
    """Return the command that checks the first remedy that fits; "": none of them can be checked."""
    if found.cast:
        return check_of_cast(tried, *found.cast, typed)
    return check_of_ranks(tried, found.ranks, typed) if found.ranks else ""
