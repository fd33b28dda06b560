"""Damaged and hostile checkpoints, at rest: each is refused by name, and no recipe makes a wrong model of one."""

import os
import re
import shutil
import struct
import sys
import zlib
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bench.measure.case import Case
from bench.measure.jobs import load_job
from bench.measure.load_process import run_load
from bench.meters.measure import measure
from bench.meters.process import LoadDied
from bench.selftest.faults import FAULTS
from bench.selftest.faults.damaged_loads import REFUSED, RIGHT, WRONG, Attempt, run_attempts
from bench.selftest.faults.pickles import EXECUTED
from bench.strategies import STRATEGIES
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.checkpoints.manifest import UNREAD_FILES, misfit
from model.checkpoints.specification import Specification
from model.examine.archive import ZipRecord, read_archive
from model.examine.trust import UntrustedCheckpoint, examine
from model.gpt2 import REHEARSAL
from model.layouts.layouts import LAYOUTS

pytestmark = pytest.mark.real_device

CPU = torch.device("cpu")
# All loads together take seconds, unless one waits for what never comes.
LIMIT_SECONDS = 120.0

BIT = st.integers(0, 7)


@dataclass(frozen=True)
class Corpus:
    """A sound checkpoint of every layout, and a copy of it for every fault."""

    folder: Path

    def sound(self, layout: str) -> Checkpoint:
        return Checkpoint(specification(layout), self.folder / layout / "sound")

    def damaged(self, layout: str, fault: str) -> Checkpoint:
        return replace(self.sound(layout), folder=self.folder / layout / fault.replace(" ", "-"))


def specification(layout: str) -> Specification:
    return Specification(REHEARSAL, "float32", layout)


