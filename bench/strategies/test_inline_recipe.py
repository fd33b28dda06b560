import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import nn

from bench.strategies import STRATEGIES, Strategy, inline_recipe
from bench.strategies.inline_recipe import pasteable
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS

# Run where nothing of this suite can be imported: loads with every module, and compares what comes with what was saved.
LOADS = """
import importlib, sys, torch
from pathlib import Path
from torch import nn

sys.path.insert(0, ".")
try:
    import bench
    raise SystemExit("the suite can be imported")
except ImportError:
    pass

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight

saved = torch.load("state.pt", weights_only=True)
for line in Path("loads").read_text().splitlines():
    name, path = line.split()
    load = getattr(importlib.import_module(f"load_{name}"), name)
    model = load(Tied, Path(path), torch.device("cpu"))
    found = model.state_dict()
    assert found.keys() == saved.keys(), line
    assert all(torch.equal(found[key], saved[key]) for key in saved), line
    assert model.head.weight is model.embed.weight, line
    print(line)
"""


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.norm = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight


def test_what_is_pasted_loads_by_itself(tmp_path: Path) -> None:
    state_dict = Tied().state_dict()
    torch.save(state_dict, tmp_path / "state.pt")
    loads = []
    for layout, row in LAYOUTS.items():
        (tmp_path / layout).mkdir()
        row.save(state_dict, tmp_path / layout, save_plain)
    for strategy in STRATEGIES.values():
        (tmp_path / f"load_{strategy.name}.py").write_text(pasteable(strategy))
        loads += [f"{strategy.name} {layout}/{LAYOUTS[layout].entrance}" for layout in strategy.layouts]
    (tmp_path / "loads").write_text("\n".join(loads))
    command = (sys.executable, "-I", "-W", "ignore:Failed to initialize NumPy", "-c", LOADS)
    run = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == loads


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_what_is_pasted_has_nothing_that_it_does_not_need(strategy: Strategy) -> None:
    """Every name that it imports or defines is used, but for the recipe's own."""
    text = pasteable(strategy)
    names = Counter(one.id for one in ast.walk(ast.parse(text)) if isinstance(one, ast.Name))
    for node in ast.parse(text).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert all(names[alias.name.partition(".")[0]] for alias in node.names), ast.unparse(node)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert names[node.name] or node.name == strategy.name, node.name
    assert "bench" not in text


def test_what_is_pasted_keeps_the_comments_of_its_constants() -> None:
    assert "# What is worth a call at least.\nREAD_PAGES = " in pasteable(STRATEGIES["streamed"])


def test_what_is_pasted_says_how_it_is_called() -> None:
    first = pasteable(STRATEGIES["streamed"]).splitlines()[0]
    assert first == '"""Loads a checkpoint into a model: `model = streamed(build, path, device)`."""'


def test_two_definitions_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reading").mkdir()
    (tmp_path / "reading" / "one.py").write_text("def helper():\n    return 1\n\n\ndef first():\n    return helper()\n")
    (tmp_path / "mine.py").write_text(
        dedent("""
        from bench.strategies.reading.one import first

        def helper():
            return 2

        def mine(build, path, device):
            return first() + helper()
        """)
    )
    monkeypatch.setattr(inline_recipe, "FOLDER", tmp_path)
    monkeypatch.setattr(Strategy, "source", property(lambda _: str(tmp_path / "mine.py")))
    monkeypatch.setattr(Strategy, "name", property(lambda _: "mine"))
    with pytest.raises(ValueError, match=r"both define helper: rename one of them"):
        pasteable(STRATEGIES["baseline"])
