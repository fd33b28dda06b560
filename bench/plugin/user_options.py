"""What a command line says of the user's own: a model, its checkpoint, and loaders."""

from typing import Any

from bench.measure.terms import Terms
from bench.strategies import Strategy
from bench.strategies.user_strategy import user_strategy
from model.user.conversion_request import ConversionRequest
from model.user.pretrained_folder import weights_of
from model.user.renaming import rule
from model.user.user_model import UserModel, own

OWN_OPTIONS = (
    (
        *("--model", None, "MODEL"),
        "your model: a function without arguments that builds it, package.module:function or file.py:function; or a "
        "folder of Hugging Face with its config.json and weights, or the config.json alone (default: GPT-2)",
    ),
    (
        "--checkpoint",
        None,
        "PATH",
        "checkpoint of your model, a file or a folder (default: the weights in the folder of --model; without one, "
        "random weights are saved)",
    ),
    (
        "--state-key",
        None,
        "KEY",
        "where the checkpoint holds the state dict, such as model or states.ema (default: the checkpoint is one)",
    ),
    (
        *("--rename", None, "REGEX=REPLACEMENT"),
        "regular expression and what replaces it in every name of the checkpoint, such as 'bert\\.(.*)=\\1'; may be "
        "repeated, they apply in order (default: none)",
    ),
    (
        *("--allow-missing", None, "GLOB"),
        "names of the model that the checkpoint may lack, such as 'head.*': they keep what the model starts with; may "
        "be repeated (default: none)",
    ),
    (
        *("--allow-surplus", None, "GLOB"),
        "names in the checkpoint, as they are after --rename, that are left out, such as 'bert.pooler.*'; may be "
        "repeated (default: none)",
    ),
    (
        *("--example", None, "FUNCTION"),
        "function that returns a first input for your model: a tensor, a tuple, or a dict of arguments (default: "
        "attribute example of the factory, or what config.json says of the inputs; without it, outputs are not "
        "compared)",
    ),
    (
        *("--strategy", None, "FUNCTION"),
        "loader of yours, a function (build, path, device), measured like a strategy; may be repeated (default: none)",
    ),
    (
        *("--bound", None, "BOUND"),
        "most device memory that your loader may take, such as S + L; once for each loader, or once for all (default: "
        "no bound)",
    ),
    (
        *("--tolerate", None, "LIST"),
        "properties of models that your loader need not keep, as bench/conformance/ lists them, such as "
        "dtype,untied,moved (default: a warning for each)",
    ),
)
# May be given several times.
REPEATED = ("--strategy", "--bound", "--rename", "--allow-missing", "--allow-surplus")

# What says of the suite's GPT-2 what a model of the user's says by itself.
_GPT2 = {
    "sizes": ("small", "--sizes names GPT-2s"),
    "dtype": ("float32", "--dtype is GPT-2's, yours has the one that it is built with"),
}


def own_model(options: Any) -> UserModel | None:
    """The user's model; None: the suite's. Raises `ValueError` with one line: what is wrong, what would be right."""
    if options.model is None:
        for name in ("checkpoint", "state_key", "example", "rename", "allow_missing", "allow_surplus"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is for a model of yours: say with --model what builds it")
        return None
    for name, (default, why) in _GPT2.items():
        if getattr(options, name) != default:
            raise ValueError(f"{why}: leave it out beside --model")
    checkpoint, wanted = options.checkpoint, _wanted(options)
    # A plan needs no weights, but for what is said of their names.
    if checkpoint is None and (wanted.of_names or not options.plan):
        try:
            checkpoint = weights_of(options.model)
        except ValueError as error:
            raise ValueError(f"--model: {error}") from None
    return own(options.model, checkpoint, options.state_key, options.example, wanted)


def _wanted(options: Any) -> ConversionRequest:
    """How a checkpoint is to become the model's."""
    try:
        renames = tuple(map(rule, options.rename or ()))
    except ValueError as error:
        raise ValueError(f"--rename: {error}") from None
    return ConversionRequest(
        renames, tuple(options.allow_missing or ()), tuple(options.allow_surplus or ()), options.cast
    )


def own_strategies(options: Any) -> dict[str, Strategy]:
    """The user's loaders by their names, each with its bound. Raises as `own_model` does."""
    texts, bounds = options.strategy or [], options.bound or []
    if bounds and not texts:
        raise ValueError("--bound is for a loader of yours: name it with --strategy")
    if len(bounds) not in (0, 1, len(texts)):
        raise ValueError(f"--bound is there {len(bounds)} times, --strategy {len(texts)}: once for each, or for all")
    found: dict[str, Strategy] = {}
    for place, text in enumerate(texts):
        strategy = _own_strategy(text, bounds[place % len(bounds)] if bounds else None)
        if strategy.name in found:
            raise ValueError(f"--strategy: there are two functions {strategy.name!r}; rename one of them")
        found[strategy.name] = strategy
    return found


def _own_strategy(text: str, bound: str | None) -> Strategy:
    try:
        if bound is not None:
            Terms(state_bytes=1, largest_tensor_bytes=1).bound_bytes(bound)
    except ValueError as error:
        raise ValueError(f"--bound: {error}") from None
    try:
        return user_strategy(text, bound)
    except ValueError as error:
        raise ValueError(f"--strategy: {error}") from None
