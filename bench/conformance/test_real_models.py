"""Models that people really load: each comes back right by every strategy that claims it, or is refused by name."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from bench.conformance import real_models
from bench.conformance.judge import CellStatus, judge
from bench.conformance.real_models import real_model
from bench.conformance.traits import properties_of
from bench.measure.load_process import run_load
from bench.strategies import STRATEGIES, Strategy
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification
from model.examine.trust import UntrustedCheckpoint
from model.layouts.layouts import LAYOUTS
from model.user.from_options import user_model

CPU = torch.device("cpu")

ROTARY = ["model.rotary_emb.inv_freq", "model.rotary_emb.original_inv_freq"]

# What each wants to be installed, and what it has that a strategy may refuse.
MODELS: dict[str, tuple[str | None, dict[str, list[str]]]] = {
    "gpt2": ("transformers", {}),
    "llama": ("transformers", {"nonpersistent": ROTARY}),
    "mixtral": ("transformers", {"nonpersistent": ROTARY}),
    "bert": ("transformers", {"nonpersistent": ["embeddings.position_ids", "embeddings.token_type_ids"]}),
    "unet": ("diffusers", {}),
    "vision": ("timm", {}),
    "extra_state": (None, {"extra_state": ["0._extra_state"]}),
}
# What a .safetensors file has no place for.
NOT_IN_SAFETENSORS = {"extra_state", "views"}

# What libraries warn of when they are imported, and of each other's ages.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.real_device]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.setitem(os.environ, name, "1")


def require(library: str | None) -> None:
    if library and find_spec(library) is None:
        pytest.skip(f"{library} is not installed: it is in the extra {'vision' if library == 'timm' else 'models'}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
@pytest.mark.parametrize("name", MODELS)
def test_a_real_model_is_loaded_right_or_refused_by_name(name: str, strategy: Strategy, layout: str) -> None:
    library, _ = MODELS[name]
    require(library)
    if layout not in strategy.layouts:
        return
    properties = properties_of(real_model(name).build()).keys()
    refused = strategy.refused("cpu") | (NOT_IN_SAFETENSORS if "safetensors" in layout else frozenset())
    verdict = judge(strategy.load, layout, real_model(name), CPU)
    assert verdict.outcome == (CellStatus.PASSED if properties.isdisjoint(refused) else CellStatus.REFUSED), verdict.why
    assert verdict.named, verdict.why


@pytest.mark.parametrize("name", MODELS)
def test_what_a_strategy_may_refuse_of_it_is_known(name: str) -> None:
    library, properties = MODELS[name]
    require(library)
    assert properties_of(real_model(name).build()) == properties
    with torch.device("meta"):
        assert properties_of(real_model(name).build()) == properties
    # What it computes is compared too.
    assert real_model(name).outputs(real_model(name).saved())


@pytest.mark.parametrize(
    "strategy", [row for row in STRATEGIES.values() if row.extra_layouts], ids=lambda row: row.name
)
def test_a_quantised_model_is_loaded_right_or_refused_with_the_name_of_its_tensor(
    strategy: Strategy, tmp_path: Path
) -> None:
    """Some strategies take what torch.load takes, since the library says that it is safe."""
    require("torchao")
    model = real_model("quantised")
    saved = model.saved()
    torch.save(saved.state_dict(), tmp_path / LAYOUTS["torch"].entrance)
    checkpoint = Checkpoint(Specification("quantised", "float32", "torch", model.own), tmp_path)
    try:
        loaded = run_load(strategy.load, checkpoint, CPU)
    except UntrustedCheckpoint as error:
        # It need not be raised.
        assert (error.key, "uses torch" in error.reason) == ("0.weight", True)  # noqa: PT017
    else:
        for found, expected in zip(model.outputs(loaded), model.outputs(saved), strict=True):
            assert torch.equal(found, expected)


def test_as_a_model_of_the_users_it_is_refused_beforehand() -> None:
    require("torchao")
    with pytest.raises(ValueError, match=r"^--model: .*:quantised returns a model whose 0\.weight is of type Int8T"):
        user_model(f"{real_models.__name__}:quantised", None, None, None)
