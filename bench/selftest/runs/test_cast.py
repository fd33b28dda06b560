"""Loads that cast: what they take, planned and real, of which models; and what cannot cast says so."""

from dataclasses import replace
from pathlib import Path

import pytest

from bench.conftest import Bench, Measure, last_record
from bench.measure.building import built
from bench.measure.case import Case
from bench.measure.expected import ownership
from bench.measure.refusals import skip_reason
from bench.selftest.checked_load import checked
from bench.strategies import STRATEGIES
from model.user.conversion_request import ConversionRequest
from model.user.from_options import user_model
from model.user.reference import Reference
from model.user.user_model import UserModel

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(4000, 1024)
        self.conv = nn.Conv1d(1024, 64, 3, padding=1)
        self.norm = nn.BatchNorm1d(64)
        self.rnn = nn.LSTM(64, 64, batch_first=True)
        self.register_buffer("places", torch.arange(300_000))
        self.register_buffer("angles", torch.ones(512, 100), persistent=False)

    def forward(self, x):
        x = self.conv((x[:, :, None] * self.embed.weight[0]).transpose(1, 2))
        return self.rnn(self.norm(x).transpose(1, 2))[0]

def net():
    return Net()

net.example = lambda: torch.ones(1, 7) / 3

def kept(build, path, device):
    model = build()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model.to(device)

def told(build, path, device, *, dtype=None):
    model = kept(build, path, device)
    if dtype:
        model.to(dtype)
    return model
"""

CASTS = [("float32", "bfloat16"), ("bfloat16", "float32"), ("bfloat16", "float16"), ("float32", "float32")]


@pytest.mark.parametrize("device", ["sim", "cpu"])
@pytest.mark.parametrize(("dtype", "to"), CASTS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_planned_cast_takes_what_theory_says_to_the_byte(
    load: Measure, strategy: str, dtype: str, to: str, device: str
) -> None:
    """Half of the bytes of tiny are masks, which are float32 whatever the others are."""
    record = checked(load, Case(strategy, "tiny", device, dtype, planned=True, cast=to))
    assert (record.cast, record.dtype) == (to, dtype)
    halves = {"float32": 34_782_720, "bfloat16": 17_391_360, "float16": 17_391_360}
    assert record.state_bytes == halves[to]


@pytest.mark.parametrize("device", ["sim", "cpu"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_so_does_a_real_one(load: Measure, strategy: str, device: str) -> None:
    checked(load, Case(strategy, "tiny", device, "float32", cast="bfloat16"))


@pytest.mark.parametrize(
    ("dtype", "to", "one_at_a_time"), [("float32", "bfloat16", True), ("bfloat16", "float32", False)]
)
def test_of_several_files_those_stay_mapped_that_have_something_left(
    load: Measure, dtype: str, to: str, one_at_a_time: bool
) -> None:
    """Masks are left: those of bfloat16 models are float32."""
    case = Case("mmap_assign", "small", "cpu", dtype, planned=True, cast=to)
    saved = replace(case.specification, layout="torch_sharded").saved
    assert (saved.mapped_bytes == saved.largest_file_bytes) == one_at_a_time
    assert saved.mapped_bytes <= saved.checkpoint_bytes == case.specification.saved.mapped_bytes
    measurement = load(case, layout="torch_sharded")
    assert measurement.host.file_bytes == saved.mapped_bytes
    assert measurement.host.private_bytes == saved.converted_to_bytes


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the user's, beside a checkpoint in bfloat16."""
    file = tmp_path_factory.mktemp("mine") / "mine.py"
    file.write_text(CODE)
    torch = pytest.importorskip("torch")
    state_dict = Reference(f"{file}:net").get()().state_dict()
    half = {name: one.bfloat16() if one.is_floating_point() else one for name, one in state_dict.items()}
    torch.save(half, file.with_name("half.pt"))
    return file


