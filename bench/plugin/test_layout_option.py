"""`--layout`: the layout that a checkpoint is saved in, and the strategies that load it."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from bench.measure.expected import blank_record
from bench.plugin.cases import cases, sharded_cases
from bench.plugin.option_texts import ASKED_LAYOUTS
from bench.plugin.test_options import chosen
from bench.sharded.recipes import SHARDED
from bench.strategies import KNOWN, STRATEGIES
from model.layouts.dcp import PLANNED, SAVED
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS


class Net(nn.Linear):
    """A model of a user's."""

    def __init__(self) -> None:
        super().__init__(3, 2)


def test_without_it_every_strategy_loads_its_own_layout(gpus: Any) -> None:
    gpus(0)
    assert {case.strategy_name: case.layout for case in cases(chosen(), real=False)} == {
        name: one.layout for name, one in STRATEGIES.items()
    }


@pytest.mark.parametrize("layout", ASKED_LAYOUTS)
def test_strategies_that_load_it_are_measured_and_no_others(gpus: Any, layout: str) -> None:
    gpus(0)
    settings = chosen(layout=layout, strategies="all,peers")
    assert settings.strategies == tuple(name for name, one in KNOWN.items() if layout in one.layouts)
    measured = cases(settings, real=False)
    assert {case.layout for case in measured} == {layout}
    assert [str(case) for case in measured] == [f"{name}-small-sim-{layout}" for name in settings.strategies]
    assert {case.specification.name for case in measured if not case.specification.family} == {
        f"gpt2-small-float32-{layout}"
    }


def test_many_ranks_load_the_one_that_is_saved(gpus: Any) -> None:
    gpus(0)
    measured = sharded_cases(chosen(sharded=True, layout="dcp", ranks="2,4", parallelism="fsdp"), real=True)
    assert [str(case) for case in measured] == [f"dcp-fsdp-small-x{count}-cpu-dcp" for count in (2, 4)]
    assert len({case.specification for case in measured}) == 1
    able = {case.strategy_name for case in sharded_cases(chosen(sharded=True, layout="safetensors"), real=False)}
    assert able == {name for name, one in SHARDED.items() if "safetensors" in one.layouts}


def test_the_users_checkpoint_is_saved_in_it(gpus: Any, tmp_path: Path) -> None:
    gpus(0)
    LAYOUTS["torch"].save(Net().state_dict(), tmp_path, save_plain)
    own = {"model": f"{__name__}:Net", "checkpoint": str(tmp_path / "checkpoint.pt")}
    there, saved = (
        cases(chosen(**own, strategies="streamed", layout=layout), real=False)[0] for layout in (None, "safetensors")
    )
    assert (there.layout, saved.layout) == ("torch", "safetensors")
    assert there.specification.in_place is not None
    assert saved.specification.in_place is None


def test_a_record_has_the_layout_that_was_asked_for_and_how_it_was_saved(gpus: Any) -> None:
    gpus(0)
    asked, planned = (
        blank_record(sharded_cases(chosen(sharded=True, layout="dcp", **more), real=False)[0])
        for more in ({}, {"plan": True})
    )
    assert (asked.layout, asked.asked_layout) == ("dcp", "dcp")
    assert asked.saved_with == SAVED.as_record()
    assert planned.saved_with == PLANNED.as_record() != SAVED.as_record()
    other = blank_record(cases(chosen(sizes="tiny"), real=False)[0])
    assert (other.layout, other.asked_layout, other.saved_with) == (other.layout, None, None)
