"""The user's model, checkpoint and loaders, made from the options."""

import re
from pathlib import Path
from tempfile import mkdtemp

from bench.plugin.options import Options
from bench.strategies import Strategy
from bench.strategies.user_strategy import user_strategy
from model.run_folder import run_folder
from model.user import from_options
from model.user.conversion_request import ConversionRequest
from model.user.from_options import Named
from model.user.hub_folder import HubFolder, fetch_folder
from model.user.hub_name import HubName
from model.user.pretrained_folder import headers_of, weights_of
from model.user.user_model import UserModel


def user_model(options: Options) -> UserModel | None:
    """Return the user's model; None: the suite's. Raises `ValueError` with one line: what is wrong, what is right."""
    if options.model is None:
        return None
    try:
        hub, headers = _of_hub(options, options.model), None
        if hub is None and options.plan and options.checkpoint is None:
            headers = headers_of(options.model)
        checkpoint = options.checkpoint or _weights(options, options.model, hub)
    except ValueError as error:
        raise ValueError(f"--model: {error}") from None
    if hub is None:
        try:
            return _made(options, Named(options.model, headers=headers), checkpoint)
        except ValueError as error:
            given = "--model: " if options.checkpoint is None else "--checkpoint: "
            raise ValueError(re.sub("^--checkpoint: ", given, str(error))) from None
    with hub.named():
        return _made(options, Named(str(hub.folder), hub.display_name, hub.weights, (hub.note,)), checkpoint)


def _of_hub(options: Options, model: str) -> HubFolder | None:
    """Fetch what a plan needs of a model on the hub; None for other models."""
    name = HubName.of(model)
    if name is None:
        return None
    name.require_plan(planned=options.plan)
    parent = Path(mkdtemp(prefix="hub-", dir=run_folder()))
    return fetch_folder(name, parent, headers=options.checkpoint is None)


def _weights(options: Options, model: str, hub: HubFolder | None) -> str | None:
    """Return the checkpoint that lies with a model. A plan needs none, and takes its names if it is there."""
    if hub:
        return str(hub.weights) if hub.weights else None
    try:
        return weights_of(model)
    except ValueError:
        if _request(options).name_options or not options.plan:
            raise
        return None


def _request(options: Options) -> ConversionRequest:
    return ConversionRequest(options.rename, options.allow_missing, options.allow_surplus, options.cast)


def _made(options: Options, named: Named, checkpoint: str | None) -> UserModel:
    return from_options.user_model(named, checkpoint, options.state_key, options.example_input, _request(options))


def user_strategies(options: Options) -> dict[str, Strategy]:
    """Return the user's loaders by their names, each with its bound. Raises as `user_model` does."""
    texts, bounds = options.loader, options.loader_bound
    if len(bounds) not in (0, 1, len(texts)):
        raise ValueError(
            f"--loader-bound is given {len(bounds)} times, and --loader {len(texts)} times; give one bound for each "
            f"loader, or one for all"
        )
    found: dict[str, Strategy] = {}
    for place, text in enumerate(texts):
        try:
            strategy = user_strategy(text, bounds[place % len(bounds)] if bounds else None)
        except ValueError as error:
            raise ValueError(f"--loader: {error}") from None
        if strategy.name in found:
            raise ValueError(f"--loader: two functions are called {strategy.name!r}; rename one of them")
        found[strategy.name] = strategy
    return found
