from pathlib import Path
from typing import Any

import pytest

from bench.plugin.cases import sharded_cases
from bench.plugin.divisions import division_notes
from bench.plugin.rank_groups import rank_prefix
from bench.plugin.test_options import chosen
from bench.selftest import decoder
from model.parallel.division import Division
from model.user.reference import Reference

MODEL = "bench.selftest.decoder:decoder"
PLAN = "bench.selftest.decoder:PLAN"


def divided(**options: Any) -> tuple[Division, ...]:
    return chosen(sharded=True, **options).divisions


def test_a_model_is_divided_by_fsdp_and_by_its_plan_if_there_is_one() -> None:
    assert divided() == (Division("fsdp"), Division("tensor"))
    assert divided(parallelism="tensor") == (Division("tensor"),)
    assert divided(model=MODEL) == (Division("fsdp"),)
    assert divided(model=MODEL, tp_plan=PLAN) == (Division("fsdp"), Division("tensor", tp_plan=Reference(PLAN)))
    assert divided(model=MODEL, wrap=["Block", "Embedding"]) == (Division("fsdp", ("Block", "Embedding")),)
    assert divided(wrap=["TransformerBlock"])[0] == Division("fsdp", ("TransformerBlock",))
    assert chosen(model=MODEL).divisions == ()


def test_every_way_is_a_case_of_every_strategy() -> None:
    settings = chosen(sharded=True, model=MODEL, tp_plan=PLAN, strategies="streamed,dcp", cast="bfloat16", ranks="3")
    found = sharded_cases(settings, real=True)
    assert [str(case) for case in found] == [
        f"{strategy}-{way}-decoder-x3-cpu" for way in ("fsdp", "tensor") for strategy in ("streamed", "dcp")
    ]
    assert {case.cast for case in found} == {"bfloat16"}
    assert {case.specification.user_model for case in found} == {settings.own}
    # What is loaded first is no model of the user's: nothing that is said of that is for it.
    assert found[2].rehearsal.user_model is None


def test_a_line_says_how_the_users_model_is_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    def notes(**options: Any) -> list[str]:
        settings = chosen(sharded=True, **options)
        return division_notes(settings.divisions, settings.own)

    assert notes() == []
    assert notes(model=MODEL) == [
        "fsdp: FSDP2 shards Block x 3, one by one",
        "tensor: not measured, because the model has no tensor-parallel plan; give one with --tp-plan",
    ]
    assert notes(model=MODEL, tp_plan=PLAN, wrap=["LayerNorm"]) == [
        "fsdp: FSDP2 shards LayerNorm x 3, one by one",
        "tensor: the plan of --tp-plan divides 18 layers",
    ]
    monkeypatch.setattr(decoder.Decoder, "tp_plan", {"blocks.0.norm": "colwise"}, raising=False)
    assert notes(model=MODEL)[1] == "tensor: the plan of the model cannot be followed"


def test_a_file_of_the_users_has_its_plan(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def plan():\n    return {'blocks.0.up_proj': 'colwise'}\n")
    [_, tensor] = divided(model=MODEL, tp_plan=f"{tmp_path / 'mine.py'}:plan")
    assert tensor.tp_plan == Reference(f"{tmp_path / 'mine.py'}:plan")
    (tmp_path / "wrong.py").write_text("def plan():\n    raise KeyError('gone')\n")
    with pytest.raises(ValueError, match=r"^--tp-plan: wrong\.py:plan fails: KeyError: 'gone'$"):
        divided(model=MODEL, tp_plan=f"{tmp_path / 'wrong.py'}:plan")


def test_an_error_of_a_process_of_torchrun_begins_with_its_rank() -> None:
    assert rank_prefix({}) == rank_prefix({"RANK": "3"}) == ""
    assert rank_prefix({"RANK": "3", "LOCAL_RANK": "1"}) == "rank 3: "
