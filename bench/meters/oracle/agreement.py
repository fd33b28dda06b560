"""The verdict of a comparison: what is the same, what differs, and what the simulator refuses by name."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeGuard

from bench.meters.oracle.forks import CallFailed
from bench.meters.simulated.simulated_device import NotSimulated

# Bytes and the like, by name.
Figures = Mapping[str, int | None]
# The figures of one of the two, or its failure.
Answer = Figures | CallFailed


@dataclass(frozen=True)
class OracleDifference:
    """A disagreement of real and simulated: what the two tell where they differ, and the steps that lead there."""

    what: str
    real: Answer
    simulated: Answer
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        after = "".join(f"\n    {step}" for step in self.steps)
        line = f"{self.what}: {_format_difference(self.real, self.simulated)}"
        return f"{line}; after:{after}" if after else line

    def as_json(self) -> dict[str, Any]:
        """Return the difference without the texts of errors, which may hold paths."""
        both = {name: _plain(answer) for name, answer in (("real", self.real), ("simulated", self.simulated))}
        return {"what": self.what, **both, "steps": self.steps}


@dataclass(frozen=True)
class RefusedCase:
    """A load or an operation that the simulator does not do, and says so."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True)
class CaseGroup:
    """Comparisons of one kind, counted in `unit`; of many differences a few are kept, of each kind one.

    `figures` are those of the real one, where a single thing is compared and does not differ.
    """

    name: str
    unit: str
    compared: int
    different: int = 0
    differences: tuple[OracleDifference, ...] = ()
    refusals: tuple[RefusedCase, ...] = ()
    figures: Figures = field(default_factory=dict)

    @property
    def same(self) -> int:
        return self.compared - self.different - len(self.refusals)

    def __str__(self) -> str:
        verdict = "DIFFERENT" if self.different else "refused" if self.refusals else "same"
        counts = f"{self.same:,} of {self.compared:,} {self.unit} the same"
        lines = [f"{verdict:10}{self.name}: {_format_answer(self.figures) or counts}"]
        lines += [f"  different {one}" for one in self.differences] + [f"  refused {one}" for one in self.refusals]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        counts = {"compared": self.compared, "same": self.same, "different": self.different}
        return {
            "name": self.name,
            "unit": self.unit,
            **counts,
            "told": dict(self.figures),
            "refused": [asdict(one) for one in self.refusals],
            "differences": [one.as_json() for one in self.differences],
        }


def group(name: str, unit: str, answers: Iterable[tuple[str, Answer, Answer]]) -> CaseGroup:
    """Compare what real and simulated tell of things. A real allocator that fails is a difference, whatever for."""
    compared, differences, refusals = 0, [], []
    real: Answer = {}
    for what, real, simulated in answers:
        compared += 1
        if _is_refused(simulated) and not isinstance(real, CallFailed):
            refusals.append(RefusedCase(what, simulated.message))
        elif isinstance(real, CallFailed) or isinstance(simulated, CallFailed):
            differences.append(OracleDifference(what, real, simulated))
        elif real != simulated:
            differences.append(OracleDifference(what, *where_different(real, simulated)))
    figures = real if compared == 1 and not differences and not isinstance(real, CallFailed) else {}
    return CaseGroup(name, unit, compared, len(differences), tuple(differences), tuple(refusals), figures)


def where_different(real: Figures, simulated: Figures) -> tuple[Figures, Figures]:
    """Return the figures of both that differ."""
    names = [name for name in {**real, **simulated} if real.get(name) != simulated.get(name)]
    return {name: real.get(name) for name in names}, {name: simulated.get(name) for name in names}


def _is_refused(answer: Answer) -> TypeGuard[CallFailed]:
    return isinstance(answer, CallFailed) and answer.kind == NotSimulated.__name__


def _plain(answer: Answer) -> dict[str, Any]:
    return {"error": answer.kind} if isinstance(answer, CallFailed) else dict(answer)


def _format_difference(real: Answer, simulated: Answer) -> str:
    """Figure by figure, where both have figures."""
    if isinstance(real, CallFailed) or isinstance(simulated, CallFailed):
        return f"real {_format_answer(real)}; simulated {_format_answer(simulated)}"
    both = {name: (_format_number(real[name]), _format_number(simulated[name])) for name in real}
    return "; ".join(f"{name}: real {one}, simulated {other}" for name, (one, other) in both.items())


def _format_answer(answer: Answer) -> str:
    if isinstance(answer, CallFailed):
        return str(answer)
    return ", ".join(f"{name} {_format_number(value)}" for name, value in answer.items())


def _format_number(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"
