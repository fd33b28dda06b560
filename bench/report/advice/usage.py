"""Example code that calls a pasted strategy; for many processes it also divides the model."""

import json
from collections.abc import Iterator, Mapping, Sequence

from bench.measure.case import Case
from bench.meters import recorded_kind
from bench.report.rows import Row
from bench.sharded.recipes import SHARDED
from bench.sharded.sharded_case import ShardedCase
from bench.strategies import STRATEGIES
from model.parallel.blocks import block_lists
from model.parallel.division import FSDP
from model.parallel.tensor_plan import plan_in_code
from model.user.pretrained_folder import PretrainedFolder

CHECKPOINT = "checkpoint.pt"
# Of a folder of Hugging Face whose weights nobody has seen yet.
WEIGHTS = "model.safetensors.index.json"
BUILD = "  # build() makes your model"


def usage(best: Row, case: Case | None) -> Iterator[str]:
    """Yield the lines that load a model as an advice says; none for a loader of the user's, whose code is theirs."""
    # Of the device that the advice is about: the case may be of a load that was timed elsewhere.
    strategy, on = best.key.strategy, recorded_kind(best.record.device or "sim").torch_type
    if strategy not in (SHARDED if best.key.parallelism else STRATEGIES):
        return
    if isinstance(case, ShardedCase):
        yield from _of_ranks(strategy, case, on, _given(best, case))
    else:
        yield f"from load_{strategy} import {strategy}"
        arguments = ", ".join([_path(case), f'torch.device("{on}")', *_given(best, case)])
        yield f"model = {strategy}(build, {arguments}){BUILD}"
    source = case.user_model.source if case and case.user_model else None
    if case and source and not case.specification.in_place and (changed := "; ".join(source.conversion.notes)):
        yield f"# It was given a copy of the checkpoint, {changed}"


def _path(case: Case | None) -> str:
    """Return the path of the checkpoint, as code: of a folder of Hugging Face that of its weights."""
    user_model = case.user_model if case else None
    if user_model is None or not isinstance(user_model.factory, PretrainedFolder):
        return json.dumps(CHECKPOINT)
    source = user_model.source
    return json.dumps(f"{user_model.factory.name}/{source.path.name if source else WEIGHTS}")


def _given(best: Row, case: Case | None) -> list[str]:
    missing = case.specification.missing if case else ()
    cast = [f"dtype=torch.{best.record.cast}"] if best.record.cast else []
    return [*cast, *([f"missing={list(missing)!r}"] if missing else [])]


def _of_ranks(strategy: str, case: ShardedCase, on: str, given: Sequence[str]) -> Iterator[str]:
    """Yield the script of every rank, which torchrun starts."""
    yield from ("import os", "", "import torch", "from torch import distributed")
    yield "from torch.distributed.device_mesh import init_device_mesh"
    if case.parallelism == FSDP:
        yield "from torch.distributed.fsdp import fully_shard"
    else:
        yield from _imports_of_plan(plan_in_code(case.specification.architecture.skeleton(), case.division.tp_plan))
    yield from (f"from load_{strategy} import {strategy}", "", "distributed.init_process_group()")
    yield from _device(on)
    yield f'mesh = init_device_mesh("{on}", (distributed.get_world_size(),))'
    yield from ("", "def parallelize(model):", *(f"    {line}" for line in _division(case)), "")
    yield f"model = {strategy}(build, {', '.join([_path(case), 'device', 'parallelize', *given])}){BUILD}"


def _imports_of_plan(plan: Mapping[str, str] | None) -> Iterator[str]:
    styles = " ".join((plan or {}).values())
    if "Replicate" in styles:
        yield "from torch.distributed.tensor import Replicate"
    names = [name for name in ("ColwiseParallel", "RowwiseParallel") if name in styles]
    yield f"from torch.distributed.tensor.parallel import {', '.join([*names, 'parallelize_module'])}"


def _device(on: str) -> Iterator[str]:
    if on == "cpu":
        yield 'device = torch.device("cpu")'
        return
    yield f'device = torch.device("{on}", int(os.environ["LOCAL_RANK"]))'
    yield f"torch.{on}.set_device(device)"


def _division(case: ShardedCase) -> Iterator[str]:
    model, division = case.specification.architecture.skeleton(), case.division
    if case.parallelism != FSDP:
        plan = plan_in_code(model, division.tp_plan)
        if plan is not None:
            yield from ("plan = {", *(f'    "{name}": {style},' for name, style in plan.items()), "}")
        what = "" if plan is not None else "  # plan: the dict of --tp-plan"
        yield f"return parallelize_module(model, mesh, plan, src_data_rank=None){what}"
        return
    for path, classes in block_lists(model, division.wrap).items():
        yield f"for block in {_expression(path)}{'.children()' if classes else ''}:"
        if classes:
            yield f"    if type(block).__name__ in {classes!r}:"
        yield f"    {'    ' if classes else ''}fully_shard(block, mesh=mesh)"
    yield "return fully_shard(model, mesh=mesh)"


def _expression(path: str) -> str:
    if not path:
        return "model"
    whole = all(part.isidentifier() for part in path.split("."))
    return f"model.{path}" if whole else f'model.get_submodule("{path}")'
