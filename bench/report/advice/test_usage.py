"""The example code runs without this suite on the path."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.measure.case import Case
from bench.report.advice.table_rows import rank_row, row
from bench.report.advice.usage import usage
from bench.selftest.decoder import Decoder
from bench.sharded.rank_group import RankGroup
from bench.sharded.recipes import SHARDED
from bench.sharded.sharded_case import ShardedCase
from bench.strategies.inline_recipe import pasteable
from model.architecture import RandomGPT2
from model.parallel.division import Division
from model.user.from_options import user_model
from model.user.pretrained_folder import PretrainedFolder
from model.user.reference import Reference
from model.user.source import Source
from model.user.user_model import UserModel

# The model that is loaded, and the tensor-parallel plan of its user.
BEFORE = """
import sys
sys.path.insert(0, ".")
try:
    import bench
    raise SystemExit("the suite can be imported")
except ImportError:
    pass

from net import Net as build
"""
AFTER = """
saved = torch.load("checkpoint.pt", weights_only=True)
wholes = {name: getattr(value, "full_tensor", lambda: value)() for name, value in model.state_dict().items()}
assert wholes.keys() == saved.keys()
assert all(torch.equal(wholes[name], saved[name]) for name in saved)
assert any(hasattr(value, "full_tensor") for value in model.state_dict().values())
print("loaded")
distributed.destroy_process_group()
"""


# A model of the user's, which brings a tensor-parallel plan: its head is no layer of a block.
NET = """
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

class Net(nn.Module):
    tp_plan = {"head": "colwise_gather_output", "blocks.*.layer": "rowwise_split_input", "blocks.*.more": "colwise"}

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(), Block(), nn.ReLU())
        self.head = nn.Linear(8, 4)