def model(file: Path, checkpoint: str | None, to: str) -> UserModel:
    return user_model(
        f"{file}:net", str(file.with_name(checkpoint)) if checkpoint else None, None, None, ConversionRequest(cast=to)
    )


@pytest.mark.parametrize("device", ["sim", "cpu"])
@pytest.mark.parametrize(("checkpoint", "to"), [(None, "float16"), ("half.pt", "float32"), ("half.pt", "bfloat16")])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_integers_and_buffers_that_no_checkpoint_has_are_not_cast(
    load: Measure, mine: Path, strategy: str, checkpoint: str | None, to: str, device: str
) -> None:
    """A plan knows the dtypes of a checkpoint that it does not read."""
    one = model(mine, checkpoint, to)
    case = Case(strategy, one.label, device, one.dtype, planned=True, user_model=one, cast=to)
    record = checked(load, case)
    floats = 4000 * 1024 + 64 * 1024 * 3 + 64 + 4 * 64 + 2 * 4 * 64 * 64 + 2 * 4 * 64
    integers = 8 * 300_001
    widths = {"float32": 4, "bfloat16": 2, "float16": 2}
    assert record.state_bytes == widths[to] * floats + integers
    assert record.checkpoint_bytes == widths[one.dtype] * floats + integers
    assert record.converted_bytes == (0 if to == one.dtype else widths[one.dtype] * floats)
    assert record.beside_bytes == 512 * 100 * 4


@pytest.mark.parametrize("to", ["bfloat16", "float32"])
def test_a_model_is_cast_where_it_is_built_one_tensor_after_the_other(mine: Path, to: str) -> None:
    one = model(mine, None, to)
    case = Case("baseline", one.label, "cpu", one.dtype, planned=True, user_model=one, cast=to)
    saved, beside = case.specification.saved, case.specification.footprint.nonpersistent_bytes
    assert built(one, planned=True).peak_bytes == saved.built_bytes + beside
    assert saved.built_bytes > saved.checkpoint_bytes or to == "float32"


def test_who_takes_no_dtype_is_skipped_in_a_line() -> None:
    told = skip_reason(Case("dcp", "tiny", "cpu", "float32", cast="bfloat16"))
    assert told == "dcp cannot cast; leave out --cast"
    assert skip_reason(Case("dcp", "tiny", "cpu", "float32")) is None
    assert skip_reason(Case("mmap_assign", "tiny", "cpu", "float32", cast="bfloat16")) is None


def test_weights_that_are_converted_are_no_pages_of_the_file() -> None:
    found = [ownership(Case("mmap_assign", "tiny", "cpu", dtype, cast="float32")) for dtype in ("bfloat16", "float32")]
    assert found == ["owned", "mapped"]


def test_a_run_casts_the_users_model_and_tells_whose_loader_does_not(bench: Bench, folder: Path, mine: Path) -> None:
    weights = ("--model", f"{mine}:net", "--checkpoint", str(mine.with_name("half.pt")))
    run = bench(
        *(*weights, "--cast", "float16", "--device", "cpu", "--strategies", "mmap_assign,per_tensor"),
        *("--loader", f"{mine}:kept", "--loader", f"{mine}:told"),
        *("-k", "peak_memory or own_equivalence"),
    )
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout + run.stderr
    assert "weight loading: bfloat16 cast to float16 to cpu" in run.stdout
    table = {line.split()[0]: line.split()[-1] for line in run.stdout.splitlines() if " net " in line}
    verdicts = {name: table[name] for name in ("mmap_assign", "per_tensor", "kept", "told")}
    assert verdicts == {"mmap_assign": "ok", "per_tensor": "ok", "kept": "FAILED", "told": "ok"}
    assert "kept-net: WrongModel: embed.weight is torch.float32, by the cast torch.float16" in run.stdout
    kinds = {(one["extra_info"]["dtype"], one["extra_info"]["cast"]) for one in last_record(folder)["benchmarks"]}
    assert kinds == {("bfloat16", "float16")}
