"""Builds models of a factory, and skeletons on meta."""

from functools import cache

import torch
from torch import nn

from model.state_dict import state_digest
from model.user.factory import Factory
from model.user.user_code import UserCodeFailed, naming_failures


@cache
def skeleton(factory: Factory) -> nn.Module:
    """Return a model on meta, built once; a real one if it cannot be built there."""
    return on_meta(factory)


def on_meta(factory: Factory) -> nn.Module:
    """Build a model on meta; a real one if it cannot be built there."""
    try:
        with torch.device("meta"):
            return build(factory)
    except ValueError:
        return build(factory)


def build(factory: Factory) -> nn.Module:
    """Build a model. Raises `UserCodeFailed`, in a line, if that fails."""
    make = factory.get()
    with factory.running(), naming_failures(f"{factory.display_name} fails"):
        model = make()
    if isinstance(model, nn.Module):
        return model
    kind = type(model).__name__
    raise UserCodeFailed(f"{factory.display_name} returns no torch.nn.Module, but something of the type {kind}")


@cache
def skeleton_digest(factory: Factory) -> str:
    return state_digest(skeleton(factory).state_dict())
