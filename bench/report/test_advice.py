from typing import Any

import pytest

from bench.cases.case import Case
from bench.cases.planning import halved, largest_block, plan
from bench.meters.measure import Measurement
from bench.meters.process import LoadDied
from bench.report.advice import Advice, advised
from bench.report.rows import Outcome, Row, rows

GIB, MIB = 2**30, 2**20


def row(strategy: str, *, fits: bool | None = True, problem: str | None = None, **record: Any) -> Row:
    known = {
        "strategy": strategy,
        "state_bytes": GIB,
        "device_budget_bytes": 2 * GIB,
        "device_reserved_peak_bytes": GIB,
        "host_private_peak_bytes": 0,
        "fits": fits,
        "ownership": "owned",
    }
    return Row(strategy, record.pop("size", "small"), known | record, (problem,) if problem else ())


def never(_: Case) -> Measurement:
    raise AssertionError("nothing has to be planned")


def said(*table: Row) -> Advice:
    advice = advised(table, [], never)
    assert advice
    return advice


def test_where_nothing_was_tried_nothing_is_said() -> None:
    assert advised([row("baseline", fits=None)], [], never) is None
    assert advised([], [], never) is None


def test_the_fastest_of_those_that_fit_is_to_be_used() -> None:
    advice = said(
        row("baseline", fits=False, first_logits_seconds=0.1),
        row("load_assign", first_logits_seconds=1.0),
        row("streamed", first_logits_seconds=0.4, device_reserved_peak_bytes=3 * GIB // 2),
    )
    assert advice.strategy == "streamed"
    assert advice.lines == (
        "Use streamed for small: it fits, taking 1.5 GiB of 2 GiB of the device; first logits come after 0.40 s, 2.5 "
        "times as fast as with load_assign, the next.",
        "baseline does not fit.",
    )


def test_of_those_that_are_as_fast_the_one_that_takes_less() -> None:
    advice = said(
        row("streamed", first_logits_seconds=0.40, host_private_peak_bytes=64 * MIB),
        row("load_assign", first_logits_seconds=0.43),
        row("baseline", fits=False),
        row("sequential", fits=False),
    )
    assert advice.strategy == "load_assign"
    assert "first logits come after 0.43 s, as soon as with streamed, which takes more." in advice.lines[0]
    assert advice.lines[1] == "baseline, sequential do not fit."


def test_without_times_the_one_that_takes_least() -> None:
    advice = said(row("load_assign", device_reserved_peak_bytes=GIB + 1), row("streamed"))
    assert advice.lines == (
        "Use streamed for small: it fits, taking 1 GiB of 2 GiB of the device, and takes least of the 2 that do.",
    )


def test_what_fits_and_fails_otherwise_is_not_to_be_used() -> None:
    advice = said(row("streamed", problem="a weight is wrong", first_logits_seconds=0.1), row("load_assign"))
    assert advice.strategy == "load_assign"
    assert advice.lines[-1] == "streamed failed otherwise."


def test_of_a_mapped_model_the_file_has_to_stay() -> None:
    table = row("mmap_assign", ownership="mapped", host_budget_bytes=GIB, device_budget_bytes=None)
    advice = said(table)
    assert "0 MiB of the host's 1 GiB beside an empty process" in advice.lines[0]
    assert (
        advice.lines[1]
        == "Its weights stay in the pages of the file, which has to stay as it is while the model is used."
    )


def test_the_largest_model_counts() -> None:
    advice = said(row("streamed", size="small"), row("load_assign", size="large", state_bytes=3 * GIB))
    assert advice.strategy == "load_assign"
    assert "for large" in advice.lines[0]


def test_its_code_is_there_to_be_pasted(tmp_path: Any) -> None:
    advice = said(row("streamed"))
    code = advice.code()
    assert code
    compile(code, "load_streamed.py", "exec")
    assert advice.how_to_use(tmp_path / "load_streamed.py") == [
        f"Its code, torch and the standard library only: {tmp_path}/load_streamed.py, {len(code.splitlines())} lines",
        "    from load_streamed import streamed",
        '    model = streamed(build, "checkpoint.pt", torch.device("cuda"))  # build() makes your model',
    ]
    assert "written when the run is recorded" in advice.how_to_use(None)[0]
    assert said(row("mine")).how_to_use(None) == []


def test_where_none_fits_what_would_is_planned() -> None:
    """Of small, whose segments take 698 MiB: half of that in bfloat16, and two devices, would do."""
    cases = [Case(name, "small", "sim", "float32") for name in ("baseline", "load_assign")]
    table = [row(case.strategy_name, fits=False, device_budget_bytes=600 * MIB) for case in cases]
    advice = advised(table, cases, plan)
    assert advice
    assert (advice.strategy, advice.code(), advice.how_to_use(None)) == (None, None, [])
    assert advice.lines == (
        "No strategy loads small with this memory. What would, by plan:",
        "  another strategy, maybe: sequential, meta_sequential, mmap_assign, per_tensor, streamed were not tried",
        "  bfloat16: load_assign takes 370 MiB of the device and 73.6 MiB of the host, which fits",
        "  sharding: 2 devices with about 349 MiB each, of 698 MiB",
        "  offloading: weights on the host, a block at a time on the device: 147.2 MiB for tok_emb, which fits",
    )


def test_what_would_not_fit_either_is_said() -> None:
    case = Case("load_assign", "small", "sim", "float32")
    advice = advised([row("load_assign", fits=False, device_budget_bytes=100 * MIB)], [case], plan)
    assert advice
    assert "which does not fit" in advice.lines[2]
    assert "sharding: 7 devices with about 147.2 MiB each" in advice.lines[3]
    assert advice.lines[4].endswith("147.2 MiB for tok_emb, which does not fit")


def test_what_cannot_be_planned_is_said() -> None:
    def dies(_: Case) -> Measurement:
        raise LoadDied("gone")

    case = Case("load_assign", "small", "sim", "float32")
    advice = advised([row("load_assign", fits=False)], [case], dies)
    assert advice
    assert advice.lines[-1] == "  nothing can be said: load_assign cannot be planned: gone"


def test_loaders_of_other_projects_are_not_planned() -> None:
    """What theory says nothing of would pass for what takes least."""
    cases = [Case(name, "small", "sim", "float32") for name in ("dcp", "load_assign")]
    table = [row(case.strategy_name, fits=False, device_budget_bytes=600 * MIB) for case in cases]
    advice = advised(table, cases, plan)
    assert advice
    assert "  bfloat16: load_assign takes 370 MiB of the device and 73.6 MiB of the host, which fits" in advice.lines
    alone = advised(table[:1], cases[:1], plan)
    assert alone
    assert len(alone.lines) == 2
    assert "were not tried" in alone.lines[1]


def test_a_model_is_halved_once() -> None:
    case = Case("load_assign", "small", "sim", "float32")
    half = halved(case)
    assert half
    # The masks stay float32.
    assert half.specification.footprint.state_bytes == 376_406_016
    assert halved(half) is None


def test_the_largest_block_of_a_model_is_one_of_a_sequence_or_a_part_beside_it() -> None:
    assert largest_block(Case("load_assign", "small", "sim", "float32")) == ("tok_emb", 154_389_504)
    assert largest_block(Case("load_assign", "xl", "sim", "float32"))[0] == "tok_emb"
    assert largest_block(Case("load_assign", "gpt3", "sim", "float32"))[0].startswith("trf_blocks.")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_was_tried_stays_when_a_row_is_put_together(order: tuple[int, int]) -> None:
    outcomes = [
        Outcome("streamed", "small", "ok", {"strategy": "streamed", "state_bytes": 1, "device_reserved_peak_bytes": 7}),
        Outcome("streamed", "small", "ok", {"strategy": "streamed", "state_bytes": 1, "fits": False, "fate": "killed"}),
    ]
    [whole] = rows(outcomes[place] for place in order)
    assert (whole.record["fits"], whole.record["device_reserved_peak_bytes"]) == (False, 7)
