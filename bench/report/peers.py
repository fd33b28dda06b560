"""Loaders of other projects: the version of each, and the tables of `results/peers.md`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.conformance.judge import CellStatus
from bench.conformance.sweep import Cell
from bench.history.runs import Run
from bench.record.record import Record
from bench.report.conformance import is_fit
from bench.report.recorded import Recorded
from bench.report.recorded_section import RecordedSection
from bench.report.rows import Problem, Row
from bench.report.text_table import markdown_table
from model.byte_sizes import MB

# Bytes are exact. Times of a shared machine are not: one that is better by less than a tenth is as good.
EXACT, NEAR = 1.0, 1.1


def peer_lines(table: Sequence[Row]) -> list[str]:
    """Render the versions and arguments of each loader of another project, a line each."""
    found = {row.name: row.record.peer for row in table if row.record.peer}
    return [f"{strategy}: {_described(peer)}" for strategy, peer in found.items()]


def version_lines(table: Sequence[Row], runs: Sequence[Run]) -> list[str]:
    """Render the versions that differ from those of the last run with that loader, a line each loader."""
    lines = []
    for row in {row.name: row for row in table if row.record.peer}.values():
        now = (row.record.peer or {})["versions"]
        for run in reversed(runs):
            before = [one.peer for one in run.records.values() if one.strategy == row.name and one.peer]
            if before:
                changes = _changes(before[-1]["versions"], now)
                lines += [f"{row.name}: {', '.join(changes)} since run {run.number}"] if changes else []
                break
    return lines


def _changes(before: Mapping[str, str | None], now: Mapping[str, str | None]) -> list[str]:
    return [f"{name} {before.get(name)} -> {version}" for name, version in now.items() if before.get(name) != version]


def _described(peer: Mapping[str, Any]) -> str:
    backend = f" ({peer['backend']})" if peer["backend"] else ""
    return f"{_versions(peer)}; {peer['settings']}{backend}; into: {peer['destination']}"


def _versions(peer: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in peer["versions"].items())


@dataclass(frozen=True)
class Loader:
    """One strategy at one size in some runs: the records of its benchmarks, and its problems."""

    name: str
    records: tuple[Record, ...]
    problems: tuple[Problem, ...]

    def figure(self, name: str, **wanted: str | None) -> Any:
        """The first that was measured, in a record that has these values; None: there is none."""
        fitting = (record for record in self.records if all(record.value(key) == one for key, one in wanted.items()))
        return next((record.value(name) for record in fitting if record.value(name) is not None), None)

    @property
    def peer(self) -> Mapping[str, Any] | None:
        return next((record.peer for record in self.records if record.peer), None)


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}x"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _of_state(loader: Loader, name: str, **wanted: str) -> float | None:
    count, state = loader.figure(name, **wanted), loader.figure("state_bytes")
    return None if count is None else count / state


def _on_device(loader: Loader, name: str) -> Any:
    """Return a figure of a GPU, or else of a stand-in for one, or else of a simulated one."""
    kinds: tuple[dict[str, str | None], ...] = (
        {"device": "cuda", "stand_in": None},
        {"device": "cuda"},
        {"device": "sim"},
    )
    return next((found for kind in kinds if (found := loader.figure(name, **kind)) is not None), None)


def _kept(loader: Loader) -> str:
    """Beside the model after a first load, and after a second one."""
    first, second = (loader.figure(name, device="cpu") for name in ("retained_bytes", "retained_again_bytes"))
    return "-" if first is None else f"{first / MB:.0f}, {(second or 0) / MB:.0f}"


# heading, and what stands under it
COLUMNS: tuple[tuple[str, Callable[[Loader], str]], ...] = (
    ("GPU", lambda one: _ratio(_on_device(one, "device_peak_ratio"))),
    ("RAM beside a GPU", lambda one: _ratio(_on_device(one, "host_peak_ratio"))),
    ("RAM on the CPU", lambda one: _ratio(one.figure("host_peak_ratio", device="cpu"))),
    ("mapped", lambda one: _ratio(_of_state(one, "host_file_peak_bytes", device="cpu"))),
    ("load s", lambda one: _seconds(one.figure("load_seconds", cache="warm"))),
    ("output s", lambda one: _seconds(one.figure("first_logits_seconds", cache="warm"))),
    ("of max", lambda one: _seconds(one.figure("limit_fraction", cache="warm"))),
    ("cold: load s", lambda one: _seconds(one.figure("load_seconds", cache="cold"))),
    ("output s", lambda one: _seconds(one.figure("first_logits_seconds", cache="cold"))),
    ("of max", lambda one: _seconds(one.figure("limit_fraction", cache="cold"))),
    ("left over, MB", _kept),
)


@dataclass(frozen=True)
class Rivalry:
    """A figure in which a loader may be better than every recipe of the suite; less is better.

    Of the loads whose weights end so (None: of all); what is better by less than the factor `near` is as good.
    """

    what: str
    figure: Callable[[Loader], float | None]
    show: Callable[[float], str]
    ownership: str | None = None
    near: float = EXACT

    def __str__(self) -> str:
        return f"{self.what}, {self.ownership} weights" if self.ownership else self.what

    def entries(self, loaders: Sequence[Loader], *, peers: bool) -> list[tuple[float, str]]:
        """The best first; to as many digits as are shown, for nobody is beaten by a page in none."""
        alike = [
            one for one in loaders if bool(one.peer) == peers and self.ownership in (None, one.figure("ownership"))
        ]
        return sorted((round(value, 2), one.name) for one in alike if (value := self.figure(one)) is not None)


def _logits(what: str, cache: str, ownership: str) -> Rivalry:
    return Rivalry(
        what, lambda one: one.figure("first_logits_seconds", cache=cache), "{:.2f} s".format, ownership, NEAR
    )


RIVALRIES = (
    Rivalry("Device memory", lambda one: _on_device(one, "device_peak_ratio"), _ratio),
    # Mapped weights take none.
    Rivalry("Private host memory on the CPU", lambda one: one.figure("host_peak_ratio", device="cpu"), _ratio, "owned"),
    _logits("First logits", "warm", "mapped"),
    _logits("First logits", "warm", "owned"),
    _logits("First logits from a cold cache", "cold", "mapped"),
    _logits("First logits from a cold cache", "cold", "owned"),
)


def _lines(runs: Sequence[Recorded]) -> Iterator[str]:
    """Render the tables, and say where a loader of another project is better."""
    sizes = dict.fromkeys(size for run in runs for size in run.sizes)
    for size in sizes:
        loaders = loaders_of(runs, size)
        yield from (f"**GPT-2 {size}**", "", *_figures(loaders), "", *beaten(loaders), "")
    last = {loader.name: loader for size in sizes for loader in loaders_of(runs, size) if loader.peer}
    yield from (*_facts(list(last.values())), "", *_conformance([cell for run in runs for cell in run.cells]), "")


PEERS = RecordedSection("peers", "results/peers.md", _lines)


def loaders_of(runs: Sequence[Recorded], size: str) -> list[Loader]:
    """Return every strategy that some runs measured, or tried to, at one size."""
    results = [result for run in runs for result in run.results if result.key.size == size]
    names = dict.fromkeys(one.key.name for one in results if not one.key.roofline)
    return [
        Loader(
            name,
            tuple(one.record for one in results if one.key.name == name),
            tuple(dict.fromkeys(one.problem for one in results if one.key.name == name and one.problem)),
        )
        for name in names
    ]


def _figures(loaders: Sequence[Loader]) -> list[str]:
    heading = ["loader", *(name for name, _ in COLUMNS)]
    measured = [one for one in loaders if any(show(one) != "-" for _, show in COLUMNS)]
    body = [[f"`{one.name}`", *(show(one) for _, show in COLUMNS)] for one in measured]
    table = markdown_table([heading, *body], range(1, len(heading)))
    left = [f"- `{one.name}`: {problem}" for one in loaders if one not in measured for problem in one.problems[:1]]
    return [*table, *([""] if left else []), *left]


def beaten(loaders: Sequence[Loader]) -> Iterator[str]:
    """Compare the best loader of another project with the best strategy of the suite, a line a figure."""
    for one in RIVALRIES:
        ours, theirs = (one.entries(loaders, peers=peers) for peers in (False, True))
        if ours and theirs:
            best, name = ours[0]
            held = f"`{name}` ({one.show(best)})"
            better = [f"`{peer}` ({one.show(value)})" for value, peer in theirs if value * one.near < best]
            value, peer = theirs[0]
            if better:
                yield f"- {one}: {' and '.join(better)} beat{'s' * (len(better) == 1)} {held}, the best strategy here."
            elif value == best:
                yield f"- {one}: {held} and `{peer}` are equal."
            elif value < best:
                yield f"- {one}: {held} and `{peer}` ({one.show(value)}) differ by less than 10 %."
            else:
                yield f"- {one}: no other project beats {held}; the closest is `{peer}` ({one.show(value)})."


def _facts(loaders: Sequence[Loader]) -> list[str]:
    heading = ["loader", "versions", "call, and back end", "loads into", "formats", "runs on"]
    body = []
    for loader in loaders:
        peer = loader.peer
        assert peer
        backend = f" ({peer['backend']})" if peer["backend"] else ""
        call = f"{peer['settings']}{backend}"
        devices = "CUDA" if peer["devices"] == "cuda" else "CPU, CUDA"
        body.append([f"`{loader.name}`", _versions(peer), call, peer["destination"], peer["formats"], devices])
    return markdown_table([heading, *body], ()) if body else []


def _conformance(cells: Sequence[Cell]) -> list[str]:
    """Render the properties that each loader keeps, refuses and loses, and the misfits that it accepts."""
    heading = [
        "loader",
        "keeps",
        "refuses",
        "silently wrong",
        "kills the process",
        "accepts a checkpoint that does not fit",
    ]
    body = []
    for strategy in dict.fromkeys(cell.strategy for cell in cells):
        own = [cell for cell in cells if cell.strategy == strategy]

        def named(outcome: CellStatus, *, fits: bool, cells: Sequence[Cell] = own) -> list[str]:
            return [cell.property for cell in cells if cell.outcome == outcome and is_fit(cell) == fits]

        body.append(
            [
                f"`{strategy}`",
                f"{len(named(CellStatus.PASSED, fits=True))} of {sum(map(is_fit, own))}",
                *(", ".join(named(one, fits=True)) for one in (CellStatus.REFUSED, CellStatus.WRONG, CellStatus.DIED)),
                ", ".join(named(CellStatus.WRONG, fits=False)),
            ]
        )
    return markdown_table([heading, *body], [1]) if body else []
