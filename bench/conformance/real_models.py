"""Models that people really load, built small from their configuration: nothing is downloaded.

Each is a factory as `--model` takes it, with what it is asked first in its attribute `example`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bench.conformance.own_model import OwnModel
from model.user.reference import Reference
from model.user.user_model import UserModel


def _asked(example: Callable[[], Any]) -> Callable[[Callable[[], nn.Module]], Callable[[], nn.Module]]:
    """Gives a factory its example."""

    def with_example(factory: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
        factory.example = example  # type: ignore[attr-defined]
        return factory

    return with_example


def _tokens() -> dict[str, Any]:
    return {"input_ids": torch.tensor([[1, 2, 3, 4]]), "use_cache": False}


@_asked(_tokens)
def gpt2() -> nn.Module:
    """With the output head tied to the token embedding."""
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=96, n_positions=16, n_embd=32, n_layer=2, n_head=2))


@_asked(_tokens)
def llama() -> nn.Module:
    """With rotary frequencies that are in no checkpoint, and in bfloat16."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=96, num_key_value_heads=2, max_position_embeddings=16, **sizes)
    return LlamaForCausalLM(config).to(torch.bfloat16)


@_asked(_tokens)
def mixtral() -> nn.Module:
    """A mixture of experts."""
    from transformers import MixtralConfig, MixtralForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return MixtralForCausalLM(MixtralConfig(vocab_size=96, num_key_value_heads=2, num_local_experts=4, **sizes))


@_asked(lambda: {"input_ids": torch.tensor([[1, 2, 3, 4]])})
def bert() -> nn.Module:
    """With the numbers of positions in a buffer that is in no checkpoint."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertModel(BertConfig(vocab_size=96, max_position_embeddings=16, **sizes))


@_asked(lambda: (torch.rand(1, 3, 16, 16), 7))
def unet() -> nn.Module:
    """Build a U-Net with attention, as diffusion models have it."""
    from diffusers import UNet2DModel

    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    return UNet2DModel(16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=8, **blocks)


@_asked(lambda: torch.rand(1, 3, 32, 32))
def vision() -> nn.Module:
    """A vision transformer."""
    from timm import create_model

    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 10}
    return create_model("vit_tiny_patch16_224", pretrained=False, **sizes)


class Scaled(nn.Module):
    """A layer that keeps what it has seen beside its tensors, as those do that compute in float8."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.scales: dict[str, Any] = {"steps": 0, "amax": torch.zeros(2)}

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * (1 + self.scales["steps"]) + self.scales["amax"].sum()

    def get_extra_state(self) -> dict[str, Any]:
        return self.scales

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.scales = state


@_asked(lambda: torch.rand(2, 8))
def extra_state() -> nn.Module:
    return nn.Sequential(Scaled(), nn.LayerNorm(8))


@_asked(lambda: torch.rand(2, 32))
def quantised() -> nn.Module:
    """With weights of a subclass of tensors."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32))
    quantize_(model, Int8WeightOnlyConfig())
    return model


def real_model(name: str) -> OwnModel:
    """One of these, as a specimen."""
    return OwnModel(UserModel(Reference(f"{__name__}:{name}")))
