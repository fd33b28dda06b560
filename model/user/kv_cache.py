"""Size of a model's KV cache, or of the state of a recurrent model, for one sequence.

This works for any architecture: a skeleton on meta runs with sequences of several lengths, and the tensors in the cache
that it returns are counted.
"""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from model.casting import retype
from model.user.example_inputs import ExampleInput, example_inputs
from model.user.factory import on_meta
from model.user.user_model import UserModel

# The fields of an output that hold a cache, by versions and architectures of transformers.
CACHES = ("past_key_values", "cache", "cache_params", "state", "mems")
# Inputs whose last dimension is the number of tokens.
TOKEN_INPUTS = ("input_ids", "decoder_input_ids")
# Tokens of the two sequences that are compared; beyond a window so many more.
SHORT, LONG = 4, 6
# Attributes of configurations that limit how far back some layers look, in tokens.
WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size", "window_size")
# A longer window is longer than the context of any model.
MOST_TOKENS = 2**24


@dataclass(frozen=True)
class KVCache:
    """Bytes that one sequence takes: `sequence_bytes`, and `token_bytes` for each token.

    Some layers may keep the last `window` tokens only: beyond that each token takes `later_bytes`. None: there is no
    such window. `paired`: a token is one of the input and one of the output, of an encoder and a decoder. `most_tokens`
    are those that the model has positions for; None: its configuration does not say.
    """

    sequence_bytes: int
    token_bytes: int
    window: int | None = None
    later_bytes: int = 0
    paired: bool = False
    most_tokens: int | None = None

    def bytes_of(self, tokens: int) -> int:
        """Return the bytes of a sequence of so many tokens."""
        near = tokens if self.window is None else min(tokens, self.window)
        return self.sequence_bytes + near * self.token_bytes + (tokens - near) * self.later_bytes

    def tokens_in(self, count: int) -> int | None:
        """Return the tokens of the longest sequence that `count` bytes hold; None: as long as one likes."""
        left = count - self.sequence_bytes
        if left < 0:
            return 0
        near = left // self.token_bytes if self.token_bytes else None
        if self.window is None or (near is not None and near < self.window):
            return near
        beyond = left - self.window * self.token_bytes
        return self.window + beyond // self.later_bytes if self.later_bytes else None

    def divided(self, ranks: int) -> "KVCache":
        """Return what each of some ranks takes of it, where they divide its heads."""
        sizes = (self.sequence_bytes, self.token_bytes, self.later_bytes)
        sequence, token, later = (-(-size // ranks) for size in sizes)
        return replace(self, sequence_bytes=sequence, token_bytes=token, later_bytes=later)


def kv_cache(model: nn.Module, inputs: Sequence[ExampleInput] = ()) -> KVCache | None:
    """Return the cache of a skeleton on meta; None if it returns none, or does not run there.

    `inputs` are example inputs that it takes; without any they are looked for.
    """
    if not _may_cache(model):
        return None
    inputs = inputs or example_inputs(model)
    if not any(one.name in TOKEN_INPUTS for one in inputs):
        return None
    try:
        return _measured(model, inputs)
    except Exception:  # noqa: BLE001 - whatever the model itself raises: some operations have nothing on meta
        return None


def cache_of(model: UserModel) -> KVCache | None:
    """Return the cache of the user's model with its weights in the dtypes that a load ends in; None: it has none.

    A model that cannot be built on meta is not run.
    """
    if any(tensor.device.type != "meta" for tensor in model.skeleton().parameters()):
        return None
    # The skeleton that others share keeps its dtypes.
    built = on_meta(model.factory).eval()
    retype(built, dict(model.conversion.dtypes))
    with model.factory.running():
        return kv_cache(model.as_loaded(built), getattr(model.factory, "inputs", ()))


def _may_cache(model: nn.Module) -> bool:
    """Return True if the model of a library takes `use_cache`, maybe as a keyword that it passes on."""
    parameters = inspect.signature(model.forward).parameters
    passes_on = any(one.kind == inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    return hasattr(model, "config") and ("use_cache" in parameters or passes_on)


def _measured(model: nn.Module, inputs: Sequence[ExampleInput]) -> KVCache | None:
    short, long = (_bytes(model, inputs, tokens) for tokens in (SHORT, LONG))
    if not long:
        return None
    token = (long - short) // (LONG - SHORT)
    window, most = _window(model), _most_tokens(model)
    found = KVCache(
        sequence_bytes=short - token * SHORT,
        token_bytes=token,
        paired={one.name for one in inputs} >= set(TOKEN_INPUTS),
        most_tokens=most,
    )
    if window is None or (most is not None and window >= most):
        return found
    near, far = (_bytes(model, inputs, 2 * window + tokens) for tokens in (SHORT, LONG))
    later = (far - near) // (LONG - SHORT)
    if later == token:
        return found
    # Where the two slopes meet, which is what the model does whatever its configuration says.
    meets = (near - found.sequence_bytes - later * (2 * window + SHORT)) // (token - later)
    return replace(found, window=meets, later_bytes=later)


def _bytes(model: nn.Module, inputs: Sequence[ExampleInput], tokens: int) -> int:
    """Return the bytes of the cache after one sequence of so many tokens."""
    given = {
        one.name: (replace(one, shape=(1, tokens)) if one.name in TOKEN_INPUTS else one).tensor().to("meta")
        for one in inputs
    }
    with torch.inference_mode():
        returned = model(**given, use_cache=True)
    caches = [getattr(returned, name, None) for name in CACHES]
    tensors = {id(tensor): tensor for cache in caches for tensor in _tensors(cache, set())}
    # A scalar is no state of a sequence.
    return sum(tensor.nbytes for tensor in tensors.values() if tensor.dim())


def _tensors(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """Yield all tensors that a cache holds, in whatever it is made of."""
    if id(value) in seen or isinstance(value, nn.Module | type):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one, seen)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one, seen)
    elif hasattr(value, "__dict__"):
        yield from _tensors(vars(value), seen)


def _window(model: nn.Module) -> int | None:
    """Return the largest window that a configuration names, or None."""
    return max((one for one in _numbers(model, WINDOWS) if one > LONG), default=None)


def _most_tokens(model: nn.Module) -> int | None:
    return max(_numbers(model, ("max_position_embeddings", "n_positions")), default=None)


def _numbers(model: nn.Module, names: Sequence[str]) -> list[int]:
    """Return the whole numbers under these names in a configuration and in those within it."""
    config: Any = model.config
    sections = [config, *(getattr(config, name, None) for name in getattr(config, "sub_configs", ()))]
    found = (getattr(section, name, None) for section in sections for name in names)
    return [one for one in found if type(one) is int and 0 < one <= MOST_TOKENS]
