"""The lines that use the pasted code of a strategy: a call, and for many processes what divides the model."""

from collections.abc import Iterator, Sequence

from torch import nn

from bench.measure.case import Case
from bench.meters import kind_of
from bench.report.rows import Row
from bench.sharded.recipes import SHARDED
from bench.strategies import STRATEGIES

CHECKPOINT = '"checkpoint.pt"'
BUILD = "  # build() makes your model"


def usage(best: Row, case: Case | None) -> Iterator[str]:
    """Yield the lines that load a model as an advice says; none for a loader of the user's, whose code is theirs."""
    strategy, on = best.key.strategy, kind_of(case.device if case else best.record.device or "sim").torch_type
    if strategy not in (SHARDED if best.key.parallelism else STRATEGIES):
        return
    model = case.specification.architecture.skeleton() if case and best.key.parallelism else None
    if best.key.parallelism:
        yield from _of_ranks(strategy, best.key.parallelism, model, on, _given(best, case))
    else:
        yield f"from load_{strategy} import {strategy}"
        arguments = ", ".join([CHECKPOINT, f'torch.device("{on}")', *_given(best, case)])
        yield f"model = {strategy}(build, {arguments}){BUILD}"
    source = case.user_model.source if case and case.user_model else None
    if case and source and not case.specification.in_place and (changed := "; ".join(source.conversion.notes)):
        yield f"# It was given a copy of the checkpoint, {changed}"


def _given(best: Row, case: Case | None) -> list[str]:
    missing = case.specification.missing if case else ()
    cast = [f"dtype=torch.{best.record.cast}"] if best.record.cast else []
    return [*cast, *([f"missing={list(missing)!r}"] if missing else [])]


def _of_ranks(strategy: str, parallelism: str, model: nn.Module | None, on: str, given: Sequence[str]) -> Iterator[str]:
    """Yield the script of every rank, which torchrun starts."""
    yield from ("import os", "", "import torch", "from torch import distributed")
    yield "from torch.distributed.device_mesh import init_device_mesh"
    if parallelism == "fsdp":
        yield "from torch.distributed.fsdp import fully_shard"
    else:
        yield "from torch.distributed.tensor.parallel import parallelize_module"
    yield from (f"from load_{strategy} import {strategy}", "", "distributed.init_process_group()")
    yield from _device(on)
    yield f'mesh = init_device_mesh("{on}", (distributed.get_world_size(),))'
    yield from ("", "def parallelize(model):", *(f"    {line}" for line in _division(parallelism, model)), "")
    yield f"model = {strategy}(build, {', '.join([CHECKPOINT, 'device', 'parallelize', *given])}){BUILD}"


def _device(on: str) -> Iterator[str]:
    if on == "cpu":
        yield 'device = torch.device("cpu")'
        return
    yield f'device = torch.device("{on}", int(os.environ["LOCAL_RANK"]))'
    yield f"torch.{on}.set_device(device)"


def _division(parallelism: str, model: nn.Module | None) -> Iterator[str]:
    if parallelism != "fsdp":
        yield "return parallelize_module(model, mesh, plan, src_data_rank=None)  # plan: your tensor-parallel plan"
        return
    for block in repeated(model) if model else ["layers"]:
        yield f"for block in {block}:"
        yield "    fully_shard(block, mesh=mesh)"
    yield "return fully_shard(model, mesh=mesh)"


def repeated(model: nn.Module) -> list[str]:
    """Return the expressions of the outermost lists and sequences of blocks in a model."""
    found: list[str] = []
    for path, module in model.named_modules():
        is_list = isinstance(module, nn.ModuleList | nn.Sequential) and len(module) > 1
        if is_list and not any(not other or path.startswith(f"{other}.") for other in found):
            found.append(path)
    return [_expression(path) for path in found]


def _expression(path: str) -> str:
    if not path:
        return "model"
    whole = all(part.isidentifier() for part in path.split("."))
    return f"model.{path}" if whole else f'model.get_submodule("{path}")'
