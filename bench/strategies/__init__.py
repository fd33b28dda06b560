"""Strategies: one recipe a file, and one table of what theory says of each.

A recipe is a function `(build, path, device)` that imports torch and the standard library only: it can be
pasted into another project as it is. `build()` makes a freshly initialised model, or its skeleton under
`torch.device("meta")`; `path` is the checkpoint; the loaded model is returned.
"""

from collections import ChainMap

from bench.strategies.baseline import baseline
from bench.strategies.load_assign import load_assign
from bench.strategies.meta_sequential import meta_sequential
from bench.strategies.mmap_assign import mmap_assign
from bench.strategies.peers.peer_table import PEERS
from bench.strategies.per_tensor import per_tensor
from bench.strategies.sequential import sequential
from bench.strategies.strategy import EXTRA_LAYOUTS, Bounds, Load, Strategy
from bench.strategies.streamed import streamed

__all__ = ["KNOWN", "PEERS", "STATED_DEVICE_RATIO", "STRATEGIES", "Bounds", "Load", "Strategy"]

STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        # Bounds, and below them those of casts and of checkpoints with a part of the model:
        #          device    host  cpu      file pinned
        Strategy(
            baseline, "torch",
            Bounds("2S",     "S", "2S",    "0", "0"),
            Bounds("S + C",  "K", "S + C", "0", "0"),
            refuses_moved="views gaps", extra_layouts=EXTRA_LAYOUTS, builds=True,
        ),
        Strategy(
            sequential, "torch",
            Bounds("S + L",  "S", "2S",    "0", "0"),
            Bounds("S + K",  "C", "S + C", "0", "0"),
            refuses_moved="views gaps", extra_layouts=EXTRA_LAYOUTS, builds=True,
        ),
        Strategy(
            meta_sequential, "torch",
            Bounds("2S",     "L", "2S",    "0", "0"),
            Bounds("S + C",  "K", "S + C", "0", "0"),
            refuses="views", extra_layouts=EXTRA_LAYOUTS,
        ),
        Strategy(
            load_assign, "torch",
            Bounds("S",      "L", "S",     "0", "0"),
            Bounds("S + X",  "K", "S + X", "0", "0"),
            extra_layouts=EXTRA_LAYOUTS,
        ),
        Strategy(
            mmap_assign, "torch",
            Bounds("S",      "0", "0",     "S", "0", file_moved="F"),
            Bounds("S",      "V", "Y + M", "W", "0", file_moved="F"),
            extra_layouts=EXTRA_LAYOUTS,
        ),
        Strategy(
            per_tensor, "per_tensor",
            Bounds("S",      "L", "S + L", "0", "0"),
            Bounds("S",      "P", "S + P", "0", "0"),
            refuses="views extra_state",
        ),
        Strategy(
            streamed, "torch",
            Bounds("S",      "R", "S",     "0", "R"),
            Bounds("S + D",  "R", "S + D", "0", "R"),
            extra_layouts=EXTRA_LAYOUTS,
        ),
    )
}  # fmt: skip

# Everything that can be measured without being the user's, the suite's own first.
KNOWN = ChainMap(PEERS, STRATEGIES)

# The device peak, as a multiple of S, that the notebook which started this suite states for a strategy. It is
# held where S and L allow it: with S + L, from GPT-2 large upwards.
STATED_DEVICE_RATIO = {"sequential": 1.1}
