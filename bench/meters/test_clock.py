import mmap
import multiprocessing
import tempfile
import time
import weakref
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.measure.time_fields import ownership, times, wrong_ownership
from bench.meters.clock import LoadClock, ModelKept, Readings, remote_clock
from bench.meters.device import DeviceMeter
from bench.meters.process import LoadDied, LoadFailed


class CountingMeter(DeviceMeter):
    """A device that counts how often it was waited for."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.waits = 0

    def synchronize(self) -> None:
        self.waits += 1


def test_nothing_of_a_round_is_alive_in_the_next() -> None:
    alive: list[int] = []
    models: list[weakref.ref[nn.Module]] = []

    def load(_: torch.device) -> nn.Module:
        alive.append(sum(model() is not None for model in models))
        model = nn.Linear(2, 2)
        models.append(weakref.ref(model))
        return model

    clock = LoadClock(load, lambda _: None, lambda _: None, CountingMeter())
    for _ in range(3):
        clock.finish_round()
        assert clock.load_and_use() is None  # type: ignore[func-returns-value]
    clock.finish_round()
    assert alive == [0, 0, 0]
    assert len(clock.load_seconds) == len(clock.first_logits_seconds) == 3


def test_where_the_weights_end_is_seen(tmp_path: Path) -> None:
    torch.save(nn.Linear(300, 300).state_dict(), tmp_path / "saved.pt")

    def mapped(_: torch.device) -> nn.Module:
        model = nn.Linear(300, 300)
        model.load_state_dict(torch.load(tmp_path / "saved.pt", mmap=True, weights_only=True), assign=True)
        return model

    for load, seen in ((mapped, True), (lambda _: nn.Linear(300, 300), False)):
        clock = LoadClock(load, lambda _: None, lambda _: None, CountingMeter())
        for _ in range(3):
            clock.load_and_use()
            clock.finish_round()
        assert clock.mapped == [seen] * 3
        # A later pass is held against the first one where that fetches weights.
        assert len(clock.forward_seconds) == (3 if seen else 1)


@pytest.mark.parametrize(
    ("seen", "stated", "told"),
    [(True, "mapped", "mapped"), (True, None, "mapped"), (False, None, "owned"), (None, "owned", "owned")],
)
def test_where_they_end_is_what_is_seen(seen: bool | None, stated: str | None, told: str) -> None:
    readings = read_off(mapped=(seen,))  # type: ignore[arg-type]
    assert (ownership(readings, stated), wrong_ownership(readings, stated)) == (told, [])


def test_weights_that_end_elsewhere_than_it_is_stated_fail() -> None:
    [problem] = wrong_ownership(read_off(mapped=(False, True)), "owned")
    assert problem.message == "the weights end mapped, where its row in the table of strategies says owned"


def test_the_device_is_waited_for_within_the_time() -> None:
    meter = CountingMeter()
    seen: list[int] = []
    clock = LoadClock(lambda _: nn.Linear(2, 2), lambda _: seen.append(meter.waits), lambda _: None, meter)
    clock.load_and_use()
    assert seen == [1]
    assert meter.waits == 2
    assert clock.first_logits_seconds[0] >= clock.load_seconds[0]


def read_off(**readings: tuple[float, ...]) -> Readings:
    """A clock's readings, where nothing else was measured."""
    return Readings(**dict.fromkeys((field.name for field in fields(Readings)), ()) | readings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first_logits", "whole"),
    [
        # Later passes take 2 seconds: what a first one takes longer was fetched in it, in most of the rounds.
        ((6.0, 6.0, 6.0), [4.0, 2.0, 4.0]),
        # A quick first one is no gift.
        ((4.0, 3.0, 4.0), [3.0, 1.0, 3.0]),
        # One that was disturbed fetches nothing.
        ((5.0, 3.0, 55.0), [3.0, 1.0, 3.0]),
    ],
)
def test_a_slow_first_forward_pass_is_part_of_the_load(first_logits: tuple[float, ...], whole: list[float]) -> None:
    readings = read_off(
        load_seconds=(3.0, 1.0, 3.0), first_logits_seconds=first_logits, forward_seconds=(2.0, 2.0, 2.0)
    )
    assert readings.whole_load_seconds == whole


@pytest.mark.parametrize(("mapped", "rate"), [(False, 50.0), (True, 25.0)])
def test_only_a_mapped_model_is_charged_for_its_first_pass(mapped: bool, rate: float) -> None:
    readings = read_off(
        load_seconds=(2.0, 1.0, 4.0),
        first_logits_seconds=(5.0, 4.0, 7.0),
        forward_seconds=(1.0, 1.0, 1.0),
        roofline_bytes_per_second=(80.0, 100.0, 60.0),
        minor_faults=(9, 7, 8),
        major_faults=(0, 2, 1),
    )
    found = times(readings, 100, mapped=mapped)
    assert found["bytes_per_second"] == rate
    assert (found["limit_bytes_per_second"], found["limit_fraction"]) == (80.0, rate / 80)
    assert (found["load_seconds"], found["first_logits_seconds"], found["forward_seconds"]) == (2.0, 5.0, 1.0)
    assert (found["minor_faults"], found["major_faults"]) == (8, 1)


