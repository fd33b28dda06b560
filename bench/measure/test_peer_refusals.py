"""Messages for models that loaders of other projects do not load."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.measure.case import Case
from bench.measure.peer_refusals import features, one_line, refusal
from bench.measure.refusals import skip_reason
from bench.meters.process import LoadDied, LoadEnded, LoadFailed
from bench.plugin.failures import failures_reported
from bench.strategies import PEERS
from bench.strategies.peers import Peer
from model.user.from_options import user_model
from model.user.source import Source
from model.user.user_model import UserModel

CODE = """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.head = nn.Linear(8, 8), nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8)

class Tied(Model):
    def __init__(self):
        super().__init__()
        self.head.weight = self.one.weight
        self.register_buffer("angles", torch.ones(8), persistent=False)

class Views(Model):
    def __init__(self):
        super().__init__()
        both = torch.ones(2, 8)
        self.a, self.b = nn.Parameter(both[0]), nn.Parameter(both[1])

class Complex(Model):
    def __init__(self):
        super().__init__()
        self.rotation = nn.Parameter(torch.ones(8, dtype=torch.complex128))

def model():
    return Model()

def tied():
    return Tied()

def views():
    return Views()

def rare():
    return Complex()
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path / "mine.py"


def own_of(mine: Path, name: str) -> UserModel:
    return user_model(f"{mine}:{name}", None, None, None)


def case_of(mine: Path, strategy: str, name: str, device: str = "cpu") -> Case:
    return Case(strategy, name, device, "float32", user_model=own_of(mine, name))


def test_what_a_model_has_is_found_with_the_names_of_it(mine: Path) -> None:
    plain = {"buffers": ["norm.running_mean", "norm.running_var", "norm.num_batches_tracked"]}
    plain["empty"] = ["norm.num_batches_tracked"]
    assert features(own_of(mine, "model").skeleton()) == plain
    tied = {"ties": ["one.weight", "head.weight"], "nonpersistent": ["angles"]}
    assert features(own_of(mine, "tied").skeleton()) == plain | tied
    assert features(own_of(mine, "rare").skeleton()) == plain | {"dtypes": ["rotation"]}


ANGLES = LoadFailed("WrongModel: angles is on meta, not on cuda")
MISSING = LoadFailed('RuntimeError: Error(s):\n\tMissing key(s) in state_dict: "head.weight". ')


@pytest.mark.parametrize(
    ("strategy", "model", "error", "expected"),
    [
        (
            *("safetensors", "tied", ANGLES),
            "refused: it loads buffers that no state dict holds wrongly: angles is on meta, not on cuda",
        ),
        (
            *("safetensors", "tied", MISSING),
            "refused: it does not load tied weights: RuntimeError: Error(s): Missing key(s) in state_dict: "
            '"head.weight"',
        ),
        (
            "flashpack",
            "model",
            LoadFailed("WrongModel: norm.num_batches_tracked differs"),
            "refused: it loads tensors ",
        ),
        # Another tensor, another loader, another kind of end: of these no row says anything.
        ("safetensors", "tied", LoadFailed("WrongModel: one.weight differs in 1 of 64 values"), None),
        ("safetensors_load_model", "tied", ANGLES, None),
        ("safetensors", "model", MISSING, None),
        ("safetensors", "tied", LoadDied("the process of the load died: killed by SIGSEGV"), None),
        ("tensorizer", "tied", LoadFailed("OSError: no such file"), None),
        ("tensorizer", "tied", LoadFailed("KeyError: angles"), "refused: it does not load buffers that no"),
    ],
)
def test_a_load_that_ends_as_its_row_says_is_refused_in_a_line(
    mine: Path, strategy: str, model: str, error: LoadEnded, expected: str | None
) -> None:
    reason = refusal(PEERS[strategy], "cpu", own_of(mine, model), error)
    assert reason is expected is None or (reason and expected and reason.startswith(expected) and "\n" not in reason)


def test_so_is_one_that_ends_its_process(mine: Path) -> None:
    peer = Peer("absent", "nothing", "real module", "load", "its own", dies="ties")
    died = LoadDied("the process of the load died: killed by SIGSEGV")
    reason = refusal(replace(PEERS["dcp"], peer=peer), "cpu", own_of(mine, "tied"), died)
    assert reason == "refused: tied weights end its process: the process of the load died: killed by SIGSEGV"


