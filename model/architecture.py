"""The interface of models: each can be built again, the same, in every process."""

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
    """The suite's GPT-2 or a model of the user's, given by its fields in every process."""

    def build(self) -> nn.Module:
        """Build a freshly initialised model; a skeleton on meta under `torch.device("meta")`."""
        ...

    def skeleton(self) -> nn.Module:
        """Return a model without use for its values: on meta, unless it cannot be built there."""
        ...

    def saved(self, progress: Progress) -> nn.Module:
        """Build the model that a checkpoint holds, on the host; `progress` gets its bytes as they are filled."""
        ...

    def outputs(self, model: nn.Module) -> list[Tensor]:
        """Return the outputs of a model for a fixed input, such as first logits, on its own device."""
        ...

    def identity(self) -> dict[str, Any]:
        """Return the identity in a manifest: a checkpoint with another identity is that of another model."""
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