def test_the_model_of_every_round_is_checked() -> None:
    checked: list[int] = []
    widths = iter((1, 2))
    clock = LoadClock(
        load=lambda _: nn.Linear(next(widths), 1),
        use=lambda _: None,
        check=lambda model: checked.append(model.get_parameter("weight").numel()),
        meter=CountingMeter(),
    )
    for _ in range(2):
        clock.finish_round()
        clock.load_and_use()
    clock.finish_round()
    assert checked == [1, 2]


def test_a_strategy_that_keeps_the_model_of_the_round_before_fails() -> None:
    kept: list[nn.Module] = []

    def load_and_keep(_: torch.device) -> nn.Module:
        kept.append(nn.Linear(2, 2))
        return kept[-1]

    clock = LoadClock(load_and_keep, lambda _: None, lambda _: None, CountingMeter())
    clock.load_and_use()
    with pytest.raises(ModelKept, match="leak: the strategy keeps the model of the previous round"):
        clock.finish_round()


def test_so_does_one_that_keeps_memory_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CountingMeter, "held_bytes", lambda _: 512)
    clock = LoadClock(lambda _: nn.Linear(2, 2), lambda _: None, lambda _: None, CountingMeter())
    clock.finish_round()
    clock.load_and_use()
    with pytest.raises(ModelKept):
        clock.finish_round()


def small_clock() -> LoadClock:
    return LoadClock(lambda _: nn.Linear(2, 2), lambda _: None, lambda _: None, CountingMeter())


def test_a_clock_in_a_process_of_its_own_tells_what_it_measured() -> None:
    with remote_clock(small_clock, 60.0) as clock:
        for _ in range(3):
            clock.begin_round()
            clock.load_and_use()
        readings = clock.readings()
        assert [len(values) for values in vars(readings).values()] == [3, 3, 1, 3, 3, 3, 2]
        clock.finish_round()
        assert len(clock.readings().mapped) == 3
        assert clock.readings().load_seconds == readings.load_seconds
    assert multiprocessing.active_children() == []


def wrong(_: nn.Module) -> None:
    raise ValueError("wrong")


def clock_of_wrong_models() -> LoadClock:
    return LoadClock(lambda _: nn.Linear(2, 2), lambda _: None, wrong, CountingMeter())


def cut_and_read(_: torch.device) -> nn.Module:
    """Shorten a mapped file: its pages are gone."""
    with tempfile.TemporaryFile() as file:
        file.truncate(mmap.PAGESIZE)
        mapped = mmap.mmap(file.fileno(), 0)
        file.truncate(0)
        return nn.Linear(mapped[0], 1)


def clock_of_cut_files() -> LoadClock:
    return LoadClock(cut_and_read, lambda _: None, lambda _: None, CountingMeter())


def clock_that_hangs() -> LoadClock:
    return LoadClock(lambda _: time.sleep(600), lambda _: None, lambda _: None, CountingMeter())  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    ("make_clock", "limit_seconds", "error", "told"),
    [
        (clock_of_wrong_models, 60.0, LoadFailed, "^ValueError: wrong"),
        (clock_of_cut_files, 60.0, LoadDied, "killed by SIGBUS, a mapped file that was cut or could not be read$"),
        (clock_that_hangs, 1.0, LoadDied, "^the load was ended: it was not done within 1 s$"),
    ],
)
def test_what_ends_a_timed_load_ends_its_own_process_alone(
    make_clock: Callable[[], LoadClock], limit_seconds: float, error: type[Exception], told: str
) -> None:
    def one_round() -> None:
        with remote_clock(make_clock, limit_seconds) as clock:
            clock.load_and_use()
            clock.finish_round()

    with pytest.raises(error, match=told):
        one_round()
    assert multiprocessing.active_children() == []


def test_the_machine_is_prepared_when_the_model_of_the_round_before_is_gone() -> None:
    models: list[weakref.ref[nn.Module]] = []
    alive: list[list[bool]] = []

    def load(_: torch.device) -> nn.Module:
        model = nn.Linear(2, 2)
        models.append(weakref.ref(model))
        return model

    def prepare() -> float:
        alive.append([model() is not None for model in models])
        return float(len(alive))

    clock = LoadClock(load, lambda _: None, lambda _: None, CountingMeter(), prepare)
    for loads in range(3):
        clock.begin_round()
        assert len(alive) == loads + 1
        clock.load_and_use()
    clock.finish_round()
    assert alive == [[], [False], [False, False]]
    assert clock.roofline_bytes_per_second == [1.0, 2.0, 3.0]


def test_without_anything_to_prepare_there_is_no_limit() -> None:
    clock = small_clock()
    clock.begin_round()
    clock.begin_round()
    assert clock.roofline_bytes_per_second == [None, None]


def test_a_wrong_model_ends_the_rounds() -> None:
    def refuse(_: nn.Module) -> None:
        raise ValueError("wrong")

    clock = LoadClock(lambda _: nn.Linear(2, 2), lambda _: None, refuse, CountingMeter())
    clock.load_and_use()
    with pytest.raises(ValueError, match="wrong"):
        clock.finish_round()
