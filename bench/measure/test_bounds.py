from typing import Any

import pytest

from bench.measure.bounds import peak_breaches, peak_checks
from bench.measure.terms import (
    HOST_SLACK_BYTES,
    HOST_SLACK_BYTES_PER_TENSOR,
    HOST_SLACK_OF_STATE,
    OF_A_LOAD,
    Terms,
    host_slack_bytes,
)
from bench.record.record import Record
from bench.strategies import STRATEGIES

S, L = 1_000_000_000, 100_000_000
TENSORS = 100
SLACK = host_slack_bytes(S, TENSORS)


def bound_bytes(expression: str, state_bytes: int, largest_tensor_bytes: int, **known: int) -> int:
    return Terms(state_bytes=state_bytes, largest_tensor_bytes=largest_tensor_bytes, **known).bound_bytes(expression)


def record(device: str, **measured: Any) -> Record:
    known = {"device": device, "state_bytes": S, "largest_tensor_bytes": L, "tensors": TENSORS}
    return Record.read(known | measured)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("S / N", 100),
        ("1.5 S / N", 150),
        ("0", 0),
        ("S", 100),
        ("L", 10),
        ("2S", 200),
        ("S + L", 110),
        ("S+2L", 120),
        ("12S + L", 1210),
    ],
)
def test_bound_bytes(expression: str, expected: int) -> None:
    assert bound_bytes(expression, 100, 10) == expected


@pytest.mark.parametrize(
    ("state", "ring"), [(2**17 + 1, 2**18), (2**18, 2**18), (2**26, 2**26), (2**26 + 1, 2**26), (1, 2**17)]
)
def test_a_ring_is_no_larger_than_what_passes_through_it_and_has_two_pages_a_slot(state: int, ring: int) -> None:
    assert bound_bytes("R", state, 1) == ring


@pytest.mark.parametrize("on", ["cuda:0", "sim"])
def test_page_locked_memory_is_exact_and_need_not_be_the_processs_on_a_gpu(on: str) -> None:
    streamed = STRATEGIES["streamed"]
    ring = bound_bytes("R", S, L)
    assert peak_breaches(streamed, record(on, host_private_peak_bytes=ring, host_pinned_peak_bytes=ring)) == {}
    assert "host_pinned_peak_bytes" in peak_breaches(streamed, record(on, host_pinned_peak_bytes=ring + 1))
    assert "host_pinned_peak_bytes" in peak_breaches(streamed, record(on, host_pinned_peak_bytes=ring - 1))
    elsewhere = peak_breaches(streamed, record(on, host_private_peak_bytes=0, host_pinned_peak_bytes=ring))
    assert ("host_private_peak_bytes" in elsewhere) == (on == "sim")


@pytest.mark.parametrize(
    "expression", ["", "Z", "S L", "S - L", "1.S", "S +", "2", "-S", "S*2", "S / 2", "S / L", "S | L"]
)
def test_what_is_no_bound_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="is not a bound; give a sum of multiples of S, L and R"):
        bound_bytes(expression, 100, 10)


def test_a_file_is_all_of_the_state_where_there_is_no_other() -> None:
    assert bound_bytes("F", 100, 10) == 100
    assert bound_bytes("F + L", 100, 10, largest_file_bytes=40) == 50


def test_a_cast_has_terms_of_its_own() -> None:
    terms = {letter: name for letter, name in OF_A_LOAD.items() if letter not in "SLF"}
    cast = {name: 1000 + place for place, name in enumerate(terms.values())}
    known = {letter: cast[name] for letter, name in terms.items()}
    assert {letter: bound_bytes(letter, 100, 10, **cast) for letter in known} == known
    assert bound_bytes("S + C + D", 100, 10, **cast) == 100 + known["C"] + known["D"]
    # Without one the checkpoint has what the model has, and nothing is converted.
    without = {"C": 100, "M": 0, "W": 100, "K": 10, "P": 10, "X": 0, "Y": 0, "V": 0, "D": 0}
    assert {letter: bound_bytes(letter, 100, 10) for letter in terms} == without
    # What passes through a ring is what is in the checkpoint.
    assert bound_bytes("R", 2**20, 10, checkpoint_bytes=2**25) == 2**25


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_says_what_it_takes_when_it_casts(name: str) -> None:
    strategy = STRATEGIES[name]
    cast = strategy.partial()
    for device in ("cpu", "sim"):
        expected = strategy.bounds.of_peaks(on_host=device == "cpu")
        assert cast.bounds.of_peaks(on_host=device == "cpu").keys() == expected.keys()
        # With nothing to convert it takes what it takes without.
        for figure, expression in expected.items():
            bounds = [
                bound_bytes(one, S, L) for one in (expression, cast.bounds.of_peaks(on_host=device == "cpu")[figure])
            ]
            # Where the model is built, that is part of what building takes.
            building = strategy.builds and (device, figure) == ("sim", "host_private_peak_bytes")
            assert building or bounds[0] == bounds[1]
    assert strategy.takes("dtype")
    assert not strategy.takes("dtypes")


