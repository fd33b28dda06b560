"""Loads that many processes do together, each of them a rank with a shard of the model.

A recipe is a function `(build, path, device, parallelize)`, called in every rank: `parallelize(model)` divides a model
among the ranks, as `fully_shard` or a tensor-parallel plan does. It may be pasted as other recipes are.
"""

from dataclasses import dataclass
from importlib.util import find_spec

from bench.strategies.lazy_recipe import LazyRecipe
from bench.strategies.strategy import EXTRA_LAYOUTS, Bounds, Strategy
from model.installation import pip_install
from model.user.reference import Reference


@dataclass(frozen=True)
class ShardedStrategy(Strategy):
    """A recipe, and the peaks that theory gives it in one of N ranks: see `Share` for its terms.

    `a | b` is `a` in rank 0, and `b` in others. `needs` are modules that it wants beside PyTorch. `reads_folder`: it
    takes every .safetensors file that is beside its checkpoint for a part of it.
    """

    needs: str = ""
    reads_folder: bool = False

    @property
    def has_leader(self) -> bool:
        """True if rank 0 does something else than other ranks with the same share."""
        bounds = (self.bounds.of_peaks(on_host=on_host).values() for on_host in (False, True))
        return any("|" in expression for of_device in bounds for expression in of_device)

    @property
    def skip_reason(self) -> str | None:
        """The reason why it cannot be measured here; None: it can."""
        missing = [name for name in self.needs.split() if find_spec(name) is None]
        return f"{self.name} needs {', '.join(missing)}: {pip_install('sharded')}" if missing else None


def _recipe(module: str, function: str = "") -> LazyRecipe:
    """Return a recipe by its name: what it imports of PyTorch takes a second."""
    return LazyRecipe(Reference(f"{__name__}.{module}:{function or module}"))


# Ranks give every tensor memory of its own.
VIEWS = "views gaps"

# PyTorch's collectives of objects want NumPy.
SHARDED = {
    strategy.name: strategy
    for strategy in (
        # Bounds, and below them those of casts:
        #          device         host     cpu                    file     pinned
        ShardedStrategy(
            _recipe("load_then_shard"), "torch",
            Bounds("S/N + U",     "2S",    "2S",                  "0",     "0"),
            Bounds("S/N + U",     "S + C", "S + C",               "0",     "0"),
            refuses=VIEWS, extra_layouts=EXTRA_LAYOUTS, builds=True,
        ),
        ShardedStrategy(
            _recipe("broadcast"), "torch",
            Bounds("S/N + B",     "0",     "S/N | S/N + B",       "S | 0", "0"),
            Bounds("S/N + B",     "Y | 0", "S/N + Y | S/N + B",   "C | 0", "0"),
            refuses=VIEWS, extra_layouts=EXTRA_LAYOUTS, needs="numpy",
        ),
        ShardedStrategy(
            _recipe("mmap_shards"), "torch",
            Bounds("S/N",         "V",     "S/N",                 "T",     "0"),
            refuses=VIEWS, extra_layouts=EXTRA_LAYOUTS,
        ),
        ShardedStrategy(
            _recipe("dcp"), "dcp",
            Bounds("S/N",         "M + V", "S/N + M",             "0",     "0"),
            refuses=VIEWS, needs="numpy",
        ),
        ShardedStrategy(
            _recipe("dcp", "dcp_safetensors"), "safetensors",
            Bounds("S/N",         "V",     "S/N",                 "F",     "0"),
            refuses=f"{VIEWS} extra_state", extra_layouts="safetensors_sharded", needs="numpy safetensors",
            reads_folder=True,
        ),
        ShardedStrategy(
            _recipe("streamed"), "torch",
            Bounds("S/N",         "R",     "S/N",                 "0",     "R"),
            Bounds("S/N + D",     "R",     "S/N + D",             "0",     "R"),
            refuses=VIEWS, extra_layouts=EXTRA_LAYOUTS,
        ),
    )
}  # fmt: skip
