"""The command line: one table of all options. Each field of `Options` is an option, with its row of the table."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.conformance.properties import PROPERTIES
from bench.meters import KINDS
from bench.meters.driver.card import CardSettings
from bench.plugin import option_texts
from bench.plugin.option import Option, option, with_headings
from bench.plugin.option_combinations import require_combination
from bench.plugin.option_texts import ASKED_LAYOUTS, DEFAULT_RANKS, names
from bench.sharded.rank_group import NODE_RANKS
from bench.strategies import PEERS, STRATEGIES
from bench.versus.side_comparison import FEWEST_ROUNDS
from model.architecture import DTYPES
from model.gpt2 import SIZES
from model.parallel.division import PARALLELISMS
from model.user.renaming import rule

ALL_SIZES = ("small", "medium", "large", "xl")

# The headings of --help, by the first option below each.
HEADINGS = {
    "model": "your model",
    "plan": "memory budgets",
    "strategies": "strategies, and your own loaders",
    "device": "device and checkpoint",
    "sharded": "many GPUs",
    "explain": "what a run writes",
    "memory_compare_fail": "comparison with earlier runs",
    "versus": "two versions in turn",
}


@dataclass(frozen=True)
class Options:
    """The options of a run, each parsed by itself. None: the option is not there, and has no default."""

    model: str | None = option(
        None,
        "MODEL",
        "your model: a Hugging Face folder with config.json and weights, or a config.json alone; or a function "
        "without arguments that builds it, file.py:function or package.module:function; or, with --plan, "
        "hub:ORG/NAME[@REVISION] on the Hugging Face hub, of which the headers are fetched (default: GPT-2)",
    )
    checkpoint: str | None = option(
        None,
        "PATH",
        "checkpoint of your model, a file or a folder (default: the weights in the folder of --model; without one, "
        "random weights are saved)",
    )
    cast: str | None = option(
        None,
        "DTYPE",
        f"dtype to convert floating-point weights to: {', '.join(DTYPES)} (default: the checkpoint's)",
        option_texts.dtype,
    )
    state_key: str | None = option(
        None,
        "KEY",
        "key of the state dict in the checkpoint, such as model or states.ema (default: the checkpoint is a "
        "state dict)",
    )
    rename: tuple[tuple[str, str], ...] = option(
        None,
        "REGEX=REPLACEMENT",
        "regular expression and its replacement, for every name in the checkpoint, such as 'bert\\.(.*)=\\1'; "
        "may be repeated, applied in order (default: none)",
        rule,
        repeated=True,
    )
    allow_missing: tuple[str, ...] = option(
        None,
        "GLOB",
        "names of the model that the checkpoint may lack, such as 'head.*': these keep the model's initial "
        "values; may be repeated (default: none)",
        repeated=True,
    )
    allow_surplus: tuple[str, ...] = option(
        None,
        "GLOB",
        "names in the checkpoint (after --rename) to leave out, such as 'bert.pooler.*'; may be repeated "
        "(default: none)",
        repeated=True,
    )
    example_input: str | None = option(
        None,
        "FUNCTION",
        "function that returns a first input for your model: a tensor, a tuple, or a dict of arguments "
        "(default: attribute example of the factory, or an input made from config.json; without one, outputs "
        "are not compared)",
    )
    plan: bool = option(False, None, "compute the peaks without loading: needs no weights, no memory and no GPU")
    device_memory: int | None = option(
        None,
        "BYTES",
        "budget of device memory for every load or plan, such as 8GiB; with --sharded for each rank (default: none)",
        option_texts.amount,
    )
    host_memory: int | None = option(
        None,
        "BYTES",
        "budget of host memory for every load or plan, such as 4GiB; with --sharded for each node; timed "
        "loads have none (default: none)",
        option_texts.amount,
    )
    find_minimum: bool = option(
        False, None, "find the smallest device and host memory that each strategy needs, by bisection"
    )
    # Its names depend on --sharded.
    strategies: str = option(
        "all",
        "LIST",
        f"a comma list of {', '.join(STRATEGIES)}, and names of your loaders; all: these; mine: your loaders alone; "
        f"peers: the loaders of other projects, which are {', '.join(PEERS)}",
    )
    loader: tuple[str, ...] = option(
        None,
        "FUNCTION",
        "your own loader, a function (build, path, device), measured like a strategy; may be repeated (default: none)",
        repeated=True,
    )
    loader_bound: tuple[str, ...] = option(
        None,
        "BOUND",
        "largest peak of device memory that your loader may have, such as S + L; once for each loader, or "
        "once for all (default: no bound)",
        option_texts.bound,
        repeated=True,
    )
    tolerate: tuple[str, ...] | None = option(
        None,
        "LIST",
        "properties in which your loader may fail, from the table in bench/conformance/README.md, such as "
        "dtype,untied,moved (default: a warning for each)",
        names(PROPERTIES, {}),
    )
    require_all: bool = option(False, None, "fail if a strategy refuses the model, or is skipped")
    conformance: bool = option(
        False, None, "print which kinds of models each strategy loads correctly, as Markdown tables"
    )
    device: str = option(
        "auto",
        "DEVICE",
        f"device to load to: {', '.join(kind.help for kind in KINDS.values())}; auto: CUDA if there is one, else sim "
        "for memory and cpu for time",
        option_texts.device,
    )
    stand_in: CardSettings | None = option(
        None,
        "BYTES",
        "run on a stand-in for a GPU with this much memory, such as 80GiB; a comma list for several (default: none)",
        option_texts.card,
    )
    cache: str = option(
        "warm",
        "STATE",
        "state of the checkpoint before each load: warm, in the page cache; cold, evicted from it",
        option_texts.cache_state,
    )
    layout: str | None = option(
        None,
        "LAYOUT",
        f"layout to save the checkpoint in, once: {', '.join(ASKED_LAYOUTS)}; strategies that cannot load it are left "
        "out (default: that of your checkpoint if the strategy loads it, else the strategy's own)",
        option_texts.layout,
    )
    sizes: tuple[str, ...] = option(
        "small",
        "LIST",
        f"GPT-2 sizes, a comma list of {', '.join(SIZES)}; all: small to xl",
        names(SIZES, {"all": ALL_SIZES}),
    )
    dtype: str = option("float32", "DTYPE", f"dtype of the checkpoint: {', '.join(DTYPES)}", option_texts.dtype)
    checkpoint_dir: Path | None = option(
        None,
        "FOLDER",
        "folder to keep checkpoints in, created if missing (default: weight-loading/ in your cache folder)",
        option_texts.writable_folder,
    )
    sharded: bool = option(
        False, None, "measure loads of one model by many processes, started by torchrun or by this run"
    )
    ranks: tuple[int, ...] | None = option(
        None,
        "LIST",
        "number of processes that load a model together, or a comma list, such as 8,64,1024 (default: that of "
        f"torchrun, else one per GPU, else {DEFAULT_RANKS})",
        option_texts.rank_counts,
    )
    ranks_per_node: int | None = option(
        None,
        "NUMBER",
        f"number of planned processes that share the host memory of a node (default: {NODE_RANKS})",
        option_texts.node_ranks,
    )
    parallelism: tuple[str, ...] = option(
        "all",
        "LIST",
        f"how to divide the model among processes: a comma list of {', '.join(PARALLELISMS)}; all: these",
        names(PARALLELISMS, {"all": PARALLELISMS}),
    )
    wrap: tuple[str, ...] = option(
        None,
        "CLASS",
        "class of the blocks that FSDP2 shards one by one, such as LlamaDecoderLayer; may be repeated (default: the "
        "entries of lists whose class repeats)",
        repeated=True,
    )
    tp_plan: str | None = option(
        None,
        "PLAN",
        "tensor-parallel plan of your model, package.module:name or file.py:name: a dict of names of modules, which "
        "may have a *, and styles, or a function that returns one (default: attribute tp_plan of the model, as many of "
        "transformers have it)",
    )
    explain: bool = option(
        False, None, "list the memory in use at every peak: bytes and tensors, by the line that allocated them"
    )
    report: Path | None = option(
        None,
        "FOLDER",
        "folder to write the page of the run into (default: report/ beside the recorded runs, in results/, or in "
        "weight-loading/ for a model or loader of yours)",
        option_texts.folder,
    )
    export: Path | None = option(
        None,
        "FOLDER",
        "folder to write figures for github-action-benchmark and Bencher into (default: none)",
        option_texts.folder,
    )
    memory_compare_fail: float | None = option(
        "1%", "PERCENT", "how much a peak may grow with --benchmark-compare; off: any amount", option_texts.fraction
    )
    time_compare_fail: float | None = option(
        "5%",
        "PERCENT",
        "how much slower a load may become with --benchmark-compare, beyond the spread of other runs; off: any amount",
        option_texts.fraction,
    )
    require_comparison: bool = option(False, None, "compare, and fail if there is nothing to compare with")
    accept_regressions: bool = option(
        False, None, "compare, and accept regressions: later runs are compared with this one"
    )
    history: bool = option(False, None, "run nothing, and show at which recorded runs a figure changed")
    versus: str | None = option(
        None,
        "WHAT",
        "commit (main, HEAD~3) or pip requirement (torch==2.12.*) to measure in turn with this checkout; A..B: measure "
        "two of them (default: none)",
    )
    versus_rounds: int = option(
        "6", "NUMBER", "number of times that --versus measures each side", option_texts.rounds(FEWEST_ROUNDS)
    )


OPTIONS: tuple[Option, ...] = tuple(with_headings(map(Option.of, fields(Options)), HEADINGS))


def parsed(given: Any) -> Options:
    """Parse pytest's namespace of options. Raises `ValueError` with one line: what is wrong, and what is right."""
    require_combination(given, {one.attribute: one.default for one in OPTIONS})
    return Options(**{one.attribute: one.value(getattr(given, one.attribute)) for one in OPTIONS})