@cache
def expected(layout: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return specification(layout).build().state_dict()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    made = Corpus(tmp_path_factory.mktemp("corpus"))
    for layout, faults in FAULTS.items():
        sound = made.sound(layout)
        sound.folder.parent.mkdir()
        make(sound.specification, sound.folder, lambda _: None)
        for name, fault in faults.items():
            damaged = made.damaged(layout, name)
            shutil.copytree(sound.folder, damaged.folder)
            fault.inject(damaged.path)
    return made


every_fault = pytest.mark.parametrize(
    ("layout", "name"),
    [pytest.param(layout, name, id=f"{layout}-{name}") for layout in FAULTS for name in FAULTS[layout]],
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sound_checkpoint_passes(corpus: Corpus, layout: str) -> None:
    examine(layout, corpus.sound(layout).path, expected(layout), contents=True)


@every_fault
def test_a_fault_is_told_with_its_file_its_key_and_the_reason(corpus: Corpus, layout: str, name: str) -> None:
    fault, path = FAULTS[layout][name], corpus.damaged(layout, name).path
    with pytest.raises(UntrustedCheckpoint) as caught:
        examine(layout, path, expected(layout))
    told = caught.value
    # The files of an index lie beside it.
    within = path.parent if layout.endswith("_sharded") else path
    assert told.file.is_relative_to(within)
    assert told.key == fault.key
    assert re.search(fault.reason, told.reason)
    assert str(told).startswith(str(within))
    assert str(told).isprintable()


# Every load of every fault: a strategy, a layout that it loads, and a fault of that.
LOADS = [
    (strategy.name, layout, name)
    for strategy in STRATEGIES.values()
    for layout in strategy.layouts
    for name in FAULTS[layout]
]


@pytest.fixture(scope="module")
def outcomes(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, str], str]:
    """The result of each strategy with each fault, in a process that a hostile file may end, and then in another."""
    attempts = [
        Attempt(strategy, corpus.damaged(layout, name), corpus.sound(layout)) for strategy, layout, name in LOADS
    ]
    report = tmp_path_factory.mktemp("outcomes") / "lines"
    told: list[str] = []
    while len(told) < len(attempts):
        report.write_text("")
        died = run_apart(attempts[len(told) :], report)
        told += report.read_text().splitlines() + died
    return dict(zip(LOADS, told, strict=True))


def run_apart(attempts: list[Attempt], report: Path) -> list[str]:
    """The end of the process, if it came before its last attempt."""
    sound = attempts[0].sound
    case = Case(attempts[0].strategy, REHEARSAL, "cpu", "float32")
    job = replace(load_job(case, case.strategy.load, sound, sound), rehearse=partial(run_attempts, attempts, report))
    try:
        measure(job, LIMIT_SECONDS)
    except LoadDied as error:
        return [f"died: {error}"]
    return []


@pytest.mark.parametrize(("strategy", "layout", "name"), [pytest.param(*load, id="-".join(load)) for load in LOADS])
def test_no_recipe_makes_a_wrong_model_of_a_fault(
    outcomes: dict[tuple[str, str, str], str], strategy: str, layout: str, name: str
) -> None:
    """It refuses the checkpoint in the project's own words, or the model is right to the bit.

    Of a fault that torch itself does not see, a recipe cannot know.
    """
    told = outcomes[strategy, layout, name]
    if FAULTS[layout][name].silent and told.startswith(WRONG):
        return
    assert told in {REFUSED, RIGHT}


def test_nothing_was_executed_or_imported(corpus: Corpus, outcomes: dict[tuple[str, str, str], str]) -> None:
    assert not list(corpus.folder.rglob(f"*{EXECUTED}"))
    assert "this" not in sys.modules


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_error_of_the_recipes_own_stands(corpus: Corpus, strategy: str) -> None:
    def load(*_: object) -> torch.nn.Module:
        raise KeyError("my own")

    with pytest.raises(KeyError, match="my own"):
        run_load(load, corpus.sound(STRATEGIES[strategy].layout), CPU)


@dataclass(frozen=True, repr=False)
class Archive:
    """The file of the `torch` layout, and where its records lie."""

    content: bytes
    records: dict[str, ZipRecord]
    copy: Path

    @property
    def payload(self) -> list[range]:
        return [range(r.start, r.start + r.bytes) for name, r in self.records.items() if name.startswith("data/")]

    @property
    def pickle(self) -> ZipRecord:
        return self.records["data.pkl"]


@pytest.fixture(scope="module")
def archive(corpus: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Archive:
    path = corpus.sound("torch").path
    descriptor = os.open(path, os.O_RDONLY)
    try:
        records = read_archive(descriptor)
    finally:
        os.close(descriptor)
    return Archive(path.read_bytes(), records, tmp_path_factory.mktemp("damaged") / "checkpoint.pt")


def refusal(path: Path, *, contents: bool = False) -> str | None:
    try:
        examine("torch", path, expected("torch"), contents=contents)
    except UntrustedCheckpoint as error:
        return str(error)
    return None


def is_right(path: Path, sound: Checkpoint) -> bool:
    """Return whether torch loads what was saved, mapped and read; not for a file that `examine` refuses."""
    saved = dict(sound.tensors())
    for mapped in (False, True):
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        if loaded.keys() != saved.keys() or not all(torch.equal(loaded[name], saved[name]) for name in saved):
            return False
    return True


def boundaries(archive: Archive) -> set[int]:
    """Return the starts and ends of the parts of an archive."""
    content, places = archive.content, {0}
    for record in archive.records.values():
        name_bytes = int.from_bytes(content[record.header + 26 : record.header + 28], "little")
        places |= {record.header, record.header + 30, record.header + 30 + name_bytes}
        places |= {record.start, record.start + record.bytes}
    for signature, fixed in ((b"PK\1\2", 46), (b"PK\7\x08", 16), (b"PK\6\6", 56), (b"PK\6\7", 20), (b"PK\5\6", 0)):
        found = [match.start() for match in re.finditer(re.escape(signature), content)]
        assert found
        places |= {*found, *(place + fixed for place in found)}
    return places


def test_a_file_cut_at_any_boundary_is_refused(archive: Archive) -> None:
    places = boundaries(archive)
    assert len(places) > 6 * len(archive.records)
    for place in sorted(places):
        archive.copy.write_bytes(archive.content[:place])
        assert refusal(archive.copy), place
        with pytest.raises((RuntimeError, EOFError, OSError)):
            torch.load(archive.copy, weights_only=True)


@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(archive: Archive, data: st.DataObject) -> None:
    archive.copy.write_bytes(archive.content[: data.draw(st.integers(0, len(archive.content) - 1))])
    assert refusal(archive.copy)


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


@given(data=st.data())
def test_a_bit_flipped_outside_the_values_is_refused_or_harmless(
    corpus: Corpus, archive: Archive, data: st.DataObject
) -> None:
    """In a header, the directory or the pickle: what is not refused, torch loads as it was saved."""
    outside = len(archive.content) - sum(map(len, archive.payload))
    place = data.draw(st.integers(0, outside - 1))
    for values in archive.payload:
        place += len(values) if place >= values.start else 0
    archive.copy.write_bytes(flipped(archive.content, place, data.draw(BIT)))
    assert refusal(archive.copy) or is_right(archive.copy, corpus.sound("torch"))


@given(data=st.data())
def test_a_pickle_changed_with_its_crc_put_right_is_refused_or_harmless(
    corpus: Corpus, archive: Archive, data: st.DataObject
) -> None:
    """Nothing but what it says is wrong with it."""
    pickle = archive.pickle
    changed = flipped(archive.content, pickle.start + data.draw(st.integers(0, pickle.bytes - 1)), data.draw(BIT))
    old, new = (struct.pack("<I", crc) for crc in (pickle.crc32, zlib.crc32(changed[pickle.start :][: pickle.bytes])))
    assert archive.content.count(old) == 2
    archive.copy.write_bytes(changed.replace(old, new))
    assert refusal(archive.copy) or is_right(archive.copy, corpus.sound("torch"))


@given(data=st.data())
def test_a_bit_flipped_in_the_values_is_found_by_the_manifest_and_by_the_crc(
    corpus: Corpus, archive: Archive, data: st.DataObject
) -> None:
    """Headers say nothing of it, so no load does."""
    checkpoint = corpus.sound("torch")
    damaged = replace(checkpoint, folder=archive.copy.parent)
    for file in UNREAD_FILES:
        shutil.copy(checkpoint.folder / file, damaged.folder)
    values = data.draw(st.sampled_from(archive.payload))
    damaged.path.write_bytes(flipped(archive.content, data.draw(st.sampled_from(values)), data.draw(BIT)))
    assert refusal(damaged.path) is None
    assert "CRC-32 is not the one that was written" in str(refusal(damaged.path, contents=True))
    assert misfit(damaged.specification, damaged.folder) == "checkpoint.pt has changed since it was written"


def test_faults_that_torch_does_not_see_are_as_many_as_they_are_said_to_be(
    outcomes: dict[tuple[str, str, str], str],
) -> None:
    """One that torch learns to refuse is to be struck from the table."""
    wrong = {(layout, name) for (_, layout, name), told in outcomes.items() if told.startswith(WRONG)}
    said = {(layout, name) for layout in FAULTS for name, fault in FAULTS[layout].items() if fault.silent}
    assert wrong == said
