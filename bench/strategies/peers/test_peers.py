"""Promises of the table of other projects' loaders, whether they are installed or not."""

import ast
import tomllib
from pathlib import Path

import pytest

from bench.conformance.properties import PROPERTIES
from bench.strategies import KNOWN, PEERS, STRATEGIES, Strategy
from bench.strategies.lazy_recipe import LazyRecipe
from bench.strategies.peers import Peer
from model.layouts.foreign import ALL_LAYOUTS

EXTRAS = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]["optional-dependencies"]

every_peer = pytest.mark.parametrize("strategy", PEERS.values(), ids=PEERS)


def peer_of(strategy: Strategy) -> Peer:
    assert strategy.peer
    return strategy.peer


@every_peer
def test_a_row_names_a_function_of_its_file(strategy: Strategy) -> None:
    """Without importing it: its library may not be there."""
    defined = {one.name: one for one in ast.parse(Path(strategy.source).read_text()).body if hasattr(one, "name")}
    function = defined[strategy.name]
    assert isinstance(function, ast.FunctionDef)
    assert [argument.arg for argument in function.args.args] == ["build", "path", "device"]
    assert {argument.arg for argument in function.args.kwonlyargs} <= {"dtype", "missing"}
    assert ast.get_docstring(function)
    assert isinstance(strategy.load, LazyRecipe)


@every_peer
def test_a_row_says_what_exists(strategy: Strategy) -> None:
    peer = peer_of(strategy)
    stated = f"{strategy.refuses} {peer.wrong} {peer.dies}".split()
    assert len(stated) == len(set(stated))
    assert set(stated) <= PROPERTIES.keys()
    assert {strategy.layout, *peer.extra_layouts.split()} <= ALL_LAYOUTS.keys()
    assert not strategy.is_stated
    assert peer.destination
    assert peer.settings


@every_peer
def test_both_extras_have_what_it_needs(strategy: Strategy) -> None:
    for extra in ("peers", "reference-peers"):
        names = {text.partition("=")[0].partition(">")[0] for text in EXTRAS[extra]}
        assert set(peer_of(strategy).needs.split()) - {"torch"} <= names
    assert all("==" in text for text in EXTRAS["reference-peers"])


def test_no_name_is_there_twice() -> None:
    assert STRATEGIES.keys().isdisjoint(PEERS)
    assert list(KNOWN) == [*STRATEGIES, *PEERS]


def test_why_one_cannot_be_measured_is_said() -> None:
    absent = Peer("absent", "no-such-loader", "real module", "load", "its own")
    assert absent.versions == {"no-such-loader": None}
    assert absent.skip_reason("cpu") == "no-such-loader is not installed: pip install '.[peers]'"
    both = Peer("absent", "no-such-loader torch nor-this", "real module", "load", "its own")
    assert both.skip_reason("cpu") == "no-such-loader and nor-this are not installed: pip install '.[peers]'"
    there = Peer("dcp", "torch", "real module", "load", "dcp", devices="cuda")
    assert (
        there.skip_reason("cuda", planned=True) == "it cannot be planned: its own code reads the file; leave out --plan"
    )
    assert peer_of(PEERS["dcp"]).skip_reason("sim", planned=True) is None
    assert peer_of(PEERS["dcp"]).skip_reason("cpu", planned=True) is None
    assert there.skip_reason("cuda:1") is None
    assert there.skip_reason("cpu") == "it loads to cuda only; choose with --device"
    assert there.skip_reason("sim") == "its own code cannot write to a simulated device; use --device cpu or cuda"
    assert there.as_record()["versions"]["torch"]


def test_a_back_end_is_told_by_the_file_that_can(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch  # noqa: PLC0415 - beside the one that is asked

    assert peer_of(PEERS["dcp"]).backend(torch.device("cpu")) is None
    from bench.strategies.peers import dcp  # noqa: PLC0415 - it needs torch alone

    monkeypatch.setattr(dcp, "backend", lambda device: f"one thread to {device}", raising=False)
    assert peer_of(PEERS["dcp"]).backend(torch.device("cpu")) == "one thread to cpu"


def test_of_another_layout_a_peer_may_map_another_file() -> None:
    accelerate, transformers = PEERS["accelerate"], PEERS["transformers"]
    assert (
        accelerate.with_layout("safetensors_sharded").bounds.file
        == accelerate.with_layout("safetensors").bounds.file
        == "S"
    )
    assert accelerate.with_layout("torch_sharded").bounds.file == ""
    assert transformers.with_layout("torch").bounds.file == "S"
    assert PEERS["dcp"].with_layout("dcp") is PEERS["dcp"]
    mapped = STRATEGIES["mmap_assign"]
    assert mapped.with_layout("torch_sharded") is mapped
