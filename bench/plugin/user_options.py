"""The user's model with its checkpoint, and the user's loaders, as the options name them."""

from bench.plugin.options import Options
from bench.strategies import Strategy
from bench.strategies.user_strategy import user_strategy
from model.user import from_options
from model.user.conversion_request import ConversionRequest
from model.user.pretrained_folder import weights_of
from model.user.user_model import UserModel


def user_model(options: Options) -> UserModel | None:
    """Return the user's model; None: the suite's. Raises `ValueError` with one line: what is wrong, what is right."""
    if options.model is None:
        return None
    request = ConversionRequest(options.rename, options.allow_missing, options.allow_surplus, options.cast)
    checkpoint = options.checkpoint
    # A plan needs no weights, but for what is said of their names.
    if checkpoint is None and (request.name_options or not options.plan):
        try:
            checkpoint = weights_of(options.model)
        except ValueError as error:
            raise ValueError(f"--model: {error}") from None
    return from_options.user_model(options.model, checkpoint, options.state_key, options.example, request)


def user_strategies(options: Options) -> dict[str, Strategy]:
    """Return the user's loaders by their names, each with its bound. Raises as `user_model` does."""
    texts, bounds = options.strategy, options.bound
    if len(bounds) not in (0, 1, len(texts)):
        raise ValueError(f"--bound is there {len(bounds)} times, --strategy {len(texts)}: once for each, or for all")
    found: dict[str, Strategy] = {}
    for place, text in enumerate(texts):
        try:
            strategy = user_strategy(text, bounds[place % len(bounds)] if bounds else None)
        except ValueError as error:
            raise ValueError(f"--strategy: {error}") from None
        if strategy.name in found:
            raise ValueError(f"--strategy: there are two functions {strategy.name!r}; rename one of them")
        found[strategy.name] = strategy
    return found
