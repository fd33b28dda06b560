"""What is measured: one recipe a file, and one table of what theory says of each.

A recipe is a function `(build, path, device)` that imports torch and the standard library only: it can be
pasted into another project as it is. `build()` makes a freshly initialised model, or its skeleton under
`torch.device("meta")`; `path` is the checkpoint; the loaded model is returned.
"""

import ast
from collections import ChainMap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.strategies.baseline import baseline
from bench.strategies.lazy_recipe import LazyRecipe
from bench.strategies.load_assign import load_assign
from bench.strategies.meta_sequential import meta_sequential
from bench.strategies.mmap_assign import mmap_assign
from bench.strategies.peers import Peer
from bench.strategies.peers.finding import by_folder, by_name, by_path, by_suffix
from bench.strategies.per_tensor import per_tensor
from bench.strategies.sequential import sequential
from bench.strategies.streamed import streamed
from bench.strategies.user_strategy import UserRecipe, required_layout, takes_a_load
from model.user.reference import Reference
from model.user.source import Source

Load = Callable[[Callable[[], nn.Module], Path, torch.device], nn.Module]


@dataclass(frozen=True)
class Strategy:
    """A recipe, and the peaks that theory gives it in S, the state bytes, L, the largest tensor, and R, a ring.

    `layout` is the checkpoint that it is measured with, and `also` are other layouts that it loads. `device` is the
    peak on a device with memory of its own, in requested bytes, and `host` the private memory beside it; `one_pool`
    is the private memory where the device is the host. `file` is the file-backed memory once every weight was read, and
    `file_moved` that beside a device, if it is another: F is the largest file of a checkpoint. `pinned` is the
    page-locked memory beside a device. `builds`: it builds the model on the host, and no skeleton. `refuses` are
    properties of models that it cannot load and says so, `refuses_moved` those that it cannot load where the device is
    not the host. Of a loader of the user's (`is_own`) theory says nothing (""), the user what it takes on the device at
    most, and nobody what it refuses. With `any_layout` it loads whatever layout the user's checkpoint is in. Of the
    loader of another project, a `peer`, theory says nothing either.
    """

    load: Load
    layout: str
    device: str
    host: str
    one_pool: str
    file: str
    refuses: str = ""
    refuses_moved: str = ""
    also: str = ""
    pinned: str = "0"
    file_moved: str = ""
    builds: bool = False
    is_own: bool = False
    any_layout: bool = False
    peer: Peer | None = None

    @property
    def loader(self) -> str | None:
        """The name of a loader of the user's with its file or module, see `Reference`; None: it is the suite's."""
        return self.load.reference.display_name if self.is_own and isinstance(self.load, LazyRecipe) else None

    @property
    def function(self) -> Load:
        """The recipe itself."""
        return self.load.reference.get() if isinstance(self.load, LazyRecipe) else self.load

    @property
    def name(self) -> str:
        return self.load.reference.name if isinstance(self.load, LazyRecipe) else self.load.__name__

    def given(self, layout: str) -> "Strategy":
        """The same for a checkpoint in one of the layouts that it loads: a peer may map no file but its own."""
        if self.peer and layout != self.layout and layout.startswith("torch"):
            return replace(self, file=self.peer.torch_file)
        return self

    @property
    def layouts(self) -> tuple[str, ...]:
        """All that it loads, of `LAYOUTS`."""
        return self.layout, *self.also.split()

    @property
    def source(self) -> str:
        """The file that the recipe is written in; of one that is not written in Python there is none."""
        if self.peer:
            return self.peer.source
        return getattr(getattr(self.function, "__code__", None), "co_filename", "")

    def when_cast(self) -> "Strategy":
        """The same with the peaks that theory gives it where it casts, or a checkpoint has a part of the model.

        Of a peer it says nothing of that.
        """
        if self.peer:
            return replace(self, file="")
        return replace(self, **WHEN_CAST[self.name]) if self.name in WHEN_CAST else self

    def takes(self, keyword: str) -> bool:
        """Whether a recipe has a keyword, as its source says: the library of a peer is not imported for that."""
        tree = ast.parse(Path(self.source).read_bytes())
        functions = [one for one in tree.body if isinstance(one, ast.FunctionDef) and one.name == self.name]
        return any(keyword == argument.arg for one in functions for argument in (*one.args.args, *one.args.kwonlyargs))

    @property
    def is_stated(self) -> bool:
        """Whether it is the suite's own, of which theory says what it takes."""
        return not self.is_own and self.peer is None

    def refused(self, device: str) -> frozenset[str]:
        """The properties that keep it from loading a model to `device`."""
        return frozenset(f"{self.refuses} {'' if device == 'cpu' else self.refuses_moved}".split())

    def avoided(self, device: str) -> frozenset[str]:
        """These, and the properties that a peer loads wrongly: what is drawn to find out other things is without."""
        return self.refused(device) | frozenset(f"{self.peer.wrong} {self.peer.dies}".split() if self.peer else ())