def test_it_says_what_to_use_instead(mine: Path) -> None:
    case = case_of(mine, "safetensors", "tied")
    with (
        pytest.raises(pytest.skip.Exception, match=r"is on meta, not on cuda; (use \w|all strategies of)"),
        failures_reported(case),
    ):
        raise ANGLES


def test_what_no_row_says_fails_in_a_line(mine: Path) -> None:
    failed = LoadFailed("WrongModel: one.weight differs\nin all")
    failed.add_note("Traceback (most recent call last):\n  60 lines")
    for case in (case_of(mine, "dcp", "model"), Case("dcp", "small", "cpu", "float32")):
        with pytest.raises(pytest.fail.Exception) as caught, failures_reported(case):
            raise failed
        assert str(caught.value) == "WrongModel: one.weight differs in all"


@pytest.mark.parametrize("kind", ["NotSimulated", "NotComputed"])
def test_what_no_gpu_stands_in_for_is_skipped(mine: Path, kind: str) -> None:
    for case in (Case("dcp", "small", "sim", "float32"), case_of(mine, "streamed", "model")):
        with pytest.raises(pytest.skip.Exception, match=r"^it reads values$"), failures_reported(case):
            raise LoadFailed(f"{kind}: it reads values")


def test_of_a_trace_the_last_line_is_shown_and_of_a_long_one_its_beginning() -> None:
    traced = (
        "CheckpointException: ranks:[0]\nTraceback (most recent call last):\n  File\nKeyError: head.weight (RANK 0).\n"
    )
    assert one_line(LoadFailed(traced)) == "KeyError: head.weight (RANK 0)"
    long = one_line(LoadFailed(f"ValueError: {'name ' * 100}"))
    assert (long[:16], long[-4:]) == ("ValueError: name", " ...")


@pytest.mark.parametrize(
    ("strategy", "model", "reason"),
    [
        ("dcp", "views", None),
        ("safetensors_load_model", "tied", None),
        ("safetensors_load_model", "views", "refused: b is in the memory of a, which a safetensors file cannot say"),
        ("dcp_safetensors", "rare", "refused: rotation is torch.complex128, which a safetensors file has no name"),
    ],
)
def test_what_a_format_cannot_hold_is_said_before_anything_is_made(
    mine: Path, strategy: str, model: str, reason: str | None
) -> None:
    pytest.importorskip("safetensors")
    found = skip_reason(case_of(mine, strategy, model))
    assert found is reason is None or (found and reason and found.startswith(reason))


def test_a_library_with_models_of_its_own_is_given_no_others(mine: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    assert skip_reason(case_of(mine, "transformers", "model")) == (
        "transformers loads models of transformers only, and model is a Model; use accelerate"
    )
    assert skip_reason(Case("transformers", "small", "cpu", "float32")) is None


def test_a_copy_is_made_where_a_loader_would_not_find_the_checkpoint(mine: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.st").touch()
    lying = replace(own_of(mine, "model"), source=Source(tmp_path / "mine.st", "safetensors"))
    cases = [
        Case(name, "model", "cpu", "float32", user_model=lying)
        for name in ("safetensors", "accelerate", "transformers")
    ]
    specifications = [case.specification for case in cases]
    assert [one.layout for one in specifications] == ["safetensors"] * 3
    assert [one.in_place is None for one in specifications] == [False, True, True]
    assert len({one.name for one in specifications}) == 2
    binary = replace(lying, source=Source(tmp_path / "mine.st", "torch"))
    cases = [Case(name, "model", "cpu", "float32", user_model=binary) for name in ("accelerate", "transformers", "dcp")]
    assert [case.layout for case in cases] == ["torch", "safetensors", "dcp"]
    assert [bool(case.specification.in_place) for case in cases] == [True, False, False]
    # Of a file of torch it maps nothing, unlike of its own.
    assert [case.strategy.bounds.file for case in cases] == ["", "S", ""]
    assert [case.rehearsal.family for case in cases] == ["", "transformers", ""]
    assert [case.rehearsal.layout for case in cases] == ["torch", "safetensors", "dcp"]
