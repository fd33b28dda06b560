"""A model of the user's, to be judged as drawn ones are."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.conformance.model_differences import differences
from bench.conformance.traits import properties_of
from model.architecture import DTYPES
from model.state_dict import without
from model.user.user_model import UserModel
from model.values.initial_values import InitialValues, initial_values
from model.values.nonpersistent import nonpersistent_buffers


@dataclass(frozen=True)
class OwnModel:
    """A model that a factory makes, with the weights of its checkpoint, or random ones.

    `by_own`: it is loaded by a loader of the user's, which may cast as `model.to(dtype)` does: all that is floating.
    """

    own: UserModel
    by_own: bool = False

    def build(self) -> nn.Module:
        return self.own.build()

    def saved(self) -> nn.Module:
        return self.own.saved(lambda _: None)

    def as_loaded(self, saved: nn.Module) -> nn.Module:
        """Return the saved model as a load has to give it: cast, if a cast is asked for."""
        return self.own.as_loaded(saved)

    def state_dict(self, model: nn.Module) -> dict[str, Any]:
        """Return what its checkpoint holds."""
        return without(model.state_dict(), self.own.missing)

    def initial_values(self) -> dict[str, list[InitialValues]]:
        """Return what it starts with where its checkpoint has nothing."""
        return initial_values(self.saved(), self.own.missing) if self.own.missing else {}

    def suspects(self) -> set[str]:
        return {name for names in properties_of(self.build()).values() for name in names}

    def outputs(self, model: nn.Module) -> list[Tensor]:
        """Compute the outputs for its example."""
        return self.own.outputs(model)

    def unsteady(self, saved: nn.Module) -> set[str]:
        """Return the names of what need not be equal: the factory makes it otherwise each time."""
        another = self.as_loaded(self.saved())
        try:
            another.load_state_dict(saved.state_dict())
        except RuntimeError:  # It cannot be loaded so, as one with expanded buffers, or made in inference mode.
            return set()
        return {one.name for one in differences(saved, another, torch.device("cpu"))}

    def cast_too(self, saved: nn.Module) -> dict[str, Tensor]:
        """Return what buffers beside the checkpoint may be too: a loader of the user's may cast the whole model."""
        dtype = DTYPES.get(self.own.cast) if self.by_own else None
        buffers = nonpersistent_buffers(saved) if dtype else {}
        return {name: one.to(dtype) for name, one in buffers.items() if one.is_floating_point()}

    def __str__(self) -> str:
        return self.own.label
