import ast
import json
import struct
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from inspect import getsource, signature
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.conformance.properties import PROPERTIES
from bench.measure.terms import Terms
from bench.strategies import STATED_DEVICE_RATIO, STRATEGIES, Strategy
from bench.strategies.reading.read_checkpoint import SAFETENSORS_DTYPES
from model.architecture import DTYPES
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.making import make
from model.checkpoints.specification import Specification
from model.examine import safetensors_file
from model.examine.trust import examine
from model.gpt2 import CONFIGS, GPT2, REHEARSAL
from model.layouts.files import save_plain
from model.layouts.layouts import LAYOUTS
from model.verification.verify import check_model

CPU = torch.device("cpu")

every_strategy = pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
every_layout = pytest.mark.parametrize(
    ("strategy", "layout"),
    [
        pytest.param(strategy, layout, id=f"{strategy.name}-{layout}")
        for strategy in STRATEGIES.values()
        for layout in strategy.layouts
    ],
)


def made(folder: Path, layout: str, dtype: str = "float32") -> Checkpoint:
    """The checkpoint of a small GPT-2, in a folder below this one."""
    specification = Specification(REHEARSAL, dtype, layout)
    make(specification, folder / "made", lambda _: None)
    return Checkpoint(specification, folder / "made")


@every_strategy
def test_a_recipe_can_be_pasted(strategy: Strategy) -> None:
    """Together with what recipes have in common, it wants torch and the standard library only."""
    path = Path(strategy.load.__code__.co_filename)
    assert path.name == f"{strategy.name}.py"
    shared = [file for file in path.with_name("reading").glob("*.py") if not file.name.startswith("test_")]
    for file in (path, *shared):
        ours = {name for name in imported(file) if name.startswith("bench.strategies.reading.")}
        assert imported(file) - ours <= {"torch", *sys.stdlib_module_names}
    assert list(signature(strategy.load).parameters)[:3] == ["build", "path", "device"]
    assert strategy.load.__doc__
    assert len(getsource(strategy.load).splitlines()) < 50


