"""The verdict of a comparison: what is the same, what differs, and what the simulator refuses by name."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeGuard

from bench.meters.oracle.forks import Failed
from bench.meters.simulated.simulated_device import NotSimulated

# Bytes and the like, by name.
Figures = Mapping[str, int | None]
# What one of the two tells of a thing, or that it failed.
Answer = Figures | Failed


@dataclass(frozen=True)
class OracleDifference:
    """A disagreement of real and simulated: what the two tell where they differ, and the steps that lead there."""

    what: str
    real: Answer
    simulated: Answer
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        after = "".join(f"\n    {step}" for step in self.steps)
        told = f"{self.what}: {_shown(self.real, self.simulated)}"
        return f"{told}; after:{after}" if after else told

    def as_json(self) -> dict[str, Any]:
        """The same without the texts of errors, which may hold paths."""
        both = {name: _plain(answer) for name, answer in (("real", self.real), ("simulated", self.simulated))}
        return {"what": self.what, **both, "steps": self.steps}


@dataclass(frozen=True)
class Refusal:
    """A load or an operation that the simulator does not do, and says so."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True)
class CaseGroup:
    """Comparisons of one kind, counted in `unit`; of many differences a few are kept, of each kind one.

    `told` is what the real one tells, where a single thing is compared and does not differ.
    """

    name: str
    unit: str
    compared: int
    different: int = 0
    differences: tuple[OracleDifference, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    told: Figures = field(default_factory=dict)

    @property
    def same(self) -> int:
        return self.compared - self.different - len(self.refusals)

    def __str__(self) -> str:
        verdict = "DIFFERENT" if self.different else "refused" if self.refusals else "same"
        counts = f"{self.same:,} of {self.compared:,} {self.unit} the same"
        lines = [f"{verdict:10}{self.name}: {_in_a_line(self.told) or counts}"]
        lines += [f"  different {one}" for one in self.differences] + [f"  refused {one}" for one in self.refusals]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        counts = {"compared": self.compared, "same": self.same, "different": self.different}
        return {
            "name": self.name,
            "unit": self.unit,
            **counts,
            "told": dict(self.told),
            "refused": [asdict(one) for one in self.refusals],
            "differences": [one.as_json() for one in self.differences],
        }


def group(name: str, unit: str, answers: Iterable[tuple[str, Answer, Answer]]) -> CaseGroup:
    """Compare what real and simulated tell of things. A real allocator that fails is a difference, whatever for."""
    compared, differences, refusals = 0, [], []
    real: Answer = {}
    for what, real, simulated in answers:
        compared += 1
        if _is_refused(simulated) and not isinstance(real, Failed):
            refusals.append(Refusal(what, simulated.told))
        elif isinstance(real, Failed) or isinstance(simulated, Failed):
            differences.append(OracleDifference(what, real, simulated))
        elif real != simulated:
            differences.append(OracleDifference(what, *where_different(real, simulated)))
    told = real if compared == 1 and not differences and not isinstance(real, Failed) else {}
    return CaseGroup(name, unit, compared, len(differences), tuple(differences), tuple(refusals), told)


def where_different(real: Figures, simulated: Figures) -> tuple[Figures, Figures]:
    """The figures of both that are not the same."""
    names = [name for name in {**real, **simulated} if real.get(name) != simulated.get(name)]
    return {name: real.get(name) for name in names}, {name: simulated.get(name) for name in names}


def _is_refused(answer: Answer) -> TypeGuard[Failed]:
    return isinstance(answer, Failed) and answer.kind == NotSimulated.__name__


def _plain(answer: Answer) -> dict[str, Any]:
    return {"error": answer.kind} if isinstance(answer, Failed) else dict(answer)


def _shown(real: Answer, simulated: Answer) -> str:
    """Figure by figure, where both have figures."""
    if isinstance(real, Failed) or isinstance(simulated, Failed):
        return f"real {_in_a_line(real)}; simulated {_in_a_line(simulated)}"
    return "; ".join(f"{name}: real {_number(real[name])}, simulated {_number(simulated[name])}" for name in real)


def _in_a_line(answer: Answer) -> str:
    if isinstance(answer, Failed):
        return str(answer)
    return ", ".join(f"{name} {_number(value)}" for name, value in answer.items())


def _number(value: int | None) -> str:
    return "none" if value is None else f"{value:,}"
