import ast
import sys
from collections.abc import Callable
from functools import partial
from inspect import getsource, signature
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.conformance.properties import PROPERTIES
from bench.strategies import STATED_DEVICE_RATIO, STRATEGIES, Strategy
from bench.strategies.bounds import bound_bytes
from model.checkpoints import DTYPES, Checkpoint, Specification, make
from model.gpt2 import CONFIGS, GPT2, REHEARSAL
from model.layouts import LAYOUTS
from model.verify import check_model

CPU = torch.device("cpu")

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)


@every_strategy
def test_a_recipe_can_be_pasted(strategy: Strategy) -> None:
    """It imports torch and the standard library only, and says in a sentence what it does."""
    path = Path(strategy.load.__code__.co_filename)
    assert path.name == f"{strategy.name}.py"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            assert {str(name).partition(".")[0] for name in names} <= {"torch", *sys.stdlib_module_names}
    assert list(signature(strategy.load).parameters) == ["build", "path", "device"]
    assert strategy.load.__doc__
    assert len(getsource(strategy.load).splitlines()) < 40


def test_what_recipes_have_in_common_is_the_same_in_all() -> None:
    """Each has its own copy, to be pasted: what is mended in one is to be mended in the others."""
    inner = {
        ast.unparse(node)
        for strategy in STRATEGIES.values()
        for node in ast.walk(ast.parse(getsource(strategy.load)))
        if isinstance(node, ast.FunctionDef) and node.name == "form"
    }
    assert len(inner) == 1


@every_strategy
def test_a_row_of_the_table_makes_sense(strategy: Strategy) -> None:
    assert strategy.layout in LAYOUTS
    for expression in (strategy.device, strategy.host, strategy.one_pool, strategy.file):
        assert bound_bytes(expression, 100, 10) in {0, 10, 100, 110, 200}
    assert strategy.refused("cuda") <= PROPERTIES.keys()
    assert STATED_DEVICE_RATIO.keys() <= STRATEGIES.keys()


@pytest.mark.parametrize("dtype", DTYPES)
@every_strategy
def test_the_model_is_the_one_that_was_saved(strategy: Strategy, dtype: str, tmp_path: Path) -> None:
    specification = Specification(REHEARSAL, dtype, strategy.layout)
    make(specification, tmp_path / "made", lambda _: None)
    checkpoint = Checkpoint(specification, tmp_path / "made")
    check_model(checkpoint, CPU, strategy.load(specification.build, checkpoint.path, CPU))


def without_a_mask(state_dict: dict[str, Tensor]) -> None:
    del state_dict["trf_blocks.0.att.mask"]


def with_one_more(state_dict: dict[str, Tensor]) -> None:
    state_dict["stranger"] = torch.ones(1)


@pytest.mark.parametrize(("change", "name"), [(without_a_mask, "trf_blocks.0.att.mask"), (with_one_more, "stranger")])
@every_strategy
def test_a_missing_or_unexpected_key_is_named(
    strategy: Strategy, change: Callable[[dict[str, Tensor]], None], name: str, tmp_path: Path
) -> None:
    build = partial(GPT2, CONFIGS[REHEARSAL])
    state_dict = dict(build().state_dict())
    change(state_dict)
    layout = LAYOUTS[strategy.layout]
    layout.save(state_dict, tmp_path, torch.save)
    with pytest.raises(ValueError, match=name):
        strategy.load(build, tmp_path / layout.entrance, CPU)