def imported(path: Path) -> set[str]:
    """The modules that a file imports: of this suite their whole names, of others the first part."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found |= {name if name.startswith("bench") else name.partition(".")[0] for name in map(str, names)}
    return found


@every_strategy
def test_a_row_of_the_table_makes_sense(strategy: Strategy) -> None:
    assert set(strategy.layouts) <= LAYOUTS.keys()
    bounds = strategy.bounds
    for expression in (bounds.device, bounds.host, bounds.cpu, bounds.file, bounds.pinned):
        assert Terms(state_bytes=100, largest_tensor_bytes=10).bound_bytes(expression) in {0, 10, 100, 110, 2**17, 200}
    assert strategy.refused("cuda") <= PROPERTIES.keys()
    assert STATED_DEVICE_RATIO.keys() <= STRATEGIES.keys()


@every_strategy
def test_a_recurrent_layer_is_loaded(strategy: Strategy, tmp_path: Path) -> None:
    """It keeps weak references to its weights, by which it finds out that they were replaced."""
    torch.manual_seed(1)
    build, asked = partial(nn.LSTM, 8, 8, 2, bidirectional=True), torch.ones(1, 3, 8)
    saved, layout = build(), LAYOUTS[strategy.layout]
    layout.save(saved.state_dict(), tmp_path, save_plain)
    loaded = strategy.load(build, tmp_path / layout.entrance, CPU)
    assert torch.equal(loaded(asked)[0], saved(asked)[0])
    assert [reference() for reference in vars(loaded)["_flat_weight_refs"]] == list(loaded.parameters())
    functional = torch.func.functional_call(loaded, dict.fromkeys(["bias_ih_l0"], torch.ones(32)), (asked,))
    assert not torch.equal(functional[0], saved(asked)[0])
    assert torch.equal(loaded(asked)[0], saved(asked)[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_compiled_model_is_refused_where_its_tensors_are_to_be_replaced(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(torch.jit.script(nn.Linear(2, 2)))

    for strategy in STRATEGIES.values():
        layout = LAYOUTS[strategy.layout]
        folder = tmp_path / strategy.name
        folder.mkdir()
        layout.save(build().state_dict(), folder, save_plain)
        refused = pytest.raises(ValueError, match=r"^0 is compiled by torch\.jit\.script")
        with nullcontext() if strategy.builds else refused:
            strategy.load(build, folder / layout.entrance, CPU)


@pytest.mark.parametrize("dtype", DTYPES)
@every_layout
def test_the_model_is_the_one_that_was_saved(strategy: Strategy, layout: str, dtype: str, tmp_path: Path) -> None:
    checkpoint = made(tmp_path, layout, dtype)
    specification = checkpoint.specification
    check_model(checkpoint, CPU, strategy.load(specification.build, checkpoint.path, CPU))


@pytest.mark.parametrize("layout", ["torch_sharded", "safetensors_sharded"])
@pytest.mark.parametrize(
    "strategy", [row for row in STRATEGIES.values() if row.extra_layouts], ids=lambda row: row.name
)
def test_files_of_an_index_may_be_links(strategy: Strategy, layout: str, tmp_path: Path) -> None:
    """Links to files, like those in the cache of the Hugging Face Hub."""
    checkpoint = made(tmp_path, layout)
    specification = checkpoint.specification
    for number, file in enumerate(checkpoint.files):
        file.rename(tmp_path / f"blob-{number}")
        file.symlink_to(tmp_path / f"blob-{number}")
    with torch.device("meta"):
        examine(layout, checkpoint.path, specification.build().state_dict())
    check_model(checkpoint, CPU, strategy.load(specification.build, checkpoint.path, CPU))


@pytest.mark.parametrize("layout", ["torch_sharded", "safetensors_sharded"])
@pytest.mark.parametrize(
    "strategy", [row for row in STRATEGIES.values() if row.extra_layouts], ids=lambda row: row.name
)
def test_files_of_an_index_may_be_in_folders_and_hold_more(strategy: Strategy, layout: str, tmp_path: Path) -> None:
    """The index says which tensor of which file counts."""
    checkpoint = made(tmp_path, layout)
    specification = checkpoint.specification
    name, shift = "final_norm.shift", torch.rand(CONFIGS[REHEARSAL].emb_dim)
    others = dict(specification.build().state_dict()) | {name: shift, "stranger": torch.ones(3)}
    (checkpoint.folder / "others").mkdir()
    LAYOUTS[layout].save(others, checkpoint.folder / "others", save_plain)
    places = json.loads(checkpoint.path.read_bytes())["weight_map"]
    moved = places[name]
    (checkpoint.folder / "below").mkdir()
    (checkpoint.folder / moved).rename(checkpoint.folder / "below" / moved)
    places = {name: f"below/{file}" if file == moved else file for name, file in places.items()}
    checkpoint.path.write_text(json.dumps({"weight_map": places}))
    check_model(checkpoint, CPU, strategy.load(specification.build, checkpoint.path, CPU))
    # One weight of another model, in a file that holds others of that model too.
    checkpoint.path.write_text(json.dumps({"weight_map": places | {name: f"others/{moved}"}}))
    loaded = strategy.load(specification.build, checkpoint.path, CPU).state_dict()
    assert all(torch.equal(loaded[key], shift if key == name else value) for key, value in checkpoint.tensors())


@pytest.mark.parametrize("file", ["../above.bin", "below/../../above.bin", "{folder}/above.bin"])
@pytest.mark.parametrize(
    "strategy", [row for row in STRATEGIES.values() if row.extra_layouts], ids=lambda row: row.name
)
def test_an_index_leads_nowhere_else(strategy: Strategy, file: str, tmp_path: Path) -> None:
    state_dict = Tied().state_dict()
    torch.save(state_dict, tmp_path / "above.bin")
    (tmp_path / "here" / "below").mkdir(parents=True)
    path = tmp_path / "here" / "index.json"
    path.write_text(json.dumps({"weight_map": dict.fromkeys(state_dict, file.format(folder=tmp_path))}))
    with pytest.raises(ValueError, match=r"above\.bin, which leads out of its folder"):
        strategy.load(Tied, path, CPU)


@pytest.mark.parametrize("layout", ["torch", "safetensors", "torch_sharded", "safetensors_sharded"])
@pytest.mark.parametrize(
    "strategy", [row for row in STRATEGIES.values() if row.extra_layouts], ids=lambda row: row.name
)
def test_what_a_file_is_called_does_not_matter(strategy: Strategy, layout: str, tmp_path: Path) -> None:
    """A .safetensors may be called .bin: what is in it tells. What is called one, `torch.load` takes for one."""
    checkpoint = made(tmp_path, layout)
    specification = checkpoint.specification
    renamed = checkpoint.path.rename(checkpoint.path.with_name("weights.bin"))
    model = strategy.load(specification.build, renamed, CPU)
    renamed.rename(checkpoint.path)
    check_model(checkpoint, CPU, model)


def without_a_mask(state_dict: dict[str, Tensor]) -> None:
    del state_dict["trf_blocks.0.att.mask"]


def with_one_more(state_dict: dict[str, Tensor]) -> None:
    state_dict["stranger"] = torch.ones(1)


@pytest.mark.parametrize(("change", "name"), [(without_a_mask, "trf_blocks.0.att.mask"), (with_one_more, "stranger")])
@every_layout
def test_a_missing_or_unexpected_key_is_named(
    strategy: Strategy, layout: str, change: Callable[[dict[str, Tensor]], None], name: str, tmp_path: Path
) -> None:
    build = partial(GPT2, CONFIGS[REHEARSAL])
    state_dict = dict(build().state_dict())
    change(state_dict)
    LAYOUTS[layout].save(state_dict, tmp_path, save_plain)
    with pytest.raises(ValueError, match=name):
        strategy.load(build, tmp_path / LAYOUTS[layout].entrance, CPU)


class Tied(nn.Module):
    flag: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("flag", torch.ones(1, dtype=torch.bool))
        self.one = nn.Parameter(torch.zeros(3))
        self.other = self.one


OTHER = {"dtype": "F32", "shape": [3], "data_offsets": [1, 13]}
FLAG = {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}
VALUES = b"\0" + struct.pack("<3f", 1.0, 2.0, -3.0)


def written(folder: Path, header: dict[str, Any], values: bytes = VALUES) -> Path:
    """A file whose header may be as wrong as it is given."""
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + values)
    return path


of_safetensors = pytest.mark.parametrize(
    "strategy", [row for row in STRATEGIES.values() if row.extra_layouts], ids=lambda row: row.name
)


def test_recipes_know_every_dtype_that_a_safetensors_file_is_examined_for() -> None:
    """They are pasted without the suite, and so they have a table of their own."""
    assert SAFETENSORS_DTYPES == safetensors_file.SAFETENSORS_DTYPES


@of_safetensors
def test_a_safetensors_file_of_any_writer_is_loaded(strategy: Strategy, tmp_path: Path) -> None:
    """With a tensor under its second name, at a place that is no multiple of its width."""
    loaded = strategy.load(Tied, written(tmp_path, {"other": OTHER, "flag": FLAG}), CPU)
    assert isinstance(loaded, Tied)
    assert loaded.one is loaded.other
    assert (loaded.one.tolist(), loaded.flag.tolist()) == ([1.0, 2.0, -3.0], [False])
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in (loaded.one, loaded.flag))


@pytest.mark.parametrize(
    ("other", "values"),
    [
        ({"dtype": "F4"}, VALUES),
        ({"data_offsets": [0, 12]}, VALUES),
        ({"data_offsets": [5, 17]}, VALUES[:1] + bytes(4) + VALUES[1:]),
        ({"data_offsets": [1, 17]}, VALUES + bytes(4)),
        ({"shape": [4]}, VALUES),
        ({}, VALUES[:-1]),
    ],
    ids=("dtype", "overlap", "gap", "end", "shape", "cut"),
)
@of_safetensors
def test_a_header_that_cannot_be_is_refused_by_name(
    strategy: Strategy, other: dict[str, object], values: bytes, tmp_path: Path
) -> None:
    path = written(tmp_path, {"other": OTHER | other, "flag": FLAG}, values)
    with pytest.raises(ValueError, match=r"model\.safetensors has 'other' with a dtype, shape or place that cannot be"):
        strategy.load(Tied, path, CPU)


@of_safetensors
def test_bytes_of_no_tensor_are_refused(strategy: Strategy, tmp_path: Path) -> None:
    path = written(tmp_path, {"other": OTHER, "flag": FLAG}, VALUES + b"\0")
    with pytest.raises(ValueError, match=r"model\.safetensors has \d+ bytes, of which its tensors take the first"):
        strategy.load(Tied, path, CPU)
