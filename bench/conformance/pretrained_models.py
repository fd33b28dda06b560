"""Models of transformers, for its own loader, which knows no others."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from hypothesis import strategies as st
from torch import nn

from bench.conformance.misfits import MISFITS
from model.gpt2 import Config
from model.pretrained_gpt2 import pretrained

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Pretrained:
    """A GPT-2 of transformers; with a `misfit`, and a checkpoint that differs from its own in the tensor `name`."""

    config: Config
    dtype: str
    tied: bool
    misfit: str = ""
    name: str = "transformer.ln_f.bias"

    def build(self) -> nn.Module:
        return pretrained(self.config, DTYPES[self.dtype], tied=self.tied)

    def saved(self) -> nn.Module:
        model = self.build()
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.02, generator=generator)
        # As its own loader hands models out.
        return model.eval()

    def state_dict(self, model: nn.Module) -> dict[str, Any]:
        state_dict = dict(model.state_dict())
        if self.misfit:
            MISFITS[self.misfit].alter(state_dict, self.name)
        return state_dict

    def suspects(self) -> set[str]:
        return {self.name} if self.misfit else set()

    def outputs(self, model: nn.Module) -> list[torch.Tensor]:
        """First logits."""
        device = next(model.parameters()).device
        with torch.inference_mode():
            return [model(torch.tensor([[1, 2, 3]], device=device), use_cache=False).logits]

    def __str__(self) -> str:
        description = f"; in the checkpoint {self.name} {MISFITS[self.misfit].description}" if self.misfit else ""
        return f"GPT2LMHeadModel {self.config}, {self.dtype}, {'tied' if self.tied else 'untied'}{description}"


def _models(*dtypes: str, tied: bool | None = None) -> st.SearchStrategy[Pretrained]:
    configs = st.builds(
        lambda heads, width, layers, vocabulary, context: Config(heads * width, layers, heads, vocabulary, context),
        *(st.integers(1, 3), st.integers(1, 8), st.integers(1, 3), st.integers(4, 40), st.integers(3, 9)),
    )
    return st.builds(Pretrained, configs, st.sampled_from(dtypes), st.booleans() if tied is None else st.just(tied))


def _misfits(kind: str) -> st.SearchStrategy[Pretrained]:
    return _models("float32", tied=False).map(lambda model: replace(model, misfit=kind))


# What of the conformance table there is of such models.
PRETRAINED: dict[str, st.SearchStrategy[Pretrained]] = {
    "dtypes": _models("bfloat16", "float16"),
    "ties": _models("float32", tied=True),
    "gpt2": _models(*DTYPES),
    **{kind: _misfits(kind) for kind in ("missing", "surplus", "dtype", "shape")},
}
