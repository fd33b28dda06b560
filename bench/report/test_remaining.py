import pytest

from bench.report.remaining import BYTES, Done, Work, seconds_left, status, told

LOAD, PEAK, FAULT = "test_load_time", "test_peak_memory", "test_fault"


def load(gigabytes: int, function: str = LOAD) -> Work:
    return Work(function, gigabytes * 10**9, BYTES)


def test_nothing_is_known_until_something_like_all_the_rest_is_done() -> None:
    assert seconds_left([], [load(1)]) is None
    assert seconds_left([Done(Work(FAULT), 2.0)], [Work(FAULT), load(1)]) is None
    assert seconds_left([Done(load(1), 2.0)], [Work(FAULT), load(1)]) is None
    assert seconds_left([], []) == 0


def test_work_takes_as_long_as_the_same_function_took() -> None:
    done = [Done(load(1), 2.0), Done(load(3), 4.0), Done(load(1, PEAK), 50.0), Done(Work(FAULT), 7.0)]
    assert seconds_left(done, [load(10)]) == pytest.approx(15.0)
    assert seconds_left(done, [load(10), load(2, PEAK), Work(FAULT), Work(FAULT)]) == pytest.approx(129.0)


def test_a_function_that_has_not_run_is_as_fast_as_others_with_the_same_unit() -> None:
    done = [Done(load(1), 2.0), Done(load(1, PEAK), 4.0), Done(Work(FAULT), 70.0)]
    assert seconds_left(done, [load(5, "test_limit")]) == pytest.approx(15.0)
    assert seconds_left(done, [Work("test_misfit")]) == pytest.approx(70.0)


def test_what_took_no_time_is_known_to_take_none() -> None:
    assert seconds_left([Done(load(1), 0.0), Done(load(1, PEAK), 4.0)], [load(5)]) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((0.0, "5 s"), (5.1, "10 s"), (38.0, "40 s"), (55.0, "55 s"), (56.0, "1 min"), (89.0, "1 min")),
        *((300.0, "5 min"), (3540.0, "59 min"), (3590.0, "1 h"), (4200.0, "1 h 10 min"), (7190.0, "2 h")),
        (86_400.0, "24 h"),
    ],
)
def test_time_is_told_as_people_do(seconds: float, text: str) -> None:
    assert told(seconds) == text


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (45, "streamed-xl-sim, 12 of 56, about 5 min left"),
        (43, "streamed-xl-sim, 12 of 56, about 5 min left"),
        (42, "12 of 56, about 5 min left"),
        (25, "about 5 min left"),
        (15, ""),
        (-3, ""),
    ],
)
def test_what_matters_least_goes_first(width: int, text: str) -> None:
    assert status("streamed-xl-sim", "12 of 56", 300.0, width) == text


def test_what_is_not_known_is_not_told() -> None:
    assert status("streamed-xl-sim", "12 of 56", None, 80) == "streamed-xl-sim, 12 of 56"