ALSO = "torch_sharded safetensors safetensors_sharded"

STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        #        recipe           layout        device   host  one_pool  file  refuses, and when moved to a device
        Strategy(baseline,        "torch",      "2S",    "S",  "2S",     "0",  "", "views gaps", ALSO, builds=True),
        Strategy(sequential,      "torch",      "S + L", "S",  "2S",     "0",  "", "views gaps", ALSO, builds=True),
        Strategy(meta_sequential, "torch",      "2S",    "L",  "2S",     "0",  "views", also=ALSO),
        Strategy(load_assign,     "torch",      "S",     "L",  "S",      "0",  also=ALSO),
        Strategy(mmap_assign,     "torch",      "S",     "0",  "0",      "S",  also=ALSO, file_moved="F"),
        Strategy(per_tensor,      "per_tensor", "S",     "L",  "S + L",  "0",  "views extra_state"),
        Strategy(streamed,        "torch",      "S",     "R",  "S",      "0",  also=ALSO, pinned="R"),
    )
}  # fmt: skip


# The peaks of those that convert what they load, or load a part of the model, in the terms of `bounds.CAST_TERMS` too.
WHEN_CAST: dict[str, dict[str, Any]] = {
    #                  device      host        one_pool      file and page-locked memory as without
    "baseline":        {"device": "S + C", "host": "K", "one_pool": "S + C"},
    "sequential":      {"device": "S + K", "host": "C", "one_pool": "S + C"},
    "meta_sequential": {"device": "S + C", "host": "K", "one_pool": "S + C"},
    "load_assign":     {"device": "S + X", "host": "K", "one_pool": "S + X"},
    "mmap_assign":     {"device": "S",     "host": "V", "one_pool": "Y + M", "file": "W"},
    "per_tensor":      {"device": "S",     "host": "P", "one_pool": "S + P"},
    "streamed":        {"device": "S + D", "host": "R", "one_pool": "S + D"},
}  # fmt: skip


META, REAL = "meta skeleton", "real module"
# Of those that put tensors on a device by PyTorch alone, which is what is simulated.
TORCH_ALONE = "cpu cuda sim"


def _peer(  # noqa: PLR0913, PLR0917 - a row of the table below
    function: str,
    layout: str,
    module: str,
    needs: str,
    destination: str,
    settings: str,
    *,
    formats: str = "safetensors",
    devices: str = "cpu cuda",
    file: str = "",
    refuses: str = "",
    wrong: str = "",
    dies: str = "",
    architecture: str = "",
    also: str = "",
    finds: Callable[[Source], bool] = by_path,
    torch_file: str = "",
) -> Strategy:
    told = destination, settings, formats, devices, wrong, dies, architecture
    peer = Peer(module, needs, *told, also=also, finds=finds, torch_file=torch_file)
    load = LazyRecipe(Reference(f"{peer.module}:{function}"))
    return Strategy(load, layout, "", "", "", file, refuses, pinned="", peer=peer)


# What a .safetensors file cannot hold, and is refused when it is written.
UNHELD = "dtypes views strides gaps extra_state"

