"""The command that checks the advice on another machine, with the options of the run."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

from bench.report.rows import Row
from bench.sharded.rank_group import NODE_RANKS

# The texts of the options that a run was given, by their names: `--model`; by PROGRAM the words before them.
Typed = Mapping[str, Sequence[str]]
PROGRAM = ""

# Options that say what is loaded, and those that say with how much memory.
_MODEL = (
    *("--model", "--checkpoint", "--state-key", "--rename", "--allow-missing", "--allow-surplus", "--example-input"),
    *("--tp-plan", "--wrap", "--dtype", "--cast"),
)
_BUDGETS = ("--device-memory", "--host-memory")
_LOADERS = ("--loader", "--loader-bound", "--tolerate")
_PLACES = ("--model", "--checkpoint", "--example-input", "--loader", "--tp-plan")
CONFIG = "config.json"
HUB = "hub:"


def without_places(typed: Typed) -> dict[str, tuple[str, ...]]:
    """Return the same options with the names of files and folders, and not where on this machine they are."""
    there = {name: texts for name, texts in typed.items() if name != PROGRAM or len(texts) == 1}
    return {name: tuple(map(_name, texts)) if name in _PLACES else tuple(texts) for name, texts in there.items()}


def _name(text: str) -> str:
    path = PurePath(text)
    if text.startswith(HUB) or not (path.is_absolute() or ".." in path.parts or text.startswith("~")):
        return text
    return str(PurePath(*path.parts[-2:])) if path.name == CONFIG else path.name


def options_of(best: Row, table: Sequence[Row]) -> dict[str, tuple[str, ...]]:
    """Return the options that a row was measured with, as far as its record knows them; `table` is that of its run."""
    record = best.record
    options = {
        "--model": record.model,
        "--device": record.device,
        "--cast": record.cast,
        # A model's own checkpoint has the dtype that it has.
        "--dtype": None if record.model or record.dtype == "float32" else record.dtype,
    }
    loaders = tuple(dict.fromkeys(row.record.loader for row in table if row.record.loader))
    return {name: (text,) for name, text in options.items() if text} | ({"--loader": loaders} if loaders else {})


def check_of(best: Row, typed: Typed) -> str:
    """Return the command that loads a model as an advice says: by one process with its budget, or by ranks."""
    key = best.key
    if key.parallelism:
        words = ["--sharded", *_model(best, typed), "--strategies", key.strategy, "--parallelism", key.parallelism]
        return _command([*_started(key.ranks, best.record.ranks_per_node or NODE_RANKS, typed), *words], typed)
    return _command([*_program(typed), *_model(best, typed), *_strategy(best, typed), *_budgets(typed)], typed)


def check_of_cast(tried: Row, strategy: str, dtype: str, typed: Typed) -> str:
    """Return the command that loads a model cast to a dtype, which fits where nothing else does."""
    words = [*_model(tried, {**typed, "--cast": [dtype]}), "--strategies", strategy, *_budgets(typed)]
    return _command([*_program(typed), *words], typed)


def check_of_ranks(tried: Row, ranks: int, typed: Typed) -> str:
    """Return the command that plans the same load for so many ranks."""
    nodes = _repeated(("--ranks-per-node",), typed)
    model = _model(tried, typed, planned=True)
    words = ["--sharded", "--plan", "--ranks", str(ranks), "--parallelism", "fsdp", *nodes, *model, *_budgets(typed)]
    return shlex.join([*_program(typed), *words])


def _program(typed: Typed) -> Sequence[str]:
    return typed.get(PROGRAM, ("pytest", "bench"))


def _command(words: Sequence[str], typed: Typed) -> str:
    """Return a line for a shell; what is on the hub has to be downloaded first."""
    [name] = typed.get("--model", ("",))
    if not name.startswith(HUB):
        return shlex.join(words)
    repository, _, revision = name.removeprefix(HUB).partition("@")
    at = ["--revision", revision] if revision else []
    download = ["hf", "download", repository, *at, "--local-dir", PurePath(repository).name]
    return f"{shlex.join(download)} && {shlex.join(words)}"


def _started(ranks: int, of_a_node: int, typed: Typed) -> Iterator[str]:
    """Yield how torchrun starts ranks; on several nodes each of them runs it."""
    each = max(count for count in range(1, min(ranks, of_a_node) + 1) if ranks % count == 0)
    yield from ("torchrun", *(("--standalone",) if each == ranks else ("--nnodes", str(ranks // each))))
    yield from ("--nproc-per-node", str(each))
    if each != ranks:
        yield from ("--rdzv-backend", "c10d", "--rdzv-endpoint", "FIRST_NODE:29500")
    program = _program(typed)
    # torchrun starts a script as it is, or a module.
    yield from ("--no-python" if len(program) == 1 else "-m", *program)


def _model(row: Row, typed: Typed, *, planned: bool = False) -> Iterator[str]:
    if "--model" not in typed:
        yield from ("--sizes", row.size)
    for name, text in _pairs(_MODEL, typed):
        yield from (name, _loadable(text) if name == "--model" and not planned else text)
    device = typed.get("--device", ("auto",))[-1]
    # What is simulated or planned is checked on the device that it stands for.
    if device not in ("auto", "sim") and not planned:
        yield from ("--device", device)


def _loadable(name: str) -> str:
    """Return the model with its weights, of which a plan wants the configuration alone."""
    if name.startswith(HUB):
        return PurePath(name.removeprefix(HUB).partition("@")[0]).name
    path = PurePath(name)
    return str(path.parent) if path.name == CONFIG else name


def _strategy(best: Row, typed: Typed) -> Iterator[str]:
    """Yield what measures one strategy. All loaders of the user's are named, and one of them is selected."""
    if best.record.loader:
        yield from _repeated(_LOADERS, typed)
    yield from ("--strategies", best.key.strategy)


def _budgets(typed: Typed) -> list[str]:
    return _repeated(_BUDGETS, typed)


def _repeated(names: Sequence[str], typed: Typed) -> list[str]:
    return [word for pair in _pairs(names, typed) for word in pair]


def _pairs(names: Sequence[str], typed: Typed) -> Iterator[tuple[str, str]]:
    return ((name, text) for name in names for text in typed.get(name, ()))
