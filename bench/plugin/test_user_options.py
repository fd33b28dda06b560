import re
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.history.runs import Key
from bench.measure.case import Case
from bench.measure.expected import blank_record
from bench.plugin.cases import cases, conformance_cases, judged_cases, roofline_cases
from bench.plugin.history_scope import belongs
from bench.plugin.run_results import notes
from bench.plugin.test_options import chosen
from bench.plugin.user_modules import folders
from bench.strategies import STRATEGIES
from bench.strategies.strategy import Bounds
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS

CODE = """
from torch import nn

def make():
    return nn.Linear(3, 2)

def mine(build, path, device, *, fast=False):
    pass

def other(build, path, device):
    pass

def sharded(build, path, device):
    pass

def streamed(build, path, device):
    pass

def two(build, path):
    pass

sharded.layout = "torch_sharded"
other.layout = "zarr"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


def test_a_model_is_measured_with_every_strategy_under_its_own_name(file: Path) -> None:
    of_mine = chosen(model=f"{file}:make")
    assert (of_mine.sizes, of_mine.dtype) == (("make",), "float32")
    assert [str(case) for case in cases(of_mine, real=True)] == [f"{name}-make-cpu" for name in STRATEGIES]
    [case, *_] = cases(of_mine, real=False)
    assert case.specification.footprint.state_bytes == 4 * (3 * 2 + 2)
    assert case.rehearsal.user_model is None
    assert blank_record(case).model == "mine.py:make"


def test_a_loader_stands_beside_the_others(file: Path) -> None:
    settings = chosen(strategies="baseline", loader=[f"{file}:mine", f"{file}:sharded"], loader_bound=["S + L", "2S"])
    assert settings.strategies == ("baseline", "mine", "sharded")
    mine, sharded = (settings.own_strategies[name] for name in ("mine", "sharded"))
    assert mine.bounds == Bounds(device="S + L", cpu="S + L")
    assert sharded.bounds.device == "2S"
    by_name = {case.strategy_name: case for case in cases(settings, real=False)}
    assert by_name["mine"].layout == "torch"
    assert by_name["sharded"].layout == "torch_sharded"
    assert by_name["baseline"].user_strategy is None
    assert Path(mine.source) == file
    assert blank_record(by_name["mine"]).host_bound_ratio is None


def test_one_bound_is_for_all(file: Path) -> None:
    settings = chosen(loader=[f"{file}:mine", f"{file}:sharded"], loader_bound=["S"])
    assert [one.bounds.device for one in settings.own_strategies.values()] == ["S", "S"]


@pytest.mark.parametrize(("layout", "given"), [("torch", "torch"), ("safetensors", "safetensors")])
def test_a_loader_is_given_the_checkpoint_as_it_is(file: Path, tmp_path: Path, layout: str, given: str) -> None:
    LAYOUTS[layout].save(torch.nn.Linear(3, 2).state_dict(), tmp_path, save_plain)
    path = tmp_path / LAYOUTS[layout].entrance
    options = {"model": f"{file}:make", "checkpoint": str(path), "loader": [f"{file}:mine", f"{file}:sharded"]}
    by_name = {case.strategy_name: case for case in cases(chosen(**options), real=False)}
    assert {name: case.layout for name, case in by_name.items()} == dict.fromkeys(STRATEGIES, given) | {
        "per_tensor": "per_tensor",
        "mine": given,
        "sharded": "torch_sharded",
    }
    # Who wants another layout than the user has gets a copy.
    assert {name for name, case in by_name.items() if case.specification.in_place is None} == {"per_tensor", "sharded"}
    # A loader of the user's may know no model but the user's.
    assert by_name["mine"].rehearsal == by_name["mine"].specification
    assert by_name["streamed"].rehearsal.user_model is None


def test_the_conformance_of_strategies_that_are_not_the_users_is_not_asked_of_the_users_model(file: Path) -> None:
    options: dict[str, Any] = {"model": f"{file}:make", "loader": [f"{file}:mine"]}
    for asked, tried in (
        (options, {"mine"}),
        (options | {"conformance": True}, {*STRATEGIES, "mine"}),
        ({"loader": [f"{file}:mine"]}, {*STRATEGIES, "mine"}),
    ):
        assert {case.strategy_name for case in conformance_cases(chosen(**asked))} == tried
    assert conformance_cases(chosen(**options))[0].strategy.name == "mine"


@pytest.mark.parametrize(
    ("strategies", "measured"),
    [
        ("baseline", ["baseline", "mine", "sharded"]),
        ("mine", ["mine", "sharded"]),
        ("sharded", ["sharded"]),
        ("streamed,sharded", ["streamed", "sharded"]),
    ],
)
def test_strategies_may_name_the_users_loaders_and_then_no_others_of_them_run(
    file: Path, strategies: str, measured: list[str]
) -> None:
    loaders = [f"{file}:sharded", f"{file}:mine"]
    settings = chosen(strategies=strategies, loader=loaders, model=f"{file}:make")
    assert sorted(settings.strategies) == sorted(measured)
    own = {case.strategy.name for case in conformance_cases(settings)}
    assert own == {"mine", "sharded"} & set(measured)


def test_a_loader_of_the_users_is_judged_whatever_the_model_and_may_have_properties_tolerated(file: Path) -> None:
    options: dict[str, Any] = {"strategies": "baseline", "loader": [f"{file}:mine"], "tolerate": "dtype, moved"}
    settings = chosen(**options)
    assert [str(case) for case in judged_cases(settings)] == ["mine-small-cpu"]
    assert [str(case) for case in judged_cases(chosen(**options, model=f"{file}:make"))] == [
        "baseline-make-cpu",
        "mine-make-cpu",
    ]
    assert {(one.strategy_name, one.property_name) for one in conformance_cases(settings) if one.is_tolerated} >= {
        ("mine", "dtype"),
        ("mine", "moved"),
    }
    assert {one.property_name for one in conformance_cases(settings) if one.is_tolerated} == {"dtype", "moved"}
    assert judged_cases(chosen(strategies="baseline")) == []


def test_a_checkpoint_becomes_the_models_as_it_is_wanted(file: Path, tmp_path: Path) -> None:
    torch.save({"old.weight": torch.ones(2, 3), "epoch.mean": torch.ones(1)}, tmp_path / "weights.pt")
    options: dict[str, Any] = {
        "model": f"{file}:make",
        "checkpoint": str(tmp_path / "weights.pt"),
        "rename": ["old=new", r"new\.(.*)=\1"],
        "allow_missing": ["bias"],
        "allow_surplus": ["epoch.*"],
    }
    settings = chosen(**options, loader=[f"{file}:mine"])
    assert settings.own
    assert settings.own.missing == ("bias",)
    [note] = notes(settings)
    assert note == (
        "make: the state dict of weights.pt is saved as a checkpoint of its own: names by --rename old=new; names by "
        "--rename new\\.(.*)=\\1; without 'epoch.mean'; the model keeps what it starts with in 'bias', and its outputs "
        "are not compared"
    )
    # A plan loads as much of the model.
    for case in (*cases(settings, real=True), *cases(chosen(**options, plan=True), real=False)):
        assert case.specification.keywords == {"missing": ("bias",)}
        assert case.specification.footprint.state_bytes == 4 * 8
        assert case.specification.checkpoint_bytes == 4 * 6


def test_what_is_the_users_is_known_by_its_folders(file: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "run" / "weights")
    settings = chosen(model=f"{file}:make", checkpoint=str(tmp_path / "run"), loader=[f"{file}:mine"])
    assert set(folders(settings)) == {tmp_path, tmp_path / "run"}
    assert folders(chosen()) == []


def test_of_a_benchmark_of_the_users_that_is_gone_something_is_missed(file: Path) -> None:
    settings = chosen(loader=[f"{file}:mine"])
    record = blank_record(Case("mine", "small", "sim", "float32", user_strategy=settings.own_strategies["mine"]))
    assert belongs(settings, record)
    assert not belongs(chosen(strategies="baseline"), record)
    # A loader that nobody asked for is not missed among the strategies, nor is one of that name in another file.
    assert not belongs(chosen(), record)
    assert not belongs(settings, record.with_fields(loader="other.py:mine"))


def test_of_another_model_of_the_same_name_nothing_is_missed(file: Path, tmp_path: Path) -> None:
    settings = chosen(model=f"{file}:make")
    [case, *_] = cases(settings, real=False)
    record = blank_record(case)
    assert belongs(settings, record)
    assert not belongs(chosen(), record.with_fields(size="small"))
    assert not belongs(settings, record.with_fields(model=None, state_digest=None))
    assert not belongs(settings, record.with_fields(model="other.py:make"))
    assert not belongs(settings, record.with_fields(state_digest="another"))
    # Of an earlier version.
    assert not belongs(settings, record.with_fields(state_digest=None))
    # Wherever the file lies.
    (tmp_path / "moved").mkdir()
    moved = file.rename(tmp_path / "moved" / file.name)
    assert belongs(chosen(model=f"{moved}:make"), record)
    [again, *_] = cases(chosen(model=f"{moved}:make"), real=False)
    assert Key.of("", blank_record(again)) == Key.of("", record)
    moved.write_text(CODE.replace("(3, 2)", "(3, 3)"))
    (tmp_path / "again").mkdir()
    changed = chosen(model=f"{moved.rename(tmp_path / 'again' / file.name)}:make")
    assert not belongs(changed, record)
    assert Key.of("", blank_record(cases(changed, real=False)[0])) != Key.of("", record)
    assert all(blank_record(limit).state_digest == record.state_digest for limit in roofline_cases(settings))


def test_weights_in_a_folder_are_wanted_but_for_a_plan_or_beside_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["None"]}')
    for options, said in (
        ({}, f"--model: {tmp_path.name} has no weights, such as model.safetensors; "),
        ({"plan": True}, f"--model: {tmp_path.name}/config.json: "),
        # What is missing in them, they say.
        ({"plan": True, "allow_missing": ["head.*"]}, f"--model: {tmp_path.name} has no weights, such as "),
        ({"checkpoint": "x"}, f"--model: {tmp_path.name}/config.json: "),
    ):
        with pytest.raises(ValueError, match=rf"^{re.escape(said)}"):
            chosen(model=str(tmp_path), **options)
