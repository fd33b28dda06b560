"""Whose weights a checkpoint holds: a model that is built again and again, the same each time."""

from collections.abc import Hashable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from model.gpt2 import CONFIGS, GPT2, first_logits
from model.weights import Progress, random_gpt2

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

SEED = 2024


class Architecture(Hashable, Protocol):
    """The suite's GPT-2, or a model of the user's; it is found again by its fields in every process."""

    def build(self) -> nn.Module:
        """A freshly initialised model; a meta skeleton under `torch.device("meta")`."""
        ...

    def skeleton(self) -> nn.Module:
        """A model to look at: on meta, but where it cannot be built there."""
        ...

    def saved(self, progress: Progress) -> nn.Module:
        """The model that a checkpoint holds, on the host; `progress` is told of its bytes as they are filled."""
        ...

    def outputs(self, model: nn.Module) -> list[Tensor]:
        """What a model computes of the same input each time, first logits say, on its own device."""
        ...

    def identity(self) -> dict[str, Any]:
        """What a manifest says of it: with anything else, a checkpoint is that of another model."""
        ...


@dataclass(frozen=True)
class RandomGPT2:
    """A GPT-2 of a size of `SIZES` and a dtype of `DTYPES`, with the same random weights on every machine."""

    size: str
    dtype: str

    def build(self) -> GPT2:
        return GPT2(CONFIGS[self.size], DTYPES[self.dtype])

    def skeleton(self) -> GPT2:
        with torch.device("meta"):
            return self.build()

    def saved(self, progress: Progress) -> GPT2:
        return random_gpt2(CONFIGS[self.size], DTYPES[self.dtype], SEED, progress)

    def outputs(self, model: nn.Module) -> list[Tensor]:
        return [first_logits(model)]

    def identity(self) -> dict[str, Any]:
        model = {"architecture": "gpt2", "size": self.size, **asdict(CONFIGS[self.size])}
        return {"model": model, "dtype": self.dtype, "seed": SEED}
