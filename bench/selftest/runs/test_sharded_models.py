"""Models of transformers, loaded by two real ranks with every recipe, gathered, and equal to the bit."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from bench.measure.refusals import skip_reason
from bench.sharded.rank_checks import RankChecks
from bench.sharded.rank_group import local_group
from bench.sharded.recipes import SHARDED
from bench.sharded.rendezvous import RankRendezvous
from bench.sharded.sharded_case import ShardedCase
from model.checkpoints.checkpoint import Checkpoint
from model.checkpoints.specification import Specification
from model.parallel.division import Division
from model.user.conversion_request import ConversionRequest
from model.user.from_options import user_model
from model.user.user_model import UserModel

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.skipif(
        not (find_spec("transformers") and find_spec("safetensors") and find_spec("numpy")),
        reason="needs transformers, safetensors and numpy: pip install '.[models,sharded]'",
    ),
]

SMALL = {"vocab_size": 131, "hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2}
# Sizes that two ranks do not divide: 131 rows, and in the last one 10 classes of 5 and 5.
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", "LlamaConfig", SMALL | {"num_key_value_heads": 2, "intermediate_size": 48}),
    "llama-tied": (
        "LlamaForCausalLM",
        "LlamaConfig",
        SMALL | {"num_key_value_heads": 2, "intermediate_size": 48, "tie_word_embeddings": True},
    ),
    "qwen3-moe": (
        "Qwen3MoeForCausalLM",
        "Qwen3MoeConfig",
        SMALL
        | {"num_key_value_heads": 2, "head_dim": 8, "moe_intermediate_size": 16, "num_experts": 3}
        | {"num_experts_per_tok": 2, "intermediate_size": 48},
    ),
    "t5": (
        "T5ForConditionalGeneration",
        "T5Config",
        {"vocab_size": 131, "d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2},
    ),
    "vit": (
        "ViTForImageClassification",
        "ViTConfig",
        {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 48}
        | {"image_size": 16, "patch_size": 8, "num_labels": 10},
    ),
}


@pytest.fixture(scope="module")
def model_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], UserModel]:
    """Save a model as its users have it, in several files, and return it, cast or not."""
    import torch  # noqa: PLC0415 - with what takes seconds
    import transformers  # noqa: PLC0415

    root = tmp_path_factory.mktemp("models")

    def get(name: str, cast: str) -> UserModel:
        folder = root / name
        if not folder.exists():
            model_class, config_class, sizes = MODELS[name]
            model = getattr(transformers, model_class)(getattr(transformers, config_class)(**sizes))
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.normal_(0, 0.1)
            model.save_pretrained(folder, max_shard_size="20KB")
        index = folder / "model.safetensors.index.json"
        return user_model(str(folder), str(index), wanted=ConversionRequest(cast=cast or None))

    return get


@pytest.fixture(scope="module")
def checks() -> Iterator[RankChecks]:
    with RankChecks(RankRendezvous(local_group(2))) as found:
        yield found


@pytest.mark.parametrize("cast", ["", "bfloat16"])
@pytest.mark.parametrize(
    ("name", "parallelism"),
    [*((name, "fsdp") for name in MODELS), ("llama", "tensor"), ("llama-tied", "tensor")],
)
def test_every_recipe_loads_it_right(
    name: str,
    parallelism: str,
    cast: str,
    model_of: Callable[[str, str], UserModel],
    checks: RankChecks,
    real_checkpoint: Callable[[Specification], Checkpoint],
) -> None:
    model = model_of(name, cast)
    for strategy in SHARDED:
        case = ShardedCase(
            *(strategy, name, "cpu", model.dtype),
            user_model=model,
            cast=cast,
            division=Division(parallelism),
            group=local_group(2),
        )
        assert skip_reason(case) is None
        checks.run_user_model(case, real_checkpoint(case.specification))


def test_experts_that_pytorch_cannot_divide_are_refused_by_name(model_of: Callable[[str, str], UserModel]) -> None:
    model = model_of("qwen3-moe", "")
    case = ShardedCase(
        *("streamed", "qwen3-moe", "cpu", model.dtype),
        user_model=model,
        division=Division("tensor"),
        group=local_group(2),
    )
    assert str(skip_reason(case)).startswith(
        "refused: tensor: the plan gives model.layers.*.mlp.experts.gate_up_proj the style 'packed_colwise', which "
    )
