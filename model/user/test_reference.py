import sys
from pathlib import Path

import pytest

from model.conftest import refusal
from model.run_folder import VARIABLE
from model.user.reference import Reference

CODE = """
from beside import VALUE

CONSTANT = 7

def make():
    return VALUE

def needs(width, depth=2, *rest, **more):
    pass

class Models:
    @staticmethod
    def small():
        return "small"
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "beside.py").write_text("VALUE = 42")
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


def test_a_function_of_a_file_finds_what_lies_beside_it(file: Path) -> None:
    assert Reference(f"{file}:make").get()() == 42
    assert Reference(f"{file}:Models.small").get()() == "small"
    assert Reference("os.path:join").get()("a", "b") == "a/b"


def test_files_of_one_name_are_two(file: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.py").write_text("def make(): return 43")
    one, other = (Reference(f"{path}:make").get() for path in (file, tmp_path / "other" / "mine.py"))
    assert (one(), other()) == (42, 43)
    # Each is found by the name of its module.
    assert sys.modules[one.__module__].make is one
    assert sys.modules[other.__module__].make is other


def test_it_is_found_from_another_folder(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    reference = Reference.of("mine.py:make")
    monkeypatch.chdir("/")
    assert reference.get()() == 42
    assert (reference.name, reference.display_name) == ("make", "mine.py:make")
    assert Reference.of("os.path:join") == Reference("os.path:join")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (":make", "':make' names no function; write file.py:function or package.module:function"),
        ("{file}:Models.large", "mine.py has no 'Models.large'; choose from Models, make, needs"),
    ],
)
def test_what_cannot_be_called_is_told_in_a_line(file: Path, text: str, said: str) -> None:
    assert refusal(Reference(text.format(file=file)).without_arguments).startswith(said)


@pytest.mark.parametrize("code", ["raise OSError('first\\nsecond')", "def f(:", "import no_such_module"])
def test_a_file_that_cannot_be_imported_is_told_in_a_line(tmp_path: Path, code: str) -> None:
    (tmp_path / "broken.py").write_text(code)
    with pytest.raises(ValueError, match=r"^broken\.py cannot be imported: [A-Za-z]+Error: ") as caught:
        Reference(f"{tmp_path}/broken.py:make").get()
    assert "\n" not in str(caught.value)


SPAWNS = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

def double(number):
    return 2 * number

def doubled():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(double, 21).result()
"""


def test_a_process_that_it_spawns_finds_its_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "spawns.py").write_text(SPAWNS)
    assert Reference.of(f"{tmp_path / 'spawns.py'}:doubled").get()() == 42
