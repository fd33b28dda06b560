import mmap
import multiprocessing
import tempfile
import time
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import nn

from bench.meters.clock import LoadClock, ModelKept, clock_apart
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
    assert len(clock.load_seconds) == len(clock.first_logits_seconds) == len(clock.forward_seconds) == 3


def test_the_device_is_waited_for_within_the_time() -> None:
    meter = CountingMeter()
    seen: list[int] = []
    clock = LoadClock(lambda _: nn.Linear(2, 2), lambda _: seen.append(meter.waits), lambda _: None, meter)
    clock.load_and_use()
    assert seen == [1]
    assert meter.waits == 2
    assert clock.first_logits_seconds[0] >= clock.load_seconds[0]


def test_a_slow_first_forward_pass_is_part_of_the_load_and_a_quick_one_is_no_gift(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def whole_load_seconds(*readings: float) -> float:
        left = list(readings)
        clock = LoadClock(lambda _: nn.Linear(2, 2), lambda _: None, lambda _: None, CountingMeter())
        with monkeypatch.context() as patch:
            patch.setattr(time, "perf_counter", lambda: left.pop(0))
            clock.load_and_use()
            clock.finish_round()
        return clock.whole_load_seconds[0]

    # Start, loaded, first logits; start and end of a later forward pass.
    assert whole_load_seconds(0.0, 1.0, 5.0, 10.0, 11.0) == 4.0
    assert whole_load_seconds(0.0, 1.0, 2.0, 10.0, 19.0) == 1.0


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
    with pytest.raises(ModelKept, match="the strategy keeps the model of the round before"):
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
    with clock_apart(small_clock, 60.0) as clock:
        for _ in range(3):
            clock.finish_round()
            clock.load_and_use()
        seconds = clock.seconds()
        assert (len(seconds.load), len(seconds.first_logits), len(seconds.forward)) == (3, 3, 2)
        clock.finish_round()
        assert len(clock.seconds().forward) == len(clock.seconds().whole_load) == 3
        assert clock.seconds().load == seconds.load
    assert multiprocessing.active_children() == []


def wrong(_: nn.Module) -> None:
    raise ValueError("wrong")


def clock_of_wrong_models() -> LoadClock:
    return LoadClock(lambda _: nn.Linear(2, 2), lambda _: None, wrong, CountingMeter())


def cut_and_read(_: torch.device) -> nn.Module:
    """What is mapped of a file is no longer there."""
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
        with clock_apart(make_clock, limit_seconds) as clock:
            clock.load_and_use()
            clock.finish_round()

    with pytest.raises(error, match=told):
        one_round()
    assert multiprocessing.active_children() == []


def test_a_wrong_model_ends_the_rounds() -> None:
    def refuse(_: nn.Module) -> None:
        raise ValueError("wrong")

    clock = LoadClock(lambda _: nn.Linear(2, 2), lambda _: None, refuse, CountingMeter())
    clock.load_and_use()
    with pytest.raises(ValueError, match="wrong"):
        clock.finish_round()
