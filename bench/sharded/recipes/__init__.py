"""Loads that many processes do together, each of them a rank with a shard of the model.

A recipe is a function `(build, path, device, parallelize)`, called in every rank: `parallelize(model)` divides a model
among the ranks, as `fully_shard` or a tensor-parallel plan does. It may be pasted as other recipes are.
"""

from dataclasses import dataclass
from importlib.util import find_spec

from bench.strategies import ALSO, Strategy
from bench.strategies.lazy_recipe import LazyRecipe
from model.user.reference import Reference


@dataclass(frozen=True)
class ShardedStrategy(Strategy):
    """A recipe, and the peaks that theory gives it in one of N ranks: see `Share` for its terms.

    `a | b` is `a` in rank 0, and `b` in others. `needs` are modules that it wants beside PyTorch, and `plannable` tells
    whether it can be planned.
    """

    needs: str = ""
    plannable: bool = True

    @property
    def why_not(self) -> str | None:
        """Why it cannot be measured here, in a line."""
        missing = [name for name in self.needs.split() if find_spec(name) is None]
        return f"{self.name} needs {', '.join(missing)}: pip install '.[sharded]'" if missing else None


def _recipe(module: str, function: str = "") -> LazyRecipe:
    """By its name: what it imports of PyTorch takes a second."""
    return LazyRecipe(Reference(f"{__name__}.{module}:{function or module}"))


# PyTorch's collectives of objects want NumPy.
SHARDED = {
    strategy.name: strategy
    for strategy in (
        #               recipe                           layout         device         host   one_pool
        #                                                file
        ShardedStrategy(_recipe("load_then_shard"),      "torch",       "S/N + U",     "2S",  "2S",
                                                         "0"),
        ShardedStrategy(_recipe("broadcast"),            "torch",       "S/N + B + L", "0",   "S/N | S/N + B + L",
                                                         "S | 0",       needs="numpy"),
        ShardedStrategy(_recipe("mmap_shards"),          "torch",       "S/N",         "0",   "S/N",
                                                         "T",           also=ALSO),
        ShardedStrategy(_recipe("dcp"),                  "dcp",         "S/N",         "M",   "S/N + M",
                                                         "0",           needs="numpy"),
        ShardedStrategy(_recipe("dcp", "dcp_safetensors"), "safetensors", "S/N",       "0",   "S/N",
                                                         "T",           needs="numpy safetensors", plannable=False,
                                                         refuses="ties"),
        ShardedStrategy(_recipe("streamed"),             "torch",       "S/N",         "R",   "S/N",
                                                         "0",           also=ALSO,     pinned="R"),
    )
}  # fmt: skip