def test_memory_for_what_is_missing_may_be_taken_after_a_conversion() -> None:
    slot = 2**22
    for missing, least in ((0, slot), (slot // 2, slot - slot // 2), (2 * slot, 0)):
        for over, is_breach in ((least, False), (least - 1, True), (slot + 1, True)):
            known = {"missing_bytes": missing, "conversion_slot_bytes": slot, "device_requested_peak_bytes": S + over}
            breaches = peak_breaches(STRATEGIES["streamed"].partial(), record("sim", **known))
            assert ("device_requested_peak_bytes" in breaches) == is_breach, (missing, over)


def test_slack_grows_with_many_tensors() -> None:
    usual = HOST_SLACK_BYTES + int(HOST_SLACK_OF_STATE * S)
    assert host_slack_bytes(S, 1024) == usual
    assert host_slack_bytes(S, 1025) == usual + HOST_SLACK_BYTES_PER_TENSOR


@pytest.mark.parametrize("on", ["cpu", "sim"])
def test_what_building_leaves_is_no_breach(on: str) -> None:
    """A library that the user's function calls is loaded by it, and stays."""
    sequential = STRATEGIES["sequential"]
    whole = {"host_private_peak_bytes": S if on == "sim" else 2 * S, "built_file_bytes": 30_000_000}
    assert peak_breaches(sequential, record(on, host_file_peak_bytes=SLACK + 30_000_000, **whole)) == {}
    assert peak_breaches(sequential, record(on, host_file_peak_bytes=0, **whole)) == {}
    [figure] = peak_breaches(sequential, record(on, host_file_peak_bytes=SLACK + 30_000_001, **whole))
    assert figure == "host_file_peak_bytes"


@pytest.mark.parametrize(("off", "sound"), [(SLACK + 1, "above"), (-SLACK - 1, "below")])
def test_a_host_peak_beyond_its_slack_is_a_breach_on_either_side(off: int, sound: str) -> None:
    baseline = STRATEGIES["baseline"]
    kept, broken = (record("cpu", host_private_peak_bytes=2 * S + by) for by in (off - off // abs(off), off))
    assert peak_breaches(baseline, kept) == {}
    [(figure, breach)] = peak_breaches(baseline, broken).items()
    assert figure == "host_private_peak_bytes"
    assert breach.startswith(f"host private peak is {(2 * S + off) / S:.2f}x")
    assert f"0.03x (28.4 MB) {sound} its bound 2S = 2.00x (2,000.0 MB)" in breach
    assert ("the meter missed it" in breach) == (sound == "below")


@pytest.mark.parametrize("off", [1, -1])
def test_a_requested_device_peak_has_no_slack(off: int) -> None:
    sequential = STRATEGIES["sequential"]
    assert peak_breaches(sequential, record("cuda", device_requested_peak_bytes=S + L)) == {}
    [breach] = peak_breaches(sequential, record("cuda", device_requested_peak_bytes=S + L + off)).values()
    assert breach.startswith("device requested peak is 1.10x")


def test_what_was_not_measured_has_no_gate() -> None:
    for strategy in STRATEGIES.values():
        assert peak_checks(strategy, record("cpu")) == []


def test_a_load_beside_a_device_is_held_to_other_bounds_than_one_into_host_memory() -> None:
    assert STRATEGIES["per_tensor"].bounds.of_peaks(on_host=True) == {
        "host_private_peak_bytes": "S + L",
        "host_file_peak_bytes": "0",
    }
    assert STRATEGIES["per_tensor"].bounds.of_peaks(on_host=False) == {
        "device_requested_peak_bytes": "S",
        "host_private_peak_bytes": "L",
        "host_file_peak_bytes": "0",
        "host_pinned_peak_bytes": "0",
    }


@pytest.mark.parametrize(
    ("strategy", "bound", "measured", "breached"),
    [
        ("sequential", 1.05, 1.10, False),
        ("sequential", 1.05, 1.11, True),
        ("sequential", 1.22, 1.22, False),  # GPT-2 small: S + L is more than the notebook states.
        ("baseline", 1.05, 2.00, False),
    ],
)
def test_the_notebooks_own_figure_is_held_where_s_and_l_allow_it(
    strategy: str, bound: float, measured: float, breached: bool
) -> None:
    filled = record("cuda", device_peak_ratio=measured, device_bound_ratio=bound)
    breaches = list(peak_breaches(STRATEGIES[strategy], filled).values())
    assert breaches == (["device peak is 1.11x, above the 1.1x that is stated for sequential"] if breached else [])