PEERS = {
    strategy.name: strategy
    for strategy in (
        _peer(
            *("safetensors", "safetensors", "safetensors", "safetensors"),
            *(META, "load_file, load_state_dict(assign=True)"),
            devices=TORCH_ALONE,
            file="S",
            refuses=f"{UNHELD} ties gpt2",
            wrong="nonpersistent attributes derived rotary optimizer dtype untied",
        ),
        _peer(
            *("safetensors_load_model", "safetensors", "safetensors", "safetensors"),
            *(REAL, "load_model"),
            devices=TORCH_ALONE,
            refuses=f"{UNHELD} mixed",
            wrong="dtype",
        ),
        _peer(
            *("safetensors_safe_open", "safetensors", "safetensors", "safetensors"),
            *(REAL, "safe_open, get_tensor, copy_"),
            devices=TORCH_ALONE,
            refuses=UNHELD,
            wrong="missing dtype shape untied",
        ),
        _peer(
            *("accelerate", "safetensors", "accelerate", "accelerate safetensors"),
            *(META, "init_empty_weights, load_checkpoint_and_dispatch(device_map)"),
            devices=TORCH_ALONE,
            formats="safetensors, torch",
            file="S",
            refuses="dtypes ties strides gaps names extra_state gpt2",
            wrong="views optimizer surplus dtype untied",
            also=f"torch {ALSO}",
            finds=by_suffix,
        ),
        _peer(
            *("dcp", "dcp", "dcp", "torch"),
            *(REAL, "load(no_dist=True)"),
            devices=TORCH_ALONE,
            formats="dcp",
            refuses="extra_state",
            wrong="surplus dtype untied moved",
        ),
        _peer(
            *("dcp_safetensors", "safetensors", "dcp", "torch safetensors"),
            *(REAL, "load(HuggingFaceStorageReader, no_dist=True)"),
            devices=TORCH_ALONE,
            refuses=f"{UNHELD} ties gpt2",
            wrong="surplus dtype untied",
            also="safetensors_sharded",
            finds=by_folder,
        ),
        _peer(
            *("fastsafetensors", "safetensors", "fastsafetensors", "fastsafetensors"),
            *(META, "fastsafe_open, load_state_dict(assign=True)"),
            refuses=f"{UNHELD} ties gpt2",
            wrong="nonpersistent attributes derived rotary optimizer memory dtype untied",
        ),
        _peer(
            *("runai_model_streamer", "safetensors", "runai_model_streamer", "runai-model-streamer"),
            *(META, "stream_file(owned=True), load_state_dict(assign=True)"),
            refuses=f"{UNHELD} ties gpt2",
            wrong="nonpersistent attributes derived rotary optimizer dtype untied",
        ),
        _peer(
            *("instanttensor", "safetensors", "instanttensor", "instanttensor"),
            *(META, "safe_open(copy=True), load_state_dict(assign=True)"),
            devices="cuda",
        ),
        _peer(
            *("tensorizer", "tensorizer", "tensorizer", "tensorizer"),
            *("no_init_or_tensor", "TensorDeserializer, load_into_module"),
            formats="its own",
            wrong="dtypes buffers nonpersistent derived rotary ties views frozen strides gaps optimizer extra_state "
            "gpt2 missing surplus dtype shape untied moved",
        ),
        _peer(
            *("flashpack", "flashpack", "flashpack", "flashpack"),
            *(META, "assign_from_file"),
            formats="its own",
            file="S",
            refuses="ties strides names extra_state gpt2",
            wrong="nonpersistent attributes derived rotary views empty gaps optimizer memory missing dtype shape moved",
            dies="training",
        ),
        _peer(
            *("transformers", "safetensors", "transformers", "transformers accelerate safetensors"),
            *("none: it builds its own", "from_pretrained(device_map)"),
            formats="safetensors, torch",
            devices=TORCH_ALONE,
            file="S",
            architecture="transformers",
            wrong="missing surplus dtype",
            also=f"torch {ALSO}",
            finds=by_name,
            torch_file="S",
        ),
    )
}

# Everything that can be measured without being the user's, the suite's own first.
KNOWN = ChainMap(PEERS, STRATEGIES)

# The device peak, as a multiple of S, that the notebook which started this suite states for a strategy. It is
# held where S and L allow it: with S + L, from GPT-2 large upwards.
STATED_DEVICE_RATIO = {"sequential": 1.1}


def own_strategy(text: str, bound: str | None) -> Strategy:
    """The row of a loader of the user's, by its name, see `Reference`; `bound`: what it takes on the device at most.

    Raises `ValueError`, in a line, if it cannot be one.
    """
    reference = Reference.of(text)
    function = reference.get()
    if not takes_a_load(function):
        raise ValueError(f"{reference.display_name} cannot be called with (build, path, device), as a loader is")
    if reference.name in KNOWN:
        raise ValueError(
            f"{reference.display_name}: there is a strategy {reference.name!r} already; rename the function"
        )
    try:
        layout = required_layout(function)
    except ValueError as error:
        raise ValueError(f"{reference.display_name} {error}") from None
    return Strategy(
        UserRecipe(reference),
        layout or "torch",
        device=bound or "",
        host="",
        one_pool=bound or "",
        file="",
        pinned="",
        is_own=True,
        any_layout=layout is None,
    )
