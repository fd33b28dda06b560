"""The user's code has its own imports, command line, folder and warnings, and cannot end the run."""

import sys
import warnings
from pathlib import Path

import pytest
import torch

import model as package
from model.conftest import refusal
from model.user.from_options import user_model
from model.user.reference import Reference
from model.user.user_code import WARNINGS_FILE, UserCodeFailed
from model.user.user_model import UserModel

# A project as nanoGPT's is laid out: its module `model` has the name of the suite's package.
MODEL = """
from torch import nn

class GPT(nn.Linear):
    pass
"""
SCRIPT = """
import argparse, os, pickle, sys, warnings
from pathlib import Path
import torch
from model import GPT

warnings.warn("on import")
warnings.filterwarnings("ignore", "silenced")
arguments = argparse.ArgumentParser()
arguments.add_argument("--width", type=int, default=8)
WIDTH = arguments.parse_args().width
os.chdir(Path(__file__).parent)

def net():
    import model
    import bench
    Path("here.txt").read_text()
    warnings.warn("silenced")
    warnings.warn("old", FutureWarning)
    warnings.warn("older", DeprecationWarning)
    assert pickle.loads(pickle.dumps(GPT)) is model.GPT is GPT
    assert bench.ONE == 1
    return GPT(WIDTH, WIDTH)

def net_without_warnings():
    warnings.simplefilter("ignore")
    return net()

def load(build, path, device):
    import model
    loaded = build()
    assert type(loaded) is model.GPT
    warnings.warn("in a loader")
    return loaded

def example():
    return torch.ones(1, WIDTH)

SHARED = GPT(8, 8)

def same():
    return SHARED

def backbone():
    return torch.nn.Sequential(SHARED, torch.nn.Linear(8, 8))

def exits():
    sys.exit("no weights")

class Stop(BaseException):
    pass

def stops():
    raise Stop("\\nthe first line that says something\\nand more")

def short():
    raise MemoryError("not enough")
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(WARNINGS_FILE, str(tmp_path / "warnings.txt"))
    for name, text in {"model.py": MODEL, "script.py": SCRIPT, "here.txt": "", "bench/__init__.py": "ONE = 1"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def told(project: Path) -> list[str]:
    return (project / "warnings.txt").read_text().splitlines()


def test_what_lies_beside_the_users_file_comes_before_the_suites(project: Path) -> None:
    modules = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("model", "bench")}
    before = [*sys.path], Path.cwd(), sys.argv, [*warnings.filters]
    model = user_model(f"{project}/script.py:net", example=f"{project}/script.py:example")
    built = model.build()
    assert [output.shape for output in model.outputs(built)] == [(1, 8)]
    assert (type(built).__module__, type(built).__name__) == ("model", "GPT")
    # And nothing of that is in force for the suite.
    assert sys.modules["model"] is package
    assert all(sys.modules[name] is module for name, module in modules.items())
    assert not hasattr(package, "GPT")
    assert sys.path[: len(before[0])] == before[0]
    assert (Path.cwd(), sys.argv, [*warnings.filters]) == before[1:]


def test_its_own_loader_finds_the_same(project: Path) -> None:
    from bench.strategies.user_strategy import user_strategy  # noqa: PLC0415 - the fixture has one of this name, which is not imported

    strategy = user_strategy(f"{project}/script.py:load", None)
    strategy.load(UserModel(Reference(f"{project}/script.py:net")).build, project, torch.device("cpu"))
    assert "script.py:load warns: UserWarning: in a loader (script.py:33)" in told(project)


def test_each_warning_is_told_once_and_is_no_error(project: Path) -> None:
    for _ in range(2):
        user_model(f"{project}/script.py:net").build()
    assert told(project) == [
        "script.py warns: UserWarning: on import (script.py:7)",
        "script.py:net warns: FutureWarning: old (script.py:19)",
        "script.py:net warns: DeprecationWarning: older (script.py:20)",
    ]


def test_its_filters_of_warnings_are_in_force_for_it_alone(project: Path) -> None:
    Reference(f"{project}/script.py:net_without_warnings").get()
    user_model(f"{project}/script.py:net_without_warnings").build()
    assert told(project) == ["script.py warns: UserWarning: on import (script.py:7)"]
    with pytest.raises(UserWarning, match="of the suite"):
        warnings.warn("of the suite", stacklevel=1)


@pytest.mark.parametrize(
    ("factory", "said"),
    [
        ("exits", "script.py:exits fails: SystemExit: no weights, which would end the run; put what a script"),
        ("stops", "script.py:stops fails: Stop: the first line that says something"),
        ("same", "script.py:same returns the same weight in each call, so a load would change it for the next"),
        ("backbone", "script.py:backbone returns the same 0.weight in each call, so a load would change it for the"),
    ],
)
def test_a_factory_that_is_none_is_told_in_a_line(project: Path, factory: str, said: str) -> None:
    assert refusal(user_model, f"{project}/script.py:{factory}").startswith(f"--model: {said}")


def test_that_memory_is_short_is_told_as_it_is(project: Path) -> None:
    with pytest.raises(MemoryError, match="not enough"):
        UserModel(Reference(f"{project}/script.py:short")).build()


def test_an_example_that_does_not_fit_is_told_in_a_line(project: Path) -> None:
    (project / "other.py").write_text(
        "import torch\n\ndef two(): return torch.ones(1, 8), 3\n\ndef none(): raise SystemExit"
    )
    for name, said in {
        "two": "--example-input: other.py:two does not fit script.py:net: TypeError: Linear.forward() takes 2 posit",
        "none": "--example-input: other.py:none fails: SystemExit",
    }.items():
        model = user_model(f"{project}/script.py:net", example=f"{project}/other.py:{name}")
        with pytest.raises(UserCodeFailed) as caught:
            model.outputs(model.build())
        assert str(caught.value).startswith(said)


@pytest.mark.parametrize("code", ["import sys; sys.exit(2)", "raise SystemExit", "import pytest; pytest.skip('no')"])
def test_a_file_that_ends_the_process_is_told_in_a_line(tmp_path: Path, code: str) -> None:
    (tmp_path / "ending.py").write_text(code)
    with pytest.raises(UserCodeFailed, match=r"^ending\.py cannot be imported: (SystemExit|Skipped)"):
        Reference(f"{tmp_path}/ending.py:net").get()


def test_a_package_that_is_the_suites_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(project)
    said = "and model is a package of this suite; name yours as a file, {}:FUNCTION"
    for text, file in (("model:GPT", "model.py"), ("model.gpt:net", "model/gpt.py")):
        with pytest.raises(ValueError, match=said.format(file)):
            Reference(text).get()
    # By the name of its module, a user's finds what lies beside it too.
    (project / "by_name.py").write_text("from model import GPT\n\ndef net(): return GPT(8, 8)")
    assert type(user_model("by_name:net").build()).__name__ == "GPT"


def test_a_folder_that_is_gone_is_no_failure(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "gone").mkdir()
    monkeypatch.chdir(project / "gone")
    (project / "gone").rmdir()
    (project / "plain.py").write_text("def seven(): return 7")
    reference = Reference(f"{project}/plain.py:seven")
    with reference.running():
        assert reference.get()() == 7


def test_what_its_module_imports_from_beside_it_is_known(project: Path) -> None:
    """With other code there the model may answer otherwise: then what its checkpoint says is out of date."""
    reference = Reference(f"{project}/script.py:net")
    assert reference.files == [project / "model.py", project / "script.py"]
    model = user_model(reference.text)
    before = model.identity()
    (project / "model.py").write_text(f"{MODEL}\n# changed")
    assert model.identity() != before


def test_modules_in_the_working_folder_are_found_by_a_file_below_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a project whose `model` package is beside the folder of its scripts."""
    (project / "train").mkdir()
    (project / "train" / "job.py").write_text("from model import GPT\n\ndef net(): return GPT(8, 8)")
    monkeypatch.chdir(project)
    assert type(user_model("train/job.py:net").build()).__name__ == "GPT"
    assert "model.gpt2" in sys.modules, "the suite keeps its own"