"""


@pytest.mark.parametrize("parallelism", ["fsdp", "tensor"])
@pytest.mark.parametrize("strategy", ["streamed", "mmap_shards"])
def test_the_lines_load_in_a_rank(strategy: str, parallelism: str, tmp_path: Path) -> None:
    """As torchrun starts it, alone."""
    (tmp_path / "net.py").write_text(NET)
    model = user_model(f"{tmp_path / 'net.py'}:Net", None, None, None)
    torch.save(model.build().state_dict(), tmp_path / "checkpoint.pt")
    (tmp_path / f"load_{strategy}.py").write_text(pasteable(SHARDED[strategy]))
    case = ShardedCase(
        *(strategy, "net", "cpu", "float32"),
        user_model=model,
        division=Division(parallelism),
        group=RankGroup(8, (0,), 8),
    )
    lines = usage(rank_row(strategy, 8, parallelism, device="cpu"), case)
    (tmp_path / "script.py").write_text("\n".join([BEFORE, *lines, AFTER]))
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    started = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    command = (sys.executable, "-I", "-W", "ignore", "script.py")
    run = subprocess.run(command, cwd=tmp_path, env=os.environ | started, text=True, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "loaded" in run.stdout


def test_on_a_gpu_each_rank_has_its_own() -> None:
    case = ShardedCase("streamed", "small", "sim", "float32", group=RankGroup(8, (0,), 8))
    assert list(usage(rank_row("streamed", 8), case)) == [
        "import os",
        "",
        "import torch",
        "from torch import distributed",
        "from torch.distributed.device_mesh import init_device_mesh",
        "from torch.distributed.fsdp import fully_shard",
        "from load_streamed import streamed",
        "",
        "distributed.init_process_group()",
        'device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))',
        "torch.cuda.set_device(device)",
        'mesh = init_device_mesh("cuda", (distributed.get_world_size(),))',
        "",
        "def parallelize(model):",
        "    for block in model.trf_blocks:",
        "        fully_shard(block, mesh=mesh)",
        "    return fully_shard(model, mesh=mesh)",
        "",
        'model = streamed(build, "checkpoint.pt", device, parallelize)  # build() makes your model',
    ]


def test_one_process_calls_a_function(tmp_path: Path) -> None:
    call = 'model = streamed(build, "checkpoint.pt", torch.device("{}"){})  # build() makes your model'
    on_cpu, on_sim = (Case("streamed", "small", device, "float32") for device in ("cpu", "sim"))
    imports = "from load_streamed import streamed"
    assert list(usage(row("streamed"), None)) == [imports, call.format("cuda", "")]
    assert list(usage(row("streamed", device="cpu"), on_cpu)) == [imports, call.format("cpu", "")]
    # A loader of the user's is tested on the CPU before its memory is measured.
    assert list(usage(row("streamed", device="sim"), on_cpu)) == [imports, call.format("cuda", "")]
    cast = row("streamed", cast="bfloat16")
    assert list(usage(cast, on_sim)) == [imports, call.format("cuda", ", dtype=torch.bfloat16")]
    (tmp_path / "mine.py").write_text("from torch import nn\n\ndef net():\n    return nn.Linear(3, 3)\n")
    model = user_model(f"{tmp_path / 'mine.py'}:net", None, None, None)
    lacking = replace(model, conversion=replace(model.conversion, missing=("bias",)))
    missing = call.format("cuda", ", missing=['bias']")
    assert list(usage(row("streamed"), replace(on_sim, user_model=lacking))) == [imports, missing]


def test_of_a_folder_its_weights_are_named(tmp_path: Path) -> None:
    folder = PretrainedFolder(str(tmp_path / "my-llama" / "config.json"))
    source = Source(tmp_path / "my-llama" / "model.safetensors", "safetensors")
    for model, file in (
        (UserModel(folder, None, source), "model.safetensors"),
        (UserModel(folder), "model.safetensors.index.json"),
    ):
        [_, call] = usage(row("mmap_assign"), Case("mmap_assign", "my-llama", "cpu", "float32", user_model=model))
        assert call.startswith(f'model = mmap_assign(build, "my-llama/{file}", ')


def test_of_a_loader_of_the_users_there_are_no_lines() -> None:
    assert list(usage(row("mine", loader="mine.py:mine"), None)) == []


def division_of(model: nn.Module, division: Division, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(RandomGPT2, "skeleton", lambda _: model)
    case = ShardedCase("streamed", "small", "sim", "float32", division=division, group=RankGroup(8, (0,), 8))
    lines = list(usage(rank_row("streamed", 8, division.parallelism), case))
    return lines[lines.index("def parallelize(model):") + 1 : -2]


def test_blocks_are_found_as_the_run_found_them(monkeypatch: pytest.MonkeyPatch) -> None:
    found = division_of(Decoder(), Division("fsdp"), monkeypatch)
    assert found[:2] == ["    for block in model.blocks:", "        fully_shard(block, mesh=mesh)"]
    assert division_of(Decoder(), Division("fsdp", wrap=("LayerNorm",)), monkeypatch)[:3] == [
        '    for block in model.get_submodule("blocks.0").children():',
        "        if type(block).__name__ in ('LayerNorm',):",
        "            fully_shard(block, mesh=mesh)",
    ]
    assert division_of(nn.Linear(2, 2), Division("fsdp"), monkeypatch) == ["    return fully_shard(model, mesh=mesh)"]


def test_a_plan_is_written_in_pytorchs_own_styles(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = {"blocks.*.q_proj": "colwise", "head": "colwise_gather_output", "blocks.*.none": "rowwise"}
    monkeypatch.setattr(Decoder, "tp_plan", plan, raising=False)
    assert division_of(Decoder(), Division("tensor"), monkeypatch) == [
        "    plan = {",
        '        "blocks.*.q_proj": ColwiseParallel(),',
        "    }",
        "    return parallelize_module(model, mesh, plan, src_data_rank=None)",
    ]
    monkeypatch.undo()
    own = Division("tensor", tp_plan=Reference("bench.selftest.decoder:torch_plan"))
    assert division_of(Decoder(), own, monkeypatch) == [
        "    return parallelize_module(model, mesh, plan, src_data_rank=None)  # plan: the dict of --tp-plan",
    ]
